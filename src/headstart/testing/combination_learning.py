"""What a method of the kind `learning` must do, and what it may claim: on linear classifiers of a few rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from headstart.core import Learned, Steps, Undeclared
from headstart.numerics.inserts import Mixture
from headstart.numerics.learning import mean_loss, score

from .merges import plainly

Law = Callable[..., None]
Array = np.ndarray[Any, Any]
WIDTH, CLASSES, ROWS = 8, 3, 60
WHOLE: dict[str, Any] = {"share": 1.0, "final": "expectation"}  # nothing masked; of methods that have such a setting


class LinearTasks:
    """Tasks of linear classifiers over one base, each with a model that solves it; satisfies `core.MergeView`.

    labels: whether they may be read. alike: whether all models are the base. copies: whether all are the first one.
    turned: whether they stand in the other order.
    """

    def __init__(
        self, seed: int, tasks: int = 2, models: int = 3, *, labels: bool = True, alike: bool = False,
        copies: bool = False, turned: bool = False,
    ) -> None:  # fmt: skip
        g = torch.Generator().manual_seed(seed)
        self.models = [f"model {m}" for m in range(models)]
        self.tasks = [f"task {t}" for t in range(tasks)]
        self.tensors = ["weight", "bias"]
        self.may_read, self.calls = labels, 0
        self._base = {"weight": 0.1 * torch.randn(CLASSES, WIDTH, generator=g), "bias": torch.zeros(CLASSES)}
        self._changes = [
            {"weight": 2 * torch.randn(CLASSES, WIDTH, generator=g), "bias": torch.randn(CLASSES, generator=g)}
            for _ in self.models
        ]
        if alike:
            self._changes = [{n: torch.zeros_like(c) for n, c in one.items()} for one in self._changes]
        self._x = [torch.randn(ROWS, WIDTH, generator=g) for _ in self.tasks]
        self._y = [
            (x @ (self._base["weight"] + self._changes[t % models]["weight"]).T).argmax(1)
            for t, x in enumerate(self._x)
        ]
        if copies:
            self._changes = self._changes[:1] * models
        self._turned = turned
        if turned:
            self._changes.reverse()

    def link(self, task: int) -> Literal["softmax", "sigmoid", "identity"]:
        del task
        return "softmax"

    def metric(self, task: int) -> str:
        del task
        return "accuracy"

    def rows(self, task: int) -> int:
        del task
        return ROWS

    def labels(self, task: int, rows: Sequence[int]) -> torch.Tensor:
        if not self.may_read:
            raise Undeclared("labels are read", where="`needs`", fix="declare labels")
        return self._y[task][list(rows)]

    def own(self, task: int) -> int | None:
        number = task % len(self.models)
        return len(self.models) - 1 - number if self._turned else number

    def base(self, tensor: str) -> torch.Tensor:
        return self._base[tensor]

    def changes(self, tensor: str) -> Sequence[torch.Tensor]:
        return [one[tensor] for one in self._changes]

    def shared(self, shares: Array) -> dict[str, torch.Tensor]:
        return {
            n: self._base[n] + sum(float(s) * c[n] for s, c in zip(shares[i], self._changes, strict=True))
            for i, n in enumerate(self.tensors)
        }

    def depth(self, tensor: str) -> float | None:
        return float(self.tensors.index(tensor))

    def made(
        self, method: str, settings: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]] | None = None
    ) -> dict[str, torch.Tensor]:
        """Task arithmetic, whatever is asked for."""
        del method
        each = [(own or {}).get(n, settings) for n in self.tensors]
        weights = [np.array(s.get("weights") or [1.0] * len(self.models)) for s in each]
        return self.shared(np.stack([s.get("scale", 1.0) * w for s, w in zip(each, weights, strict=True)]))

    def head(self, task: int) -> Mapping[str, torch.Tensor]:
        """One more layer that changes nothing."""
        del task
        return {"head": torch.eye(CLASSES)}

    def blocks(self) -> Sequence[tuple[Sequence[str], int]]:
        return [(("weight", "bias"), WIDTH)]

    def logits(
        self, weights: Mapping[str, torch.Tensor], task: int, rows: Sequence[int], mixtures: Sequence[Mixture] = ()
    ) -> torch.Tensor:
        self.calls += 1
        x = self._x[task][list(rows)]
        out = x @ weights["weight"].T + weights["bias"]
        for mixture in mixtures:
            for gate, change in zip(mixture.gates(x).T, self._changes, strict=True):
                out = out + gate[:, None] * (x @ change["weight"].T + change["bias"])
        return out @ weights.get("head", torch.eye(CLASSES)).T

    def inputs(self, task: int) -> torch.Tensor:
        return self._x[task]

    def features(self, weights: Mapping[str, torch.Tensor], task: int, rows: Sequence[int]) -> torch.Tensor:
        """What goes into the head."""
        return self.logits(weights, task, rows)

    def states(self, weights: Mapping[str, torch.Tensor], task: int, rows: Sequence[int]) -> torch.Tensor:
        """The inputs: all of the model is its head."""
        del weights
        return self._x[task][list(rows)]


def weights_of(view: LinearTasks, learned: Learned) -> dict[str, torch.Tensor]:
    if learned.method is not None:
        return view.made(learned.method, learned.settings, learned.own)
    assert learned.shares is not None
    out = {}
    for shares, name in zip(learned.shares, view.tensors, strict=True):
        base, changes = view.base(name), torch.stack(list(view.changes(name)))
        gates = np.broadcast_to(learned.gates.get(name, np.ones(())), changes.shape)
        factors = torch.tensor(shares).view(-1, *[1] * base.dim()) * torch.tensor(gates)
        out[name] = (base + (factors * changes).sum(0)).float()
    return out


def same_models(view: LinearTasks, kept: LinearTasks) -> None:
    """Raises AssertionError where a method wrote into what it was shown."""
    for name in view.tensors:
        assert torch.equal(view.base(name), kept.base(name))
        assert all(torch.equal(a, b) for a, b in zip(view.changes(name), kept.changes(name), strict=True))


def _view(method: Any, seed: int, **settings: Any) -> LinearTasks:
    return LinearTasks(seed, labels=method.needs.labels, **settings)


def repeatable(method: Any, seed: int) -> None:
    one, two = (method(_view(method, seed), Steps(horizon=6)) for _ in range(2))
    assert one.curve == two.curve
    found = [weights_of(_view(method, seed), o) for o in (one, two)]
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])


def says_what_it_learned(method: Any, seed: int) -> None:
    view = _view(method, seed)
    learned = method(view, Steps(horizon=3))
    assert (learned.shares is None) != (learned.method is None)
    if learned.shares is not None:
        assert learned.shares.shape == (2, 3)
        assert np.isfinite(learned.shares).all()
    assert learned.curve
    assert all(np.isfinite(v) for _, v in learned.curve)


def no_change_no_change(method: Any, seed: int) -> None:
    """Models that are the base give the base, whatever the rows say."""
    view = _view(method, seed, alike=True)
    found = weights_of(view, method(view, Steps(horizon=4)))
    assert all(torch.equal(w, view.base(n)) for n, w in found.items())


def view_stays_as_it_was(method: Any, seed: int) -> None:
    view, kept = _view(method, seed), _view(method, seed)
    method(view, Steps(horizon=4))
    same_models(view, kept)


def objective_falls(method: Any, seed: int) -> None:
    """What is learned is better by what it was learned by; of batches, the last tenth beside the first."""
    curve = [v for _, v in method(_view(method, seed), Steps(horizon=200)).curve]
    tenth = max(1, len(curve) // 10)
    assert np.mean(curve[-tenth:]) <= np.mean(curve[:tenth]) + 1e-9


def finds_the_task(method: Any, seed: int) -> None:
    """Of one task that the first model solves, it learns more than the base knows, and takes most from that model."""
    view = _view(method, seed, tasks=1)
    learned = method(view, Steps(horizon=100))
    assert mean_loss(view, weights_of(view, learned)) < mean_loss(view, view.shared(np.zeros((2, 3))))
    assert learned.shares is not None
    assert int(learned.shares[0].argmax()) == 0


def shares_sum_to_one(method: Any, seed: int) -> None:
    learned = method(_view(method, seed), Steps(horizon=20))
    np.testing.assert_allclose(learned.shares.sum(1), 1, rtol=1e-12)
    assert (learned.shares >= 0).all()


def no_worse_than_the_best_model(method: Any, seed: int) -> None:
    view = _view(method, seed)
    found = score(view, weights_of(view, method(view, Steps())))
    assert found >= max(score(view, view.shared(np.tile(np.eye(3)[m], (2, 1)))) for m in range(3)) - 1e-12


def source_order(method: Any, seed: int) -> None:
    """The order of models says nothing about what is learned of them."""
    found = []
    for turned in (False, True):
        view = _view(method, seed, turned=turned)
        found.append(weights_of(view, method(view, Steps(horizon=4))))
    near(found[0], found[1])


def agreement(method: Any, seed: int) -> None:
    """Copies of one model, whole and their mean taken, are that model."""
    view = _view(method, seed, copies=True)
    near(weights_of(view, plainly(method, **{**WHOLE, **_begun(1 / 3)})(view, Steps(horizon=0))), model_of(view))


def one_model(method: Any, seed: int) -> None:
    """One model, whole and at weight 1, is that model, where nothing moves it from there."""
    view = _view(method, seed, models=1)
    near(weights_of(view, plainly(method, **{**WHOLE, **_begun(1.0)})(view, Steps(horizon=0))), model_of(view))


def scale_zero(method: Any, seed: int) -> None:
    """Begun at shares of 0, or with nothing kept, it is the base, where nothing moves it from there."""
    view = _view(method, seed)
    found = weights_of(view, plainly(method, share=0.0, **_begun(0.0))(view, Steps(horizon=0)))
    assert all(torch.equal(w, view.base(n)) for n, w in found.items())


def _begun(share: float) -> dict[str, float]:
    """Settings by which methods say at which share of every model they begin."""
    return {"start": share, "scale": share}


def model_of(view: LinearTasks) -> dict[str, torch.Tensor]:
    """The first one."""
    return {n: view.base(n) + view.changes(n)[0] for n in view.tensors}


def near(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-5)


ALWAYS: list[Law] = [repeatable, says_what_it_learned, no_change_no_change, view_stays_as_it_was]
_CLAIMED = (
    source_order, agreement, one_model, scale_zero, objective_falls, finds_the_task, shares_sum_to_one,
    no_worse_than_the_best_model,
)  # fmt: skip
CLAIMS: dict[str, Law] = {law.__name__: law for law in _CLAIMED}
