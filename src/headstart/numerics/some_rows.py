"""Which rows are looked at, where all would take too long."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.core import View

Array = np.ndarray[Any, Any]


def evenly(labels: Array, folds: Array, most: int) -> Array:
    """Numbers of at most so many rows, in order: evenly over those sorted by label and fold.

    >>> evenly(np.array([0, 1, 0, 1]), np.zeros(4), 2).tolist()
    [0, 3]
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    some = np.linspace(0, len(labels) - 1, most).astype(int)
    key = labels if labels.ndim == 1 else np.arange(len(labels))
    return np.sort(np.lexsort((folds, key))[some])


def looked_at(view: View, most: int, *, reference: bool = False) -> Array:
    """Numbers of at most so many rows, by `evenly`; of those alone that have a reference, where one is asked for."""
    rows = np.arange(len(view.folds))
    if reference:
        rows = np.flatnonzero(~np.isnan(np.asarray(view.reference, dtype=np.float64)).any(axis=1))
    return rows[evenly(np.asarray(view.labels)[rows], np.asarray(view.folds)[rows], most)]


def by_label(view: View, rows: Array) -> Array:
    """These numbers of rows, those of one label, or else of one fold, beside each other."""
    labels, folds = np.asarray(view.labels)[rows], np.asarray(view.folds)[rows]
    return rows[np.lexsort((folds, labels) if labels.ndim == 1 else (folds,))]
