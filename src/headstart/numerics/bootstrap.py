"""Bootstrap intervals of a metric and of a difference of two, over groups of rows within each class.

Groups (documents, patients, copies of one input) are drawn whole, with replacement, as many within each class as the
test has; every system is measured on the same draws. Percentile intervals, Efron 1979. Deterministic: the draws
depend on the groups' names, the labels and the seed, not on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from headstart.core import METRICS, Measured

from .metrics import bounds, measure

Array = np.ndarray[Any, Any]

DRAWS = 2000
LEVEL = 0.95
CELLS = 4_000_000  # numbers of weights held at a time: 32 MB


def resamples(labels: Array, groups: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Iterator[Array]:
    """Weights (b, rows) float64, in portions that together hold `draws`: how often each row was drawn.

    A group's class is its commonest one, the lower of equals; numbers and label sets form one class of all rows.

    >>> [w.sum(axis=1).tolist() for w in resamples(np.array([0, 0, 1]), ["a", "b", "c"], draws=2)]
    [[3.0, 3.0]]
    """
    names, of_row = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    members = _strata(np.asarray(labels), of_row, len(names))
    rng = np.random.default_rng(seed)
    portion = max(1, CELLS // max(len(of_row), 1))
    for start in range(0, draws, portion):
        b = min(portion, draws - start)
        counts = np.zeros((b, len(names)))
        for inside in members:
            n = len(inside)
            drawn = rng.integers(0, n, (b, n)) + n * np.arange(b)[:, None]
            counts[:, inside] = np.bincount(drawn.ravel(), minlength=b * n).reshape(b, n)
        yield counts[:, of_row]


def _strata(labels: Array, of_row: Array, groups: int) -> list[Array]:
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        return [np.arange(groups)]
    classes, numbered = np.unique(labels, return_inverse=True)
    votes = np.bincount(of_row * len(classes) + numbered, minlength=groups * len(classes))
    of_group = votes.reshape(groups, len(classes)).argmax(axis=1)
    return [np.flatnonzero(of_group == c) for c in range(len(classes)) if (of_group == c).any()]


def resampled(
    name: str,
    labels: Array,
    tables: Sequence[Any],
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    classes: int | Sequence[int] | None = None,
) -> Array:
    """(tables, draws) values of a metric, each draw the same rows for all tables.

    >>> same = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> resampled("accuracy", np.array([0, 1]), [same, same], ["a", "b"], draws=3).tolist()
    [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    """
    measures = [measure(name, labels, table, classes) for table in tables]
    portions = [np.stack([m(weights) for m in measures]) for weights in resamples(labels, groups, draws, seed)]
    return np.concatenate(portions, axis=1)


def interval(values: Array, *, factor: float = 1.0, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of draws; factor widens it about its middle.

    >>> interval(np.arange(101.0), factor=2.0, level=0.5)
    (0.0, 100.0)
    """
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    if factor == 1.0:
        return float(low), float(high)
    middle, half = (low + high) / 2, factor * (high - low) / 2
    return float(middle - half), float(middle + half)


def outer_factor(k: int) -> float:
    """How much wider an interval of pooled outer folds is made: their training sets overlap, so rows are not
    independent of each other across folds.

    >>> round(outer_factor(5), 3)
    1.118
    """
    return float(np.sqrt(1 + 1 / (k - 1)))


def unseen(groups: int, level: float = LEVEL) -> float:
    """How large a share of groups can be otherwise where all that were seen are alike, by Clopper and Pearson, 1934.

    >>> round(unseen(10), 4)
    0.3085
    """
    return float(1 - ((1 - level) / 2) ** (1 / groups))


def scored(
    name: str,
    labels: Array,
    tables: Sequence[Any],
    groups: Sequence[str],
    *,
    factor: float = 1.0,
    draws: int = DRAWS,
    seed: int = 0,
    classes: int | Sequence[int] | None = None,
) -> list[Measured]:
    """The metric of each table with its interval, which never leaves the range of the metric.

    Where no draw differs, as where all rows are right, the rows say nothing of their spread. The interval then reaches
    towards each finite end of the metric's range by the share of groups that can be otherwise, unseen.

    >>> (one,) = scored("accuracy", np.array([0, 1]), [np.array([[1.0, 0.0], [0.0, 1.0]])], ["a", "b"])
    >>> one.value, round(one.low, 3), one.high
    (1.0, 0.158, 1.0)
    """
    least, most = bounds(name)
    all_draws = resampled(name, labels, tables, groups, draws=draws, seed=seed, classes=classes)
    share = min(1.0, factor * unseen(len(set(groups))))
    found = []
    for table, values in zip(tables, all_draws, strict=True):
        low, high = interval(values, factor=factor)
        here = float(measure(name, labels, table, classes)(np.ones((1, len(labels))))[0])
        if low == high:
            low -= share * (low - least) if np.isfinite(least) else 0.0
            high += share * (most - high) if np.isfinite(most) else 0.0
        found.append(Measured(here, max(least, low), min(most, high), len(labels)))
    return found


def gained(
    name: str,
    labels: Array,
    chosen: Any,
    opponent: Any,
    groups: Sequence[str],
    *,
    factor: float = 1.0,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
    classes: int | Sequence[int] | None = None,
) -> Measured:
    """metric(chosen) − metric(opponent) with its interval, from the same draws for both; above 0 is better, so the
    difference is negated where lower is better.

    >>> a, b = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> gained("accuracy", np.array([0, 1]), a, b, ["a", "b"])
    Measured(value=0.5, low=0.5, high=0.5, rows=2)
    """
    sign = METRICS[name].sign
    mine, other = resampled(name, labels, [chosen, opponent], groups, draws=draws, seed=seed, classes=classes)
    low, high = interval(sign * (mine - other), factor=factor, level=level)
    once = np.ones((1, len(labels)))
    here = [float(measure(name, labels, table, classes)(once)[0]) for table in (chosen, opponent)]
    return Measured(sign * (here[0] - here[1]), low, high, len(labels))
