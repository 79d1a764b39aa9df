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

    >>> explained(np.array([1.0, np.nan]), np.array([4.0, np.nan])).value
    0.75
    """
    worst = float(np.nansum(naive))
    return Score(1 - float(np.nansum(errors)) / worst if worst > 0 else 0.0, errors)
