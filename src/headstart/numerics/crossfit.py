"""Cross-fitting: a combination is scored on a row only with weights that were fitted without that row's label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
PARTS = 5  # of the rows, where one validation split is all there is


def crossfit(
    tables: Array, labels: Array, folds: Array, fuse: Callable[[Sequence[Array], Array], Array]
) -> tuple[Array, Array]:
    """Blended predictions (repeats, rows, outputs), and the final weights (members,), fitted on all cells.

    tables: (members, repeats, rows, outputs), NaN where a cell was not scored. labels: as in `Rows.labels`. folds:
    (repeats, rows), the fold that scores each row, -1 for none. fuse: (tables of (cells, outputs), labels) -> weights.

    For a cell of one repeat and fold, weights are fitted on the cells of all rows that are not in that fold of that
    repeat; rows of it are left out in the other repeats too. Only cells that all members have are used, and only they
    are blended; the others are NaN. Where one fold is all that is scored (a validation split), its rows are dealt
    into five parts within class, in their order. Weights are equal where no other rows are left.

    >>> two = np.array([[[[0.2], [0.4]]], [[[0.6], [0.8]]]])
    >>> blended, weights = crossfit(two, np.array([0.0, 1.0]), np.array([[0, 1]]), lambda t, y: np.array([0.5, 0.5]))
    >>> blended[0, :, 0].round(3).tolist(), weights.tolist()
    ([0.4, 0.6], [0.5, 0.5])
    """

    def fitted(cells: Array) -> Array:
        rows = np.nonzero(cells)[1]
        return fuse([np.asarray(table, dtype=np.float64)[cells] for table in tables], np.asarray(labels)[rows])

    return crossfit_cells(tables, labels, folds, fitted)


def crossfit_cells(tables: Array, labels: Array, folds: Array, fitted: Callable[[Array], Array]) -> tuple[Array, Array]:
    """As `crossfit`, for weights that are fitted to more than tables: fitted is given the cells (repeats, rows) bool.

    >>> two = np.array([[[[0.2], [0.4]]], [[[0.6], [0.8]]]])
    >>> seen = []
    >>> def first(cells):
    ...     seen.append(cells[0].tolist())
    ...     return np.array([1.0, 0.0])
    >>> _ = crossfit_cells(two, np.array([0.0, 1.0]), np.array([[0, 1]]), first)
    >>> seen
    [[False, True], [True, False], [True, True]]
    """
    tables, folds = np.asarray(tables, dtype=np.float64), np.asarray(folds)
    whole = ~np.isnan(tables).any(axis=(0, 3)) & (folds >= 0)
    dealt = _dealt(folds, whole, labels)
    blended = np.full(tables.shape[1:], np.nan)

    def weights_of(cells: Array) -> Array:
        return np.asarray(fitted(cells), dtype=np.float64) if cells.any() else np.full(len(tables), 1 / len(tables))

    for repeat in range(len(dealt)):
        for fold in np.unique(dealt[repeat][whole[repeat]]):
            rows = dealt[repeat] == fold
            weights = weights_of(whole & ~rows)
            here = rows & whole[repeat]
            blended[repeat, here] = np.tensordot(weights, tables[:, repeat, here], axes=1)
    return blended, weights_of(whole)


def _dealt(folds: Array, whole: Array, labels: Array) -> Array:
    """The folds, with the one scored fold of a validation split dealt into parts."""
    scored = {(r, int(f)) for r in range(len(folds)) for f in np.unique(folds[r][whole[r]])}
    if len(scored) != 1:
        return folds
    ((repeat, _),) = scored
    rows = np.flatnonzero(whole[repeat])
    truth = np.asarray(labels)
    order = rows[np.argsort(truth[rows], kind="stable")] if truth.ndim == 1 and truth.dtype != object else rows
    out = np.full_like(folds, -1)
    out[repeat, order] = np.arange(len(order)) % PARTS
    return out
