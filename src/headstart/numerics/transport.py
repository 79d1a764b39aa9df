"""Transport: what it costs to carry one sample to another, and one Gaussian to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Unfit

Array = np.ndarray[Any, Any]

ROUNDS, LAST_ROUNDS = 20, 1000  # at a blur on the way, and at the one that is asked for
TOLERANCE = 1e-6  # of the mass that is carried; the value errs by far less
SETTLED = 1e-3  # what must be reached


@dataclass(frozen=True, eq=False, slots=True)
class Gaussian:
    """root: (rank, width), whose square root' root is the covariance; it is never formed."""

    mean: Array
    root: Array

    @classmethod
    def of(cls, rows: Array) -> Gaussian:
        """Mean and covariance (over N) of some rows; that of one row is 0.

        >>> g = Gaussian.of(np.array([[1.0], [3.0]]))
        >>> g.mean.tolist(), np.abs(g.root.T @ g.root).round(9).tolist()
        ([2.0], [[1.0]])
        """
        mean = rows.mean(axis=0)
        root = (rows - mean) / np.sqrt(len(rows))
        return cls(mean, np.asarray(np.linalg.qr(root, mode="r")) if len(root) > root.shape[1] else root)


def squared_bures_wasserstein(a: Gaussian, b: Gaussian) -> float:
    """|m - m'|² + tr(S + S' - 2 (S^½ S' S^½)^½), by the singular values of R R' with R'R = S.

    No root of a matrix is taken, so that a singular covariance is as good as any.

    >>> one, other = Gaussian.of(np.array([[0.0], [2.0]])), Gaussian.of(np.array([[3.0], [9.0]]))
    >>> round(squared_bures_wasserstein(one, other), 9)  # (6 - 1)² + (3 - 1)²
    29.0
    """
    shared = float(np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum())
    spread = float((a.root**2).sum() + (b.root**2).sum())
    return max(float(((a.mean - b.mean) ** 2).sum()) + spread - 2 * shared, 0.0)


def debiased(cost: Callable[[int, int], Array], blur: float) -> float:
    """The Sinkhorn divergence of two samples, 0 and 1: OT(0, 1) - (OT(0, 0) + OT(1, 1)) / 2, never below 0.

    cost: (rows of i, rows of j) of carrying a row of sample i to one of sample j. blur: strength of the entropy, in
    the unit of the cost.
    """
    across, own, other = (entropic(cost(i, j), blur) for i, j in ((0, 1), (0, 0), (1, 1)))
    return max(across - (own + other) / 2, 0.0)


def entropic(cost: Array, blur: float) -> float:
    """Least cost of carrying rows of equal mass to columns of equal mass, plus blur times the relative entropy of the
    plan to the independent one.

    The dual, by POT's iterations on logarithms, as the blur falls by halves from a fiftieth of the largest cost. Raises
    `Unfit` where they do not settle.

    >>> round(entropic(np.array([[0.0, 9.0], [9.0, 0.0]]), 0.01), 6)  # to itself: the entropy alone, 0.01 log 2
    0.006931
    """
    from ot.bregman import sinkhorn_log

    rows, columns = (np.full(n, 1 / n) for n in cost.shape)
    falling = [blur]
    while falling[-1] < cost.max(initial=0.0) / 50:
        falling.append(2 * falling[-1])
    begin, found = None, {}
    for here in reversed(falling):
        rounds = LAST_ROUNDS if here == blur else ROUNDS
        with np.errstate(over="ignore"):  # it tells the exponentials of the logarithms too
            _, found = sinkhorn_log(
                rows, columns, cost, here, rounds, stopThr=TOLERANCE, warn=False, log=True, warmstart=begin
            )
        begin = 2 * found["log_u"], 2 * found["log_v"]  # the same prices at half the blur
    if not found["err"][-1] < SETTLED:
        raise Unfit(
            f"no plan was found in {LAST_ROUNDS:,} rounds",
            where=f"entropic transport with blur {blur:g}",
            fix="use a larger blur",
        )
    return blur * float((found["log_u"] - np.log(rows)).mean() + (found["log_v"] - np.log(columns)).mean())
