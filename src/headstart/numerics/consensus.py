"""Where the changes of several models disagree about a sign: elect one, and average those that agree.

The election is that of TIES (Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from . import scratch, tiles

Array = np.ndarray[Any, Any]

Average = Literal["count", "weight", "sum"]


def elected(changes: Sequence[torch.Tensor], undecided: float = 0.0) -> torch.Tensor:
    """Sign (…) of the sum of the changes; `undecided` where they cancel.

    >>> elected([torch.tensor([4.0, -1.0, 2.0]), torch.tensor([-2.0, -3.0, -2.0])]).tolist()
    [1.0, -1.0, 0.0]
    """
    first = _flat(changes[0])
    total = scratch.empty(len(first), first.dtype)
    np.copyto(total, first)
    for change in changes[1:]:
        tiles.add(total, _flat(change), total.dtype.type(1))
    tiles.signs(total, total.dtype.type(undecided))
    return torch.from_numpy(total).view(changes[0].shape)


def agreeing(
    changes: Sequence[torch.Tensor], sign: torch.Tensor, weights: Sequence[float], average: Average = "count",
    factors: Sequence[float] = (),
) -> torch.Tensor:  # fmt: skip
    """Mean (…) of those weighted changes that have the elected sign; 0 where there is none.

    changes: already times their weights, but for factors. average: `count` divides by their number, `weight` by the sum
    of their weights, `sum` by nothing. factors: what changes that agree are times; none are 1 each.
    """
    wanted = _flat(sign)
    total, count = (scratch.empty(len(wanted), wanted.dtype) for _ in range(2))
    total[:], count[:] = 0, 0
    for change, weight, factor in zip(changes, weights, factors or [1.0] * len(changes), strict=True):
        times, divisor = wanted.dtype.type(factor), wanted.dtype.type(weight if average == "weight" else 1)
        tiles.agree(_flat(change), wanted, times, divisor, total, count)
    if average != "sum":
        tiles.divide(total, count)
    return torch.from_numpy(total).view(sign.shape)


def trimmed_mean(
    base: torch.Tensor, tuned: Sequence[torch.Tensor], cuts: Sequence[tuple[float, int]], votes: Sequence[float],
    undecided: float, average: Average, weights: Sequence[float], factors: Sequence[float],
) -> torch.Tensor:  # fmt: skip
    """`agreeing` of the changes that are left of a trim, in one go.

    cuts: for each model, the size above which its changes stay, and how many of those with that size (-1 all). votes:
    what changes are times when signs are elected; factors: what they are times beside that in the mean. weights: what
    average `weight` divides by.
    """
    b, models, thresholds, quotas, kind = _prepared(base, tuned, cuts)
    out = scratch.empty(len(b), kind)
    divisors = np.asarray(weights if average == "weight" else [1.0] * len(tuned), kind)
    voted, times = np.asarray(votes, kind), np.asarray(factors, kind)
    sign, summed = kind.type(undecided), average == "sum"
    tiles.trimmed_mean(b, models, thresholds, quotas, voted, sign, times, divisors, summed, out)
    return torch.from_numpy(out).view(base.shape)


def trimmed_signs(
    base: torch.Tensor, tuned: Sequence[torch.Tensor], cuts: Sequence[tuple[float, int]], votes: Sequence[float]
) -> int:
    """The sum over all entries of the signs that the changes left of a trim elect, each times its vote."""
    b, models, thresholds, quotas, kind = _prepared(base, tuned, cuts)
    return int(tiles.trimmed_signs(b, models, thresholds, quotas, np.asarray(votes, kind)))


def middles(
    base: torch.Tensor, tuned: Sequence[torch.Tensor], least: Sequence[tuple[float, int]],
    most: Sequence[tuple[float, int]], factors: Sequence[float],
) -> torch.Tensor:  # fmt: skip
    """(models, …): changes times their factors, where they are in the least cut and not in the most; else 0.

    Cuts as for `trimmed_mean`.
    """
    b, models, low, low_quotas, kind = _prepared(base, tuned, least)
    _, _, high, high_quotas, _ = _prepared(base, tuned, most)
    out = scratch.empty(len(tuned) * len(b), kind).reshape(len(tuned), len(b))
    times = np.asarray(factors, kind)
    for k, one in enumerate(models):
        tiles.between(one, b, low[k], low_quotas[k], high[k], high_quotas[k], times[k], out[k])
    return torch.from_numpy(out).view(len(tuned), *base.shape)


def spread(base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
    """Variance (…) of the models' changes of each entry."""
    b = _flat(base)
    out = scratch.empty(len(b), b.dtype)
    tiles.spreads(b, tuple(_flat(t) for t in tuned), out)
    return torch.from_numpy(out).view(base.shape)


def _prepared(
    base: torch.Tensor, tuned: Sequence[torch.Tensor], cuts: Sequence[tuple[float, int]]
) -> tuple[Array, tuple[Array, ...], Array, Array, Any]:
    thresholds = np.array([threshold for threshold, _ in cuts], np.float32)
    quotas = np.array([quota for _, quota in cuts], np.int64)
    b = _flat(base)
    return b, tuple(_flat(t) for t in tuned), thresholds, quotas, b.dtype


def _flat(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.reshape(-1).numpy())
