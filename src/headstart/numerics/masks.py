"""Masks over weights: of the largest values of a whole model, and how far two masks overlap beyond chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .order import order

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


def largest(values: Mapping[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    """Which entries of all tensors together have the `count` largest values; of equal ones, those that come first.

    >>> largest({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([-2.0, 3.0])}, 1)
    {'a': tensor([False,  True]), 'b': tensor([False, False])}
    """
    total = sum(v.numel() for v in values.values())
    if count <= 0 or count >= total:
        return {n: torch.full(v.shape, count > 0) for n, v in values.items()}
    lowest = min(float(v.min()) for v in values.values() if v.numel())

    def flat() -> Iterator[Array]:
        """From 0 on, as order statistics want them."""
        return ((v - lowest).float().flatten().numpy() for v in values.values())

    def counted(count_in: Callable[[int, Array, Any], None], room: Callable[[], Any]) -> list[Any]:
        held = room()
        for v in flat():
            count_in(0, v, held)
        return [held]

    (cut,) = order(counted, [(0, total - count)], 1)
    left = cut.upto - (total - count)  # of those that equal the smallest one kept
    out = {}
    for (name, one), v in zip(values.items(), flat(), strict=True):
        equal = v == np.float32(cut.value)
        out[name] = torch.from_numpy((v > np.float32(cut.value)) | (equal & (np.cumsum(equal) <= left))).view(one.shape)
        left -= min(left, int(equal.sum()))
    return out
