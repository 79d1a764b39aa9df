"""What merges that learn have in common: batches, objectives, slopes of shares, scores of weights.

The gradient of an objective in the share of one model's change of one tensor is the inner product of that change and
the objective's gradient in the tensor: one backward pass serves all models, and changes are read one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from headstart.core import METRICS, MergeView, Unfit

from . import metrics
from .artifacts import linked

Array = np.ndarray[Any, Any]
Weights = Mapping[str, torch.Tensor]


def draws(rows: int, size: int, seed: int) -> Iterator[list[int]]:
    """Batches without end; every row comes once before any comes again.

    >>> found = draws(3, 2, seed=0)
    >>> sorted(next(found) + next(found))[:3]
    [0, 1, 2]
    """
    rng = np.random.default_rng(seed)
    left: list[int] = []
    while True:
        while len(left) < min(size, rows):
            left += [int(r) for r in rng.permutation(rows)]
        yield left[: min(size, rows)]
        left = left[min(size, rows) :]


def one_model(view: MergeView, number: int) -> dict[str, torch.Tensor]:
    """The weights of one model alone, as what it changed in the base."""
    shares = np.zeros((len(view.tensors), len(view.models)))
    shares[:, number] = 1
    return view.shared(shares)


def entropy(logits: torch.Tensor, link: str) -> torch.Tensor:
    """Mean entropy of the predictions, in nats; of several labels, the mean over them too.

    >>> round(float(entropy(torch.zeros(1, 4), "softmax")), 4)
    1.3863
    """
    if link == "identity":
        raise Unfit(
            "numbers that are predicted have no entropy",
            where="the tasks of a merge",
            fix="use a method that reads labels",
        )
    if link == "softmax":
        logs = torch.log_softmax(logits, 1)
        return -(logs.exp() * logs).sum(1).mean()
    yes, no = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    return -(yes.exp() * yes + no.exp() * no).mean()


def loss(logits: torch.Tensor, labels: torch.Tensor, link: str) -> torch.Tensor:
    """Mean loss on labelled rows: cross-entropy, or the squared error of numbers.

    >>> round(float(loss(torch.zeros(1, 4), torch.tensor([2]), "softmax")), 4)
    1.3863
    """
    if link == "softmax":
        return torch.nn.functional.cross_entropy(logits, labels)
    if link == "sigmoid":
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    return torch.nn.functional.mse_loss(logits.squeeze(1), labels.float())


def gradient(
    view: MergeView, weights: Weights, batches: Sequence[Sequence[int]],
    objective: Callable[[int, torch.Tensor], torch.Tensor],
) -> tuple[float, dict[str, torch.Tensor]]:  # fmt: skip
    """Mean objective over the tasks on one batch each, and its gradient in the weights.

    batches: of all tasks, in order; one without rows is left out.
    """
    leaves = {n: w.detach().requires_grad_() for n, w in weights.items()}
    total, chosen = 0.0, [(task, rows) for task, rows in enumerate(batches) if len(rows)]
    for task, rows in chosen:
        value = objective(task, view.logits(leaves, task, rows)) / len(chosen)
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
    return total, {n: w.grad if w.grad is not None else torch.zeros_like(w) for n, w in leaves.items()}


def gated(view: MergeView, shares: Array, gates: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """The base and the sum of shares times changes, those of tensors with gates each times its gate."""
    rest = shares.copy()
    rest[[i for i, n in enumerate(view.tensors) if n in gates]] = 0
    out = view.shared(rest)
    for i, name in enumerate(view.tensors):
        for share, factors, change in _behind(view, shares[i], name, gates):
            out[name] += float(share) * factors * change
    return out


def slopes(view: MergeView, gradients: Weights, gates: Mapping[str, Array] | None = None) -> Array:
    """(tensors, models) derivatives in the shares. gates: as in `core.Learned`, on the changes."""
    out = np.zeros((len(view.tensors), len(view.models)))
    for i, name in enumerate(view.tensors):
        flat = gradients[name].flatten()
        if gates and name in gates:
            out[i] = [float(flat @ (f * c).flatten()) for _, f, c in _behind(view, out[i], name, gates)]
        else:
            out[i] = [float(flat @ change.flatten()) for change in view.changes(name)]
    return out


def _behind(
    view: MergeView, shares: Array, name: str, gates: Mapping[str, Array]
) -> Iterator[tuple[float, torch.Tensor, torch.Tensor]]:
    """Share, gate and change of each model, where the tensor has gates."""
    if name in gates:
        each = np.broadcast_to(gates[name], (len(shares), *view.base(name).shape))
        for share, factors, change in zip(shares, each, view.changes(name), strict=True):
            yield share, torch.tensor(factors), change


def outputs(view: MergeView, weights: Weights, task: int) -> torch.Tensor:
    """Logits of all rows of a task."""
    with torch.no_grad():
        return view.logits(weights, task, range(view.rows(task)))


def score(view: MergeView, weights: Weights) -> float:
    """Mean over the tasks of each one's metric, on all rows; higher is better."""
    found = []
    for task in range(len(view.tasks)):
        table = linked(outputs(view, weights, task).numpy(), view.link(task))
        labels = view.labels(task, range(view.rows(task))).numpy()
        found.append(METRICS[view.metric(task)].sign * metrics.value(view.metric(task), labels, table))
    return float(np.mean(found))


def mean_loss(view: MergeView, weights: Weights, tasks: Sequence[int] | None = None) -> float:
    """Mean over the tasks of the loss on all rows. tasks: numbers of those that count; else all."""
    found = [
        loss(outputs(view, weights, t), view.labels(t, range(view.rows(t))), view.link(t))
        for t in (range(len(view.tasks)) if tasks is None else tasks)
    ]
    return float(torch.stack(found).mean())


def judged(view: MergeView, weights: Weights) -> tuple[float, float]:
    """Means over the tasks of the loss, and of the metric, higher is better; on all rows, by one pass."""
    losses, scores = [], []
    for task in range(len(view.tasks)):
        table, labels = outputs(view, weights, task), view.labels(task, range(view.rows(task)))
        losses.append(float(loss(table, labels, view.link(task))))
        sign = METRICS[view.metric(task)].sign
        scores.append(sign * metrics.value(view.metric(task), labels.numpy(), linked(table.numpy(), view.link(task))))
    return float(np.mean(losses)), float(np.mean(scores))


class Descent:
    """Shares as numbers that an optimiser of torch moves; float64."""

    def __init__(self, start: Array, optimiser: Callable[[list[torch.Tensor]], torch.optim.Optimizer]) -> None:
        self._values = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        self.optimiser = optimiser([self._values])

    @property
    def values(self) -> Array:
        return self._values.detach().numpy().copy()

    def step(self, slope: Array, longest: float | None = None) -> None:
        """Down the slope. longest: to which it is cut."""
        self._values.grad = torch.from_numpy(slope.copy())
        if longest is not None:
            torch.nn.utils.clip_grad_norm_([self._values], longest)
        self.optimiser.step()

    def clamp(self, low: float, high: float) -> None:
        with torch.no_grad():
            self._values.clamp_(low, high)
