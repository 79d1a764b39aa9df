"""Kernels over tiles of weights: widen, add up, round once; and counting, from which exact order statistics follow.

All work on contiguous arrays of one dimension, hold no lock, and are compiled when they are first used. bfloat16 has no
type in numpy: such numbers are the upper halves of float32's bits, as uint16.

Inner loops go over slices, without an offset in the index: only so does the compiler use vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]
BLOCK = 4096  # numbers that are summed at a time: they stay in the nearest cache
HIGH_BINS = 1 << 15  # of the exponent and seven more bits
LOW_BINS = 1 << 16


@njit(inline="always")
def _wide(bits: Any) -> Any:
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@njit(inline="always")
def _narrow(x: Any) -> Any:
    """To the nearest, of two equally near the even one; what is no number stays none."""
    bits = np.float32(x).view(np.uint32)
    odd = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
    rounded = np.uint32(np.uint32(bits + np.uint32(0x7FFF)) + odd) >> np.uint32(16)
    none = np.uint32(bits >> np.uint32(16)) | np.uint32(0x40)
    return np.uint16(none if np.uint32(bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000) else rounded)


@njit(nogil=True, cache=True, error_model="numpy")
def widen(raw: Array, out: Array) -> None:
    """float32 from bfloat16.

    >>> out = np.empty(1, np.float32); widen(np.array([0x3FC0], np.uint16), out); out.tolist()
    [1.5]
    """
    for i in range(out.size):
        out[i] = _wide(raw[i])


@njit(nogil=True, cache=True, error_model="numpy")
def narrow(x: Array, out: Array) -> None:
    """bfloat16 from float32, rounded to the nearest.

    >>> out = np.empty(1, np.uint16); narrow(np.array([1.501], np.float32), out); hex(out[0])
    '0x3fc0'
    """
    for i in range(out.size):
        out[i] = _narrow(x[i])


@njit(nogil=True, cache=True, error_model="numpy")
def average_bf16(raws: Array, weights: Array, out: Array) -> None:
    """Σ weight · model, rounded once; raws (models, n) and out (n,) bfloat16, weights (models,) float32."""
    room = np.empty(BLOCK, np.float32)
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        total, made = room[: stop - start], out[start:stop]
        x, weight = raws[0, start:stop], weights[0]
        for i in range(total.size):
            total[i] = weight * _wide(x[i])
        for k in range(1, weights.size):
            x, weight = raws[k, start:stop], weights[k]
            for i in range(total.size):
                total[i] += weight * _wide(x[i])
        for i in range(total.size):
            made[i] = _narrow(total[i])


@njit(nogil=True, cache=True, error_model="numpy")
def shift_bf16(raws: Array, coefficients: Array, out: Array) -> None:
    """base + Σ coefficient · (model − base), rounded once; raws[0] is the base, then come the models.

    Where no model differs from the base, the base's own bits stay, also those of infinities and of minus zero.
    """
    room = np.empty(BLOCK, np.float32)
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        total, made, base = room[: stop - start], out[start:stop], raws[0, start:stop]
        total[:] = np.float32(0)
        for k in range(coefficients.size):
            x, weight = raws[k + 1, start:stop], coefficients[k]
            for i in range(total.size):
                change = _wide(x[i]) - _wide(base[i])
                total[i] += np.float32(0) if x[i] == base[i] else weight * change
        for i in range(total.size):
            made[i] = base[i] if total[i] == np.float32(0) else _narrow(_wide(base[i]) + total[i])


@njit(nogil=True, cache=True, error_model="numpy")
def add(total: Array, x: Array, weight: Any) -> None:
    """total += weight · x, in total's type."""
    for i in range(total.size):
        total[i] += weight * x[i]


@njit(nogil=True, cache=True, error_model="numpy")
def add_change(total: Array, x: Array, base: Array, weight: Any) -> None:
    """total += weight · (x − base), in total's type; equal numbers differ by nothing, also infinities."""
    for i in range(total.size):
        zero = total[i] - total[i]
        total[i] += zero if x[i] == base[i] else weight * (total.dtype.type(x[i]) - total.dtype.type(base[i]))


@njit(inline="always")
def _rank_bits(bits: Any) -> Any:
    """Of numbers >= 0, the order of the bits is the order of the numbers."""
    b = np.int64(bits) & 0x7FFFFFFF
    return 0 if b > 0x7F800000 else b


@njit(nogil=True, cache=True, error_model="numpy")
def count_high(values: Array, counts: Array) -> None:
    """Adds to counts (HIGH_BINS,) int64 how many values >= 0 fall into each bin of their upper bits.

    What is no number counts as nothing, and so does minus zero.
    """
    bits = values.view(np.uint32)
    for i in range(bits.size):
        counts[_rank_bits(bits[i]) >> 16] += 1


@njit(nogil=True, cache=True, error_model="numpy")
def count_low(values: Array, high: int, counts: Array) -> None:
    """Adds to counts (LOW_BINS,) int64 how many values of one upper bin have each lower half."""
    bits = values.view(np.uint32)
    for i in range(bits.size):
        b = _rank_bits(bits[i])
        if b >> 16 == high:
            counts[b & 0xFFFF] += 1


@njit(nogil=True, cache=True, error_model="numpy")
def keep_largest(values: Array, threshold: Any, quota: int, out: Array) -> None:
    """out[i] is whether values[i] is above the threshold, or is equal to it and among the first `quota` that are.

    >>> out = np.empty(4, bool); keep_largest(np.array([2, 1, 2, 3], np.float32), np.float32(2), 1, out); out.tolist()
    [True, False, False, True]
    """
    for i in range(values.size):
        x = values[i]
        if x == threshold:
            out[i] = quota > 0
            quota -= 1
        else:
            out[i] = x > threshold


@njit(nogil=True, cache=True, error_model="numpy")
def count_equal(values: Array, threshold: Any) -> int:
    found = 0
    for i in range(values.size):
        found += values[i] == threshold
    return found
