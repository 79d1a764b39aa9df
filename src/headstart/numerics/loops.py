"""What merges that train have in common: how far they go, copies that are tuned, and how a body is judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from headstart.core import METRICS, MergeView, Unfit

from . import metrics
from .artifacts import linked
from .inner import inner_folds
from .learning import draws, loss
from .spectrum import held_out_ridge

Array = np.ndarray[Any, Any]
Weights = Mapping[str, torch.Tensor]
OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
PENALTIES = tuple(10.0**e for e in range(-6, 5))
FOLDS = 3  # of the rows held back, in which a probe is scored
LEAST_ROWS = 8  # of a task, of which some are held back


def check(
    where: str, *, rounds: int, steps: int | None, batch: int, optimiser: str, learning_rate: float, held: float = 0.5
) -> None:
    """Raises `Unfit` for settings out of range."""
    if rounds < 0 or (steps is not None and steps < 1) or batch < 0:
        raise Unfit(
            f"rounds={rounds}, steps={steps}, batch={batch} cannot be",
            where=where,
            fix="use rounds from 0, steps from 1, and batch from 1, or batch=0 for all rows at once",
        )
    if optimiser not in OPTIMISERS or not learning_rate > 0:
        raise Unfit(
            f"optimiser={optimiser}, learning_rate={learning_rate} cannot be",
            where=where,
            fix=f"use one of {', '.join(OPTIMISERS)}, and a learning rate above 0",
        )
    if not 0 < held < 1:
        raise Unfit(f"held={held} is no fraction of the rows", where=where, fix="use 0.3")


def lengths(horizon: int | None, rounds: int, own: Sequence[int]) -> tuple[int, list[int]]:
    """How many rounds, and the steps of each task in one. horizon: the most steps of a task in all; rounds stay as many
    and become shorter as long as they have a step.

    >>> lengths(None, 3, [10, 4]), lengths(9, 3, [10, 2]), lengths(2, 3, [10, 4])
    ((3, [10, 4]), (3, [3, 2]), (2, [1, 1]))
    """
    if horizon is None or not rounds:
        return rounds, list(own)
    most = max(1, min(max(own), horizon // rounds))
    return min(rounds, horizon // most), [min(most, o) for o in own]


def moved(body: Weights, tuned: Iterable[Weights], alpha: float = 1.0) -> dict[str, torch.Tensor]:
    """The body and alpha times the mean of the changes; of what is tuned, one at a time is alive.

    >>> moved({"w": torch.zeros(1)}, [{"w": torch.ones(1)}, {"w": torch.tensor([5.0])}])
    {'w': tensor([3.])}
    """
    total, count = {n: torch.zeros_like(w) for n, w in body.items()}, 0
    for one in tuned:
        count += 1
        for name, sum_ in total.items():
            sum_ += one[name] - body[name]
        del one  # before the next is tuned
    return {n: w + (alpha / count) * total[n] for n, w in body.items()}


def mean(bodies: Sequence[Weights], parts: Sequence[float] | None = None) -> dict[str, torch.Tensor]:
    """The mean by parts, equal ones where none are given, around the first: equal bodies stay what they are.

    >>> mean([{"w": torch.zeros(1)}, {"w": torch.ones(1)}], [3.0, 1.0])
    {'w': tensor([0.2500])}
    """
    shares = np.array(parts or [1.0] * len(bodies))
    out = {n: w.clone() for n, w in bodies[0].items()}
    for body, share in zip(bodies[1:], shares[1:] / shares.sum(), strict=True):
        for name, total in out.items():
            total += float(share) * (body[name] - bodies[0][name])
    return out


def alone(view: MergeView, model: int) -> dict[str, torch.Tensor]:
    """The weights of one model."""
    shares = np.zeros((len(view.tensors), len(view.models)))
    shares[:, model] = 1
    return view.shared(shares)


def plain(value: float) -> float | None:
    """For an account: rounded, and None for infinity, which JSON has not.

    >>> plain(0.12345678), plain(float("-inf"))
    (0.123457, None)
    """
    return round(value, 6) if np.isfinite(value) else None


class Tuner:
    """Tunes copies of a body on the rows of tasks, and judges bodies on rows that it held back.

    optimiser: of `OPTIMISERS`; it begins anew with every copy, while batches go on until all rows have come. batch: 0
    for all rows at once. held: the fraction of each task's rows that nothing is tuned on. Nothing is dropped out, and
    the running statistics of batch normalisation stay.
    """

    def __init__(
        self, view: MergeView, *, optimiser: str, learning_rate: float, batch: int, seed: int, held: float = 0.0
    ) -> None:
        self._view, self._optimiser, self._rate, self._batch = view, OPTIMISERS[optimiser], learning_rate, batch
        mixed = [np.random.default_rng([seed, t]).permutation(view.rows(t)) for t in range(len(view.tasks))]
        cut = [_held(view, t, held) for t in range(len(view.tasks))]
        self.held = [m[:c].tolist() for m, c in zip(mixed, cut, strict=True)]
        self.rows = [m[c:].tolist() for m, c in zip(mixed, cut, strict=True)]
        self._draws = [draws(len(r), batch or len(r), seed + t) for t, r in enumerate(self.rows)]

    def epoch(self, task: int) -> int:
        """Steps of one pass over the task's rows."""
        rows = len(self.rows[task])
        return -(-rows // (self._batch or rows))

    def tuned(self, body: Weights, shares: Mapping[int, float], steps: int) -> dict[str, torch.Tensor]:
        """A copy of the body, after steps down the sum of the tasks' mean losses, each times its share."""
        copy = {n: w.detach().clone().requires_grad_() for n, w in body.items()}
        optimiser = self._optimiser(list(copy.values()), lr=self._rate)  # type: ignore[call-arg]  # all of them have it
        for _ in range(steps):
            optimiser.zero_grad()
            for task, share in shares.items():
                rows = [self.rows[task][i] for i in next(self._draws[task])]
                logits = self._view.logits(copy, task, rows)
                value = share * loss(logits, self._view.labels(task, rows), self._view.link(task))
                value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return {n: w.detach() for n, w in copy.items()}

    def probe(self, body: Weights) -> list[Array]:
        """Of each task, the squared errors of a ridge probe on the body's features, row by row of those held back.

        In units of the error without features: 1 less their mean is R². A body whose features are not finite errs
        without end.
        """
        return [self._probe(body, task) for task in range(len(self.held))]

    def _probe(self, body: Weights, task: int) -> Array:
        rows, held = [*self.held[task], *self.rows[task]], len(self.held[task])
        with torch.no_grad():
            features = self._view.features(body, task, rows).numpy()
        if not np.isfinite(features).all():
            return np.full(held, np.inf)
        labels = self._view.labels(task, rows).numpy()
        folds = np.full(len(rows), -1)
        folds[:held] = inner_folds([str(r) for r in rows[:held]], labels[:held], min(FOLDS, held))
        found = held_out_ridge(features, labels, _columns(labels, self._view.link(task)), folds, PENALTIES)
        assert found.losses is not None  # a ridge probe tells them
        errors = found.losses[:held]
        return errors * ((1 - found.value) / errors.mean()) if errors.any() else errors

    def score(self, body: Weights, task: int) -> float:
        """The task's metric on its rows held back; higher is better."""
        rows, metric = self.held[task], self._view.metric(task)
        with torch.no_grad():
            logits = self._view.logits(body, task, rows)
        if not logits.isfinite().all():
            return float("-inf")
        table = linked(logits.numpy(), self._view.link(task))
        return METRICS[metric].sign * metrics.value(metric, self._view.labels(task, rows).numpy(), table)


def explained(errors: Sequence[Array]) -> float:
    """Mean over the tasks of R², of what `Tuner.probe` gives.

    >>> explained([np.array([0.0, 1.0]), np.array([0.5])])
    0.5
    """
    return 1 - float(np.mean([e.mean() for e in errors]))


def gained(before: Sequence[Array], after: Sequence[Array]) -> tuple[float, float]:
    """How much higher R² is after, on average over the tasks, and the standard error of that, by pairs of rows.

    >>> gain, error = gained([np.array([1.0, 1.0])], [np.array([0.5, 1.0])])
    >>> gain, round(error, 6)
    (0.25, 0.25)
    """
    fell = [b - a for b, a in zip(before, after, strict=True)]
    errors = [f.std(ddof=1) ** 2 / len(f) for f in fell]
    return float(np.mean([f.mean() for f in fell])), float(np.sum(errors)) ** 0.5 / len(fell)


def _held(view: MergeView, task: int, held: float) -> int:
    """How many rows of a task are held back."""
    rows = view.rows(task)
    if held and rows < LEAST_ROWS:
        raise Unfit(
            f"`{view.tasks[task]}` has {rows} rows, too few to hold some back",
            where=f"target `{view.tasks[task]}`",
            fix=f"label {LEAST_ROWS} rows or more",
        )
    return round(held * rows) and min(max(2, round(held * rows)), rows - 2)


def _columns(labels: Array, link: str) -> int:
    """How many classes the labels are of, 0 for numbers."""
    if link == "identity":
        return 0
    return labels.shape[1] if labels.ndim > 1 else int(labels.max()) + 1
