"""What the benchmarks of ranking count: rank agreement, regret, intervals over targets or seeds, Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import weightedtau

Array = np.ndarray[Any, Any]
DRAWS = 2000  # of a bootstrap


def tau(guess: Sequence[float] | Array, truth: Sequence[float] | Array) -> float:
    """Weighted Kendall's tau (Vigna 2015), over entries that both have; 0 where one side is all equal.

    >>> tau([3, 2, 1], [0.9, 0.5, 0.1])
    1.0
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (guess, truth))
    both = np.isfinite(a) & np.isfinite(b)
    found = float(weightedtau(a[both], b[both]).statistic) if both.sum() > 1 else 0.0
    return 0.0 if np.isnan(found) else found


def regret(guess: Sequence[float] | Array, truth: Sequence[float] | Array, k: int = 1) -> float:
    """How far the best of the k highest guesses lies below the best of all, in units of the truth.

    >>> regret([3, 2, 1], [0.5, 0.9, 0.1]), regret([3, 2, 1], [0.5, 0.9, 0.1], k=2)
    (0.4, 0.0)
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (guess, truth))
    first = np.argsort(-a, kind="stable")[:k]
    return float(b.max() - b[first].max())


def interval(values: Sequence[float] | Array, draws: int = DRAWS) -> tuple[float, float, float]:
    """Mean over targets or seeds, and its 95 % bootstrap interval.

    >>> interval([2.0, 2.0, 2.0])
    (2.0, 2.0, 2.0)
    """
    known = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(0).integers(len(known), size=(draws, len(known)))
    low, high = np.quantile(known[picks].mean(axis=1), (0.025, 0.975))
    return float(known.mean()), float(low), float(high)


def ratio(top: Sequence[float] | Array, bottom: Sequence[float] | Array, draws: int = DRAWS) -> tuple[float, ...]:
    """Sum over sum, on the same targets, and its 95 % bootstrap interval over them.

    >>> ratio([2.0, 4.0], [1.0, 2.0])
    (2.0, 2.0, 2.0)
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (top, bottom))
    picks = np.random.default_rng(0).integers(len(a), size=(draws, len(a)))
    low, high = np.quantile(a[picks].sum(axis=1) / b[picks].sum(axis=1), (0.025, 0.975))
    return float(a.sum() / b.sum()), float(low), float(high)


def span(found: Sequence[float], form: str = ".2f") -> str:
    """A figure and its interval.

    >>> span((0.5, 0.25, 0.75))
    '0.50 [0.25, 0.75]'
    """
    value, low, high = (format(x, form) for x in found)
    return f"{value} [{low}, {high}]"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Markdown.

    >>> table(["a", "b"], [[1, 2]])
    '| a | b |\\n| --- | --- |\\n| 1 | 2 |'
    """
    return "\n".join("| " + " | ".join(str(c) for c in row) + " |" for row in (head, ["---"] * len(head), *rows))
