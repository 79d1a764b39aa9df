"""What a method of the kind `routing` must do, and what it may claim: on linear classifiers of a few rows."""

from __future__ import annotations

from typing import Any

import torch

from headstart.core import Learned, Routed, Steps
from headstart.numerics.delta import Picked, applied, dense, part_of, shape_of
from headstart.numerics.inserts import tensors_of

from .combination_learning import Law, LinearTasks, model_of, near, same_models, weights_of
from .merges import plainly

FAR = 3.0  # how far the inputs of the tasks lie apart, in their spread


class RoutedTasks(LinearTasks):
    """As `LinearTasks`, a task for each model, whose inputs lie around a point of their own."""

    def __init__(self, seed: int, models: int = 3, **settings: Any) -> None:
        super().__init__(seed, tasks=models, models=models, **settings)
        for task, inputs in enumerate(self._x):
            inputs[:, task] += FAR
        tuned = [self._tuned(self.own(t) or 0) for t in range(models)]
        self._y = [(x @ w["weight"].T + w["bias"]).argmax(1) for x, w in zip(self._x, tuned, strict=True)]

    def _tuned(self, model: int) -> dict[str, torch.Tensor]:
        return {n: self._base[n] + self._changes[model][n] for n in self.tensors}


def expert_of(view: LinearTasks, routed: Routed, model: int) -> dict[str, torch.Tensor]:
    """The weights for inputs of a model's own task, but for what mixtures add."""
    mixed = {n for m in routed.mixtures for n in m.tensors}
    out = {}
    for name, plain in weights_of(view, routed.shared).items():
        change = routed.experts[model].get(name) if name not in mixed else None
        if isinstance(change, Picked):
            change = part_of(change, dense(routed.common[name]))
        out[name] = plain if change is None else applied(change, plain)
    return out


def head_of(view: LinearTasks, routed: Routed, model: int) -> dict[str, torch.Tensor]:
    """The head for inputs of a model's own task."""
    changes = routed.experts[model]
    return {n: applied(changes[n], w) if n in changes else w for n, w in view.head(model).items()}


def _view(method: Any, seed: int, **settings: Any) -> RoutedTasks:
    return RoutedTasks(seed, labels=method.needs.labels, **settings)


def repeatable(method: Any, seed: int) -> None:
    view = _view(method, seed)
    one, two = (method(_view(method, seed), Steps(horizon=6)) for _ in range(2))
    for model in range(3):
        found = [{**expert_of(view, o, model), **head_of(view, o, model)} for o in (one, two)]
        assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])
    held = [tensors_of(o.mixtures, o.corrections) for o in (one, two)]
    assert held[0].keys() == held[1].keys()
    assert all(torch.equal(held[0][n], held[1][n]) for n in held[0])
    if one.router is not None:
        states = view.states({}, 0, range(5))
        assert torch.equal(one.router.weights(states), two.router.weights(states))


def fits_its_models(method: Any, seed: int) -> None:
    view = _view(method, seed)
    routed = method(view, Steps(horizon=3))
    assert isinstance(routed.shared, Learned)
    assert len(routed.experts) == len(view.models)
    for model, expert in enumerate(routed.experts):
        shapes = {n: tuple(w.shape) for n, w in [*((n, view.base(n)) for n in view.tensors), *view.head(model).items()]}
        assert all(tuple(shape_of(form)) == shapes[n] for n, form in expert.items())
    assert all(m.gates(view.inputs(0)).shape[1] == len(view.models) for m in routed.mixtures)
    assert len(routed.corrections) in (0, len(view.models))
    for model in range(3):
        assert all(bool(w.isfinite().all()) for w in expert_of(view, routed, model).values())


def no_change_no_change(method: Any, seed: int) -> None:
    """Models that are the base give the base, for every task."""
    view = _view(method, seed, alike=True)
    routed = method(view, Steps(horizon=4))
    for model in range(3):
        assert all(torch.equal(w, view.base(n)) for n, w in expert_of(view, routed, model).items())
    assert not any(routed.corrections)


def view_stays_as_it_was(method: Any, seed: int) -> None:
    view, kept = _view(method, seed), _view(method, seed)
    method(view, Steps(horizon=4))
    same_models(view, kept)


def nearer_than_shared(method: Any, seed: int) -> None:
    """With its expert, the shared model is nearer to the model that the expert was taken from, tensor by tensor."""
    view = _view(method, seed)
    routed = method(view, Steps(horizon=3))
    shared = weights_of(view, routed.shared)
    for model in range(3):
        for name, found in expert_of(view, routed, model).items():
            own = view.base(name) + view.changes(name)[model]
            before, after = float((shared[name] - own).norm()), float((found - own).norm())
            assert after < before, f"{name}: {after} from the model, and {before} without its expert"


def tells_tasks_apart(method: Any, seed: int) -> None:
    """Inputs that lie far apart go to the experts of their tasks."""
    view = _view(method, seed)
    routed = method(view, Steps(horizon=200))
    for task in range(3):
        chosen = routed.router.weights(view.states({}, task, range(60))).argmax(1)
        assert float((chosen == task).float().mean()) > 0.8


def source_order(method: Any, seed: int) -> None:
    """What a task's own model becomes does not hang on where that stands among the models."""
    views = [_view(method, seed, turned=turned) for turned in (False, True)]
    plain, turned = (method(view, Steps(horizon=4)) for view in views)
    for model in range(3):
        near(expert_of(views[1], turned, 2 - model), expert_of(views[0], plain, model))


def copies(method: Any, seed: int) -> None:
    """Copies of one model, whole and their mean taken, give that model to every task."""
    view = _view(method, seed, copies=True)
    routed = _begun(method, 1 / 3, keep=1.0)(view, Steps(horizon=0))
    for model in range(3):
        near(expert_of(view, routed, model), model_of(view))
    _nothing_is_inserted(view, routed)


def one_model(method: Any, seed: int) -> None:
    """One model, whole and at weight 1, is that model."""
    view = _view(method, seed, models=1)
    routed = _begun(method, 1.0, keep=1.0)(view, Steps(horizon=0))
    near(expert_of(view, routed, 0), model_of(view))
    _nothing_is_inserted(view, routed)


def scale_zero(method: Any, seed: int) -> None:
    """Begun at shares of 0, and with nothing kept, it is the base for every task."""
    view, least = _view(method, seed), _begun(method, 0.0, keep=0.0)
    assert least != method, "has no setting that says how much it takes"
    routed = least(view, Steps(horizon=0))
    for model in range(3):
        assert all(torch.equal(w, view.base(n)) for n, w in expert_of(view, routed, model).items())
    _nothing_is_inserted(view, routed)


def _nothing_is_inserted(view: LinearTasks, routed: Routed) -> None:
    assert not any(bool(m.gates(view.inputs(0)).any()) for m in routed.mixtures)
    assert not any(bool(t.any()) for n, t in tensors_of((), routed.corrections).items() if "up" in n)


def _begun(method: Any, share: float, **settings: Any) -> Any:
    """The method where it begins at a share of every model, or of their sum."""
    return plainly(method, start=share, settings=(("scale", share),), **settings)


ALWAYS: list[Law] = [repeatable, fits_its_models, no_change_no_change, view_stays_as_it_was]
_CLAIMED = (nearer_than_shared, tells_tasks_apart, source_order, copies, one_model, scale_zero)
CLAIMS: dict[str, Law] = {law.__name__: law for law in _CLAIMED}
