"""Orders by several figures at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

Array = np.ndarray[Any, Any]


def mean_ranks(figures: Array) -> Array:
    """(rows,) mean over the columns of each row's rank, 1 for the smallest; ties share theirs, NaN has none.

    >>> mean_ranks(np.array([[0.1, 5.0], [0.3, 4.0], [0.2, np.nan]])).tolist()
    [1.5, 2.0, 2.0]
    """
    ranks = rankdata(figures, axis=0, nan_policy="omit")
    known = ~np.isnan(figures)
    return np.asarray(np.where(known, ranks, 0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan))


def share_first(draws: Array) -> Array:
    """(rows,) of (draws, rows): how often each row is the smallest; ties share the draw.

    >>> share_first(np.array([[1.0, 2.0], [1.0, 1.0]])).tolist()
    [0.75, 0.25]
    """
    first = draws == np.nanmin(draws, axis=1, keepdims=True)
    return np.asarray((first / first.sum(axis=1, keepdims=True)).mean(axis=0))
