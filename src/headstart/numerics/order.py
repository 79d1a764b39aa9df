"""Order statistics of any number of values in two passes and little memory, exact to the bit.

The first pass counts values by the upper half of their bits; for numbers that are not negative, the order of the bits
is the order of the numbers. The second counts, inside the one bin that holds the wanted rank, by the lower half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tiles import HIGH_BINS, LOW_BINS, count_high, count_low

Array = np.ndarray[Any, Any]
# runs one pass: what to do with each function's values and the thread's counts, and how a thread's counts begin;
# gives the counts of all threads
Counted = Callable[[Callable[[int, Array, Any], None], Callable[[], Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class Order:
    """The value of a rank; how many values are at most it, and how many equal it."""

    value: float
    upto: int
    equal: int


def order(counted: Counted, wanted: Sequence[tuple[int, int]], functions: int) -> list[Order]:
    """For each (function, rank): its value of that rank, 0 the smallest. A rank past the end is the largest value's.

    >>> values = np.array([3, 1, 2, 2], np.float32)
    >>> def counted(count, start):
    ...     held = start()
    ...     count(0, values, held)
    ...     return [held]
    >>> order(counted, [(0, 1)], 1)
    [Order(value=2.0, upto=3, equal=2)]
    """

    def first(f: int, v: Array, held: Any) -> None:
        count_high(v, held[f])

    highs = _summed(counted(first, lambda: np.zeros((functions, HIGH_BINS), np.int64)))
    ends = np.cumsum(highs, axis=1)
    bins = [_bin(ends[f], rank) for f, rank in wanted]

    def count(f: int, v: Array, held: Any) -> None:
        for at, (function, _) in enumerate(wanted):
            if function == f:
                count_low(v, bins[at], held[at])

    lows = _summed(counted(count, lambda: np.zeros((len(wanted), LOW_BINS), np.int64)))
    found = []
    for at, (f, rank) in enumerate(wanted):
        before = int(ends[f, bins[at]] - highs[f, bins[at]])
        inside = np.cumsum(lows[at])
        low = _bin(inside, rank - before)
        value = np.uint32((bins[at] << 16) | low).view(np.float32)
        found.append(Order(float(value), before + int(inside[low]), int(lows[at, low])))
    return found


def _summed(counts: list[Array]) -> Array:
    """In the first one's memory."""
    for other in counts[1:]:
        counts[0] += other
    return counts[0]


def _bin(ends: Array, rank: int) -> int:
    """Which bin holds a rank, by how many values end with each; the last that holds any, for a rank past the end."""
    return int(np.searchsorted(ends, min(rank, int(ends[-1]) - 1), side="right"))
