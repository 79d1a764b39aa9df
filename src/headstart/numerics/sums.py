"""Kernels over features: what a pass sums up of a row, in one sweep where numpy takes six.

Compiled when they are first used; importing them loads numba, which takes a quarter of a second, so only passes over
`MANY_CELLS` or more do. Features are float32 or float64 and lie row after row, all sums are float64, and labels whole
numbers below the classes. A row's own sum may be added up in any order; the rows follow one another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]
MATH = {"reassoc", "contract"}  # sums of a row in vector registers; what is no number stays none


@njit(nogil=True, cache=True, error_model="numpy", fastmath=MATH)
def centred(rows: Array, labels: Array, shift: Array, sums: Array, lengths: Array, out: Array) -> None:
    """rows (N, D) less the shift into `out`; to sums (C, D) and lengths (C,), those and their squared norms by class.

    >>> sums, lengths, out = np.zeros((1, 2)), np.zeros(1), np.empty((1, 2))
    >>> centred(np.array([[2.0, 3.0]]), np.array([0]), np.ones(2), sums, lengths, out)
    >>> out.tolist(), sums.tolist(), lengths.tolist()
    ([[1.0, 2.0]], [[1.0, 2.0]], [5.0])
    """
    for n in range(len(rows)):
        x, near, total, length = rows[n], out[n], sums[labels[n]], 0.0
        for j in range(shift.size):
            u = np.float64(x[j]) - shift[j]
            near[j] = u
            total[j] += u
            length += u * u
        lengths[labels[n]] += length


@njit(nogil=True, cache=True, error_model="numpy", fastmath=MATH)
def squared(rows: Array, labels: Array, shift: Array, sums: Array, lengths: Array, squares: Array) -> None:
    """As `centred`; the squares of each dimension are added to `squares` (D,), and nothing is kept of a row.

    >>> sums, lengths, squares = np.zeros((1, 2)), np.zeros(1), np.zeros(2)
    >>> squared(np.array([[2.0, 3.0]]), np.array([0]), np.ones(2), sums, lengths, squares)
    >>> squares.tolist(), sums.tolist(), lengths.tolist()
    ([1.0, 4.0], [[1.0, 2.0]], [5.0])
    """
    for n in range(len(rows)):
        x, total, length = rows[n], sums[labels[n]], 0.0
        for j in range(shift.size):
            u = np.float64(x[j]) - shift[j]
            total[j] += u
            squares[j] += u * u
            length += u * u
        lengths[labels[n]] += length


@njit(nogil=True, cache=True, error_model="numpy", fastmath=MATH)
def fourth(rows: Array, mean: Array, factor: Array) -> float:
    """Σ |(x - mean) · factor|⁴ over rows x (D,), mean and factor (D,).

    >>> fourth(np.array([[2.0, 3.0]]), np.ones(2), np.ones(2))
    25.0
    """
    total = 0.0
    for n in range(len(rows)):
        x, length = rows[n], 0.0
        for j in range(mean.size):
            u = (np.float64(x[j]) - mean[j]) * factor[j]
            length += u * u
        total += length * length
    return total
