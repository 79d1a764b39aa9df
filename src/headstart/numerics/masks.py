"""Masks over weights: how far two of them overlap beyond chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of two masks.

    jaccard: shared entries by entries of either. beyond_chance: shared entries less those that random masks of the same
    sizes share, by as much as can be shared beyond these: 1 for masks of which one holds the other, 0 on average for
    random ones. deviations: the same difference in standard deviations of random masks; 0 where chance leaves no room.
    """

    jaccard: float
    beyond_chance: float
    deviations: float


def overlap(one: Array, other: Array, sizes: Array) -> Overlap:
    """Of masks given as sorted numbers of entries in tensors of these sizes, laid end to end.

    Random masks hold as many entries of each tensor, so that the shared ones of a tensor are hypergeometric.

    >>> overlap(np.array([0, 1]), np.array([1, 2]), np.array([4]))  # one is shared, as chance has it
    Overlap(jaccard=0.3333333333333333, beyond_chance=0.0, deviations=0.0)
    """
    ends = np.cumsum(sizes)
    shared = np.intersect1d(one, other, assume_unique=True)
    a, b = (np.diff(np.searchsorted(m, [0, *ends])).astype(np.float64) for m in (one, other))
    n = np.asarray(sizes, dtype=np.float64)
    expected = a * b / n
    spread = float(np.sqrt((expected * (n - a) * (n - b) / (n * np.maximum(n - 1, 1))).sum()))
    excess, room = len(shared) - float(expected.sum()), float((np.minimum(a, b) - expected).sum())
    either = len(one) + len(other) - len(shared)
    return Overlap(
        len(shared) / either if either else 0.0,
        excess / room if room > 0 else 0.0,
        excess / spread if spread > 0 else 0.0,
    )
