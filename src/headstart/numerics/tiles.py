"""Kernels over tiles of weights: widen, add up, round once; and counting, from which exact order statistics follow.

All work on contiguous arrays of one dimension, hold no lock, and are compiled when they are first used. bfloat16 has no
type in numpy: such numbers are the upper halves of float32's bits, as uint16.

Inner loops go over slices, without an offset in the index: only so does the compiler use vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types

Array = np.ndarray[Any, Any]
BLOCK = 4096  # numbers that are summed at a time: they stay in the nearest cache
HIGH_BINS = 1 << 15  # of the exponent and seven more bits
LOW_BINS = 1 << 16
FINE, ODD, FAILED = 0, 1, 2  # what `piped_bf16` says
_MOVE = types.intp(types.intc, types.uintp, types.uintp, types.int64)  # the system's calls: file, address, bytes, place
_pread: Any = types.ExternalFunction("pread", _MOVE)
_pwrite: Any = types.ExternalFunction("pwrite", _MOVE)


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
def _moved(handle: int, data: Array, start: int, writes: bool) -> bool:
    """All of it, from or to byte `start` of an open file; False where that gives or takes less."""
    place, left, at = data.ctypes.data, np.int64(data.size * data.itemsize), np.int64(start)
    while left > 0:
        count = _pwrite(handle, place, left, at) if writes else _pread(handle, place, left, at)
        if count <= 0:
            return False
        place, left, at = place + count, left - count, at + count
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def piped_bf16(
    handles: Array, starts: Array, coefficients: Array, of_changes: bool, out_handle: int, out_start: int, raws: Array,
    out: Array,
) -> int:  # fmt: skip
    """Reads raws (models, n) from open files, byte by byte from `starts` on, averages or shifts them, and writes out.

    One call and not one for each step: each that gives Python's lock back may have to wait for it afterwards, which
    costs as much as the arithmetic. Tells whether all numbers written are finite, or that a file gave or took less.
    """
    for k in range(handles.size):
        if not _moved(handles[k], raws[k], starts[k], False):
            return FAILED
    if of_changes:
        shift_bf16(raws, coefficients, out)
    else:
        average_bf16(raws, coefficients, out)
    if not _moved(out_handle, out, out_start, True):
        return FAILED
    return FINE if finite_bits(out, np.uint16(0x7F80)) else ODD


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
def sizes(x: Array, base: Array, out: Array) -> None:
    """|x − base| of float32 or float64; equal numbers differ by nothing, also infinities."""
    for i in range(out.size):
        out[i] = 0 if x[i] == base[i] else abs(x[i] - base[i])


@njit(nogil=True, cache=True, error_model="numpy")
def sizes_bf16(x: Array, base: Array, out: Array) -> None:
    """The same from bfloat16 to float32."""
    for i in range(out.size):
        out[i] = np.float32(0) if x[i] == base[i] else abs(_wide(x[i]) - _wide(base[i]))


@njit(nogil=True, cache=True, error_model="numpy")
def largest(values: Array, threshold: Any, quota: int, out: Array) -> None:
    """out[i] is whether values[i] is above the threshold, or is equal to it and among the first `quota` that are.

    quota: -1 for all of them, which costs no search.

    >>> out = np.empty(4, bool); largest(np.array([2, 1, 2, 3], np.float32), np.float32(2), 1, out); out.tolist()
    [True, False, False, True]
    """
    if quota < 0:
        for i in range(values.size):
            out[i] = values[i] >= threshold
        return
    for i in range(values.size):
        out[i] = values[i] > threshold
    for i in range(values.size if quota else 0):
        if values[i] == threshold:
            out[i] = True
            quota -= 1
            if quota == 0:
                return


@njit(nogil=True, cache=True, error_model="numpy")
def keep(x: Array, base: Array, threshold: Any, quota: int, out: Array) -> None:
    """out[i] is x[i] − base[i] where `largest` would choose it by its size, else 0."""
    if quota < 0:
        for i in range(out.size):
            change = x[i] - base[i]
            out[i] = change if abs(change) >= threshold else 0
        return
    for i in range(out.size):
        change = x[i] - base[i]
        out[i] = change if abs(change) > threshold else 0
    for i in range(out.size if quota else 0):
        change = x[i] - base[i]
        if abs(change) == threshold:
            out[i] = change
            quota -= 1
            if quota == 0:
                return


@njit(nogil=True, cache=True, error_model="numpy")
def signs(x: Array, undecided: Any) -> None:
    """x becomes its sign, and `undecided` where it is 0."""
    for i in range(x.size):
        x[i] = 1 if x[i] > 0 else -1 if x[i] < 0 else undecided


@njit(nogil=True, cache=True, error_model="numpy")
def agree(change: Array, sign: Array, factor: Any, divisor: Any, total: Array, count: Array) -> None:
    """Where the change has the sign, factor · change is added to the total, and the divisor to the count."""
    for i in range(total.size):
        agrees = change[i] * sign[i] > 0
        total[i] += factor * change[i] if agrees else 0
        count[i] += divisor if agrees else 0


@njit(nogil=True, cache=True, error_model="numpy")
def divide(total: Array, count: Array) -> None:
    """total /= count, where the count is not 0."""
    for i in range(total.size):
        total[i] = total[i] / count[i] if count[i] != 0 else total[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _trim(x: Array, base: Array, threshold: Any, quota: int, weight: Any, out: Array) -> int:
    """out is weight · (x − base) where `largest` would choose it by its size, else 0; gives the quota that is left."""
    if quota <= 0:
        for i in range(out.size):
            change = x[i] - base[i]
            size = np.float32(abs(change))
            out[i] = weight * change if size > threshold or (quota < 0 and size == threshold) else 0
        return quota
    for i in range(out.size):
        change = x[i] - base[i]
        size = np.float32(abs(change))
        equal = size == threshold and quota > 0
        out[i] = weight * change if size > threshold or equal else 0
        quota -= equal
    return quota


@njit(nogil=True, cache=True, error_model="numpy")
def between(
    x: Array, base: Array, least: Any, least_quota: int, most: Any, most_quota: int, weight: Any, out: Array
) -> None:
    """out is weight · (x − base) where `largest` would choose it by its size with the least, but not with the most.

    >>> x, out = np.array([1, -3, 2, -2], np.float32), np.empty(4, np.float32)
    >>> between(x, np.zeros(4, np.float32), 2.0, 1, 2.0, 0, np.float32(1), out); out.tolist()
    [0.0, 0.0, 2.0, 0.0]
    """
    room = np.empty(BLOCK, base.dtype)
    for start in range(0, base.size, BLOCK):
        one, b, made = x[start : start + BLOCK], base[start : start + BLOCK], out[start : start + BLOCK]
        beyond = room[: b.size]
        least_quota = _trim(one, b, least, least_quota, weight, made)
        most_quota = _trim(one, b, most, most_quota, weight, beyond)
        for i in range(b.size):
            made[i] -= beyond[i]


@njit(nogil=True, cache=True, error_model="numpy")
def spreads(base: Array, models: Any, out: Array) -> None:
    """out is the variance of the models' changes, entry by entry, by Welford's sums in float64.

    >>> one, two, out = np.array([1, 5], np.float32), np.array([3, 5], np.float32), np.empty(2, np.float32)
    >>> spreads(np.zeros(2, np.float32), (one, two), out); out.tolist()
    [1.0, 0.0]
    """
    for i in range(out.size):
        mean, squares = 0.0, 0.0
        for k in range(len(models)):
            change = np.float64(models[k][i] - base[i])
            before = change - mean
            mean += before / (k + 1)
            squares += before * (change - mean)
        out[i] = squares / len(models)


@njit(nogil=True, cache=True, error_model="numpy")
def trimmed_signs(base: Array, models: Any, thresholds: Array, quotas: Array, votes: Array) -> int:
    """The sum over all entries of the sign of the sum of the models' trimmed changes, each times its vote."""
    left, found = quotas.copy(), 0
    room, sums = np.empty(BLOCK, base.dtype), np.empty(BLOCK, base.dtype)
    for start in range(0, base.size, BLOCK):
        b = base[start : start + BLOCK]
        change, total = room[: b.size], sums[: b.size]
        total[:] = 0
        for k in range(len(models)):
            left[k] = _trim(models[k][start : start + BLOCK], b, thresholds[k], left[k], votes[k], change)
            for i in range(b.size):
                total[i] += change[i]
        for i in range(b.size):
            found += (total[i] > 0) - (total[i] < 0)
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def trimmed_mean(
    base: Array, models: Any, thresholds: Array, quotas: Array, votes: Array, undecided: Any, factors: Array,
    divisors: Array, plain: bool, out: Array,
) -> None:  # fmt: skip
    """out: of the models' trimmed changes times their votes those that have the sign of their sum, times their factors,
    over their divisors' sum.

    undecided: the sign where the sum is nothing. plain: not divided.
    """
    left = quotas.copy()
    rooms = np.empty((len(models), BLOCK), base.dtype)
    sums, counts = np.empty(BLOCK, base.dtype), np.empty(BLOCK, base.dtype)
    for start in range(0, base.size, BLOCK):
        b, made = base[start : start + BLOCK], out[start : start + BLOCK]
        sign, count = sums[: b.size], counts[: b.size]
        sign[:] = 0
        for k in range(len(models)):
            change = rooms[k, : b.size]
            left[k] = _trim(models[k][start : start + BLOCK], b, thresholds[k], left[k], votes[k], change)
            for i in range(b.size):
                sign[i] += change[i]
        signs(sign, undecided)
        made[:] = 0
        count[:] = 0
        for k in range(len(models)):
            agree(rooms[k, : b.size], sign, factors[k], divisors[k], made, count)
        if not plain:
            divide(made, count)


@njit(nogil=True, cache=True, error_model="numpy")
def finite_bits(raw: Array, ones: Any) -> bool:
    """Whether every number is one, of 16 bits as uint16; ones: the bits of infinity.

    >>> finite_bits(np.array([0x3FC0, 0xFF80], np.uint16), np.uint16(0x7F80))
    False
    """
    for start in range(0, raw.size, BLOCK):
        top = np.uint16(0)
        part = raw[start : start + BLOCK]
        for i in range(part.size):
            size = np.uint16(part[i] & np.uint16(0x7FFF))
            top = size if size > top else top
        if top >= ones:
            return False
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def finite(x: Array) -> bool:
    """Whether every number is one.

    >>> finite(np.array([1.0, -0.0])), finite(np.array([1.0, np.inf]))
    (True, False)
    """
    for start in range(0, x.size, BLOCK):
        odd = 0
        part = x[start : start + BLOCK]
        for i in range(part.size):
            odd += part[i] - part[i] != 0
        if odd:
            return False
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def settle(base: Array, out: Array) -> None:
    """The base's own bits where nothing changed: minus zero is equal to zero."""
    for i in range(out.size):
        out[i] = base[i] if out[i] == base[i] else out[i]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def product(x: Array, y: Array) -> Any:
    """The inner product in float64, in whatever order vector instructions sum."""
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(y[i])
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def count_equal(values: Array, threshold: Any) -> int:
    found = 0
    for i in range(values.size):
        found += values[i] == threshold
    return found
