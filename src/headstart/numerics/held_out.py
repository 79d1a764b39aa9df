"""Held-out cells: which rows train and which are scored, from one column of fold numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from headstart.core import Score, Unfit

Array = np.ndarray[Any, Any]


def cells(folds: Array) -> Iterator[tuple[Array, Array]]:
    """Rows to train on and rows to score, fold by fold; rows with -1 are trained on only.

    Raises `Unfit` when no row can be scored by a model that did not see it.

    >>> [(t.tolist(), v.tolist()) for t, v in cells(np.array([0, 1, -1]))]
    [([1, 2], [0]), ([0, 2], [1])]
    """
    folds = np.asarray(folds)
    names = [f for f in np.unique(folds) if f >= 0 and (folds != f).any()]
    if not names:
        raise Unfit(
            f"none of {len(folds)} labelled rows can be scored by a model that has not seen it",
            where="the folds of the target",
            fix="label more rows; two rows of each class are the least",
        )
    return ((np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in names)


def explained(errors: Array, naive: Array) -> Score:
    """R² over the rows that have a loss: 1 - squared error / that of the training mean; 0 where that mean is right.

    Its error is that of a ratio of two means, to first order.

    >>> explained(np.array([1.0, 1.0, np.nan]), np.array([4.0, 4.0, np.nan]))
    Score(value=0.75, losses=array([ 1.,  1., nan]), error=0.0)
    """
    scored = np.isfinite(errors)
    rows, worst = int(scored.sum()), float(np.nansum(naive))
    if worst <= 0:
        return Score(0.0, errors)
    value = 1 - float(np.nansum(errors)) / worst
    if rows < 2:
        return Score(value, errors)
    off = (errors - (1 - value) * naive)[scored] * (rows / worst)
    return Score(value, errors, float(off.std(ddof=1)) / rows**0.5)
