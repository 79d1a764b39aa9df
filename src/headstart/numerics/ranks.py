"""Orders by several figures at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

Array = np.ndarray[Any, Any]


def normal_scores(values: Array) -> Array:
    """(rows,) each value's place among all, as on a normal curve; equal values share theirs.

    Blom, "Statistical Estimates and Transformed Beta-Variables", 1958, with the middle of each place.

    >>> normal_scores(np.array([1.0, 9.0, 2.0])).round(3).tolist()
    [-0.967, 0.967, 0.0]
    """
    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))


def mean_ranks(figures: Array) -> Array:
    """(rows,) mean over the columns of each row's rank, 1 for the smallest; ties share theirs, NaN has none.

    The ranks of a column with NaN are spread over all places: to be last of two says as much as to be low among all,
    and to be the only one says nothing.

    >>> mean_ranks(np.array([[0.1, 5.0], [0.3, 4.0], [0.2, 6.0]])).tolist()
    [1.5, 2.0, 2.5]
    >>> mean_ranks(np.array([[0.1, np.nan], [0.3, 4.0], [0.2, np.nan]])).tolist()
    [1.0, 2.5, 2.0]
    """
    known = ~np.isnan(figures)
    ranks = (rankdata(figures, axis=0, nan_policy="omit") - 0.5) * len(figures) / np.maximum(known.sum(axis=0), 1) + 0.5
    return np.asarray(np.where(known, ranks, 0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan))


def share_first(draws: Array) -> Array:
    """(rows,) of (draws, rows): how often each row is the smallest; ties share the draw.

    >>> share_first(np.array([[1.0, 2.0], [1.0, 1.0]])).tolist()
    [0.75, 0.25]
    """
    first = draws == np.nanmin(draws, axis=1, keepdims=True)
    return np.asarray((first / first.sum(axis=1, keepdims=True)).mean(axis=0))
