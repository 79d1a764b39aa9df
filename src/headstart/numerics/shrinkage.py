"""Covariance shrunk towards a multiple of the identity, solved on its smaller side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dtrtri

Array = np.ndarray[Any, Any]


def ledoit_wolf(*, trace: float, squares: float, fourth: float, rows: int, width: int) -> float:
    """The intensity in [0, 1] that Ledoit and Wolf (2004) derive, as scikit-learn computes it.

    trace, squares: of the covariance (1/N) and of its entries squared. fourth: sum over rows of |x - mean|⁴.

    >>> ledoit_wolf(trace=2.0, squares=4.0, fourth=8.0, rows=2, width=2)
    0.0
    """
    level = trace / width
    delta = (squares - width * level**2) / width
    beta = (fourth / rows - squares) / (width * rows)
    return float(min(max(beta, 0.0), delta) / delta) if delta > 0 else 0.0


def squared(matrix: Array) -> float:
    """The sum of all squares, without a copy of a matrix that lies together, by rows or by columns.

    >>> squared(np.array([[1.0, 2.0]]))
    5.0
    """
    flat = matrix.ravel(order="K")
    return float(flat @ flat)


@dataclass(frozen=True, eq=False, slots=True)
class Shrunk:
    """(1 - alpha) S + alpha * level * I, level the mean variance, held by S (D, D) or by its centred rows (N, D).

    alpha: the intensity. ridge: alpha * level, kept above 1e-10 of the level and above `floor`, a variance that can be
    rounding, so that a solve exists; 1 where nothing varies at all, which then stands for the identity.
    """

    alpha: float
    ridge: float
    factor: tuple[Array, bool]
    centred: Array | None = None

    @classmethod
    def of_covariance(
        cls, covariance: Array, fourth: float, rows: int, alpha: float | None = None, floor: float = 0.0
    ) -> Shrunk:
        """From the covariance with 1/N, whose memory it takes.

        fourth: as in `ledoit_wolf`, which is asked where alpha is None.
        """
        width = len(covariance)
        trace, squares = float(np.trace(covariance)), squared(covariance)
        chosen = _intensity(alpha, trace, squares, fourth, rows, width)
        ridge = max(max(chosen, 1e-10) * trace / width, floor) or 1.0
        full = covariance if covariance.flags.f_contiguous else covariance.T
        full *= 1 - chosen
        full.flat[:: width + 1] += ridge
        return cls(chosen, ridge, cho_factor(full, lower=True, overwrite_a=True, check_finite=False))

    @classmethod
    def of_rows(cls, centred: Array, alpha: float | None = None, floor: float = 0.0) -> Shrunk:
        """From rows (N, D) less their mean; never forms (D, D), for fewer rows than dimensions.

        >>> x = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
        >>> Shrunk.of_rows(x, alpha=0.5).solve(np.array([[1.0, 0.0, 0.0]])).round(6).tolist()
        [[1.5, 0.0, 0.0]]
        """
        rows, width = centred.shape
        kernel = (centred @ centred.T).T  # in columns, so that LAPACK takes its memory and not a copy
        lengths = np.diagonal(kernel)
        trace, squares = float(lengths.sum()) / rows, squared(kernel) / rows**2
        chosen = _intensity(alpha, trace, squares, float(lengths @ lengths), rows, width)
        ridge = max(max(chosen, 1e-10) * trace / width, floor) or 1.0
        kernel *= (1 - chosen) / rows
        kernel.flat[:: rows + 1] += ridge
        factor = cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)
        return cls(chosen, ridge, factor, centred)

    @property
    def freedom(self) -> float:
        """tr((1 - alpha) S times the inverse): how many dimensions are left of all; O(min(N, D)³).

        >>> round(Shrunk.of_rows(np.array([[1.0, 0.0], [-1.0, 0.0]]), alpha=0.5).freedom, 6)
        0.666667
        """
        inverse, _ = dtrtri(self.factor[0], lower=1)  # its squares sum to the trace of the inverse
        columns = (inverse[at:, at] for at in range(len(inverse)))
        return len(inverse) - self.ridge * sum(float(c @ c) for c in columns)

    def solve(self, right: Array) -> Array:
        """right (M, D) times the inverse: (M, D)."""
        if self.centred is None:
            return np.asarray(cho_solve(self.factor, right.T, check_finite=False).T)
        inner = cho_solve(self.factor, self.centred @ right.T, check_finite=False)
        return np.asarray((right - (1 - self.alpha) / len(self.centred) * inner.T @ self.centred) / self.ridge)


def _intensity(alpha: float | None, trace: float, squares: float, fourth: float, rows: int, width: int) -> float:
    if alpha is not None:
        return alpha
    return ledoit_wolf(trace=trace, squares=squares, fourth=fourth, rows=rows, width=width)
