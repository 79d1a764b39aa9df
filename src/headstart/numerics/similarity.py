"""How alike two representations of the same rows are, through the dissimilarities of pairs of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from headstart.core import Unfit, View

from .some_rows import looked_at

Array = np.ndarray[Any, Any]


def beside_reference(view: View, most: int) -> tuple[Array, Array]:
    """Features and the reference of at most so many rows that have one. Raises `Unfit` for fewer than four rows."""
    rows = looked_at(view, most, reference=True)
    if len(rows) < 4:
        raise Unfit(
            f"{len(rows)} labelled rows have a reference to compare with, and four are the least",
            where="the folds of the target",
            fix="label more rows",
        )
    return view.features[rows], np.asarray(view.reference, dtype=np.float64)[rows]


def centred(features: Array) -> Array:
    """(rows, varying features) float64 less their means; without those that hold no more than rounding.

    >>> centred(np.array([[1.0, 0.1], [3.0, 0.1]])).tolist()
    [[-1.0], [1.0]]
    """
    f = np.asarray(features, dtype=np.float64)
    f = f - f.mean(axis=0)
    return np.asarray(f[:, f.std(axis=0) > 1e-9 * np.abs(features).max(axis=0)])


def standardised(features: Array) -> Array:
    """(rows, varying features) float64 with mean 0 and deviation 1.

    >>> standardised(np.array([[1.0, 5.0], [3.0, 5.0]])).tolist()
    [[-1.0], [1.0]]
    """
    f = centred(features)
    return np.asarray(f / f.std(axis=0))


def pearson(rows: Array) -> Array:
    """(rows, rows) 1 - Pearson's correlation of two rows; of a single column, their difference as in `cosine`.

    >>> pearson(np.array([[1.0, 2.0], [2.0, 4.0], [2.0, 1.0]]))[0].tolist()
    [0.0, 0.0, 2.0]
    """
    return cosine(rows - rows.mean(axis=1, keepdims=True) if rows.shape[1] > 1 else rows)


def cosine(rows: Array) -> Array:
    """(rows, rows) 1 - cosine of two rows, 1 for rows of length 0, rounded to nine digits, so that equal ones tie.

    Of a single column, which has no angles, the absolute difference in units of the largest. Without columns all are 0.

    >>> cosine(np.array([[1.0, 0.0], [0.0, 1.0]]))[0].tolist()
    [0.0, 1.0]
    """
    if not rows.shape[1]:
        return np.zeros((len(rows), len(rows)))
    if rows.shape[1] == 1:
        apart = np.abs(rows - rows.T)
        return np.asarray(np.round(apart / (apart.max() or 1.0), 9))
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12)
    return np.asarray(np.round(1 - rows @ rows.T, 9))


def spearman(one: Array, other: Array) -> float:
    """Rank correlation over pairs of rows, the upper triangles of two (rows, rows); ties share a rank, 0 if all tie.

    >>> spearman(np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]]), np.array([[0, 5, 6], [5, 0, 7], [6, 7, 0]]))
    1.0
    """
    upper = np.triu_indices(len(one), 1)
    ranks = [rankdata(d[upper]) - (len(upper[0]) + 1) / 2 for d in (one, other)]
    sizes = [float(np.linalg.norm(r)) for r in ranks]
    return float(np.round(ranks[0] @ ranks[1] / (sizes[0] * sizes[1]), 12)) if all(sizes) else 0.0


def debiased_cka(one: Array, other: Array) -> float:
    """Centred kernel alignment of two kernels (rows, rows), by the unbiased estimate of their dependence; needs 4 rows.

    Székely and Rizzo, 2014: the diagonal is left out, and the centring allows for that. It may be below 0.

    >>> round(debiased_cka(np.eye(5) + np.outer(*2 * [np.arange(5.0)]), np.outer(*2 * [np.arange(5.0)])), 9)
    1.0
    """
    u, v = (_left_out(k) for k in (one, other))
    size = float(np.linalg.norm(u) * np.linalg.norm(v))
    return float(np.vdot(u, v)) / size if size > 0 else 0.0


def _left_out(kernel: Array) -> Array:
    """The kernel so centred that rows sum to 0 without their diagonal; in units of its largest entry."""
    k = kernel - np.diag(np.diag(kernel))
    largest = float(np.abs(k).max())
    if not largest:
        return k
    k = k / largest
    rows = len(k)
    means = k.sum(axis=0) / (rows - 2)
    k = k - means - means[:, None] + means.sum() / (rows - 1)
    np.fill_diagonal(k, 0.0)
    return np.asarray(np.where(np.abs(k).max() > 1e-12, k, 0.0))  # what is left of a constant kernel is rounding
