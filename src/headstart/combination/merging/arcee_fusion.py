"""Arcee Fusion: take over the changes that stand out, by their size and by what they do to their row.

Arcee AI, mergekit's `arcee_fusion`, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.core import Needs, TensorContext

SOFT = 1e-8  # added to probabilities
SPREADS = 1.5  # how many times the middle half's width above the median an entry stands out


@dataclass(frozen=True, kw_only=True, slots=True)
class ArceeFusion:
    """Take from another model the entries that matter most, whole, and keep the base everywhere else.

    Shapes: base and the tuned tensor (…), equal; float32; whole tensors: peak about 8 copies of one.
    Returns: the other where |other - base| * KL(softmax(other's row) || softmax(base's row)) reaches the median plus
    1.5 interquartile ranges, the base elsewhere.
    Errors: none of its own.

    Quantiles are those of all entries; mergekit draws a million of a larger tensor.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True, most=1, copies=6)
    claims = ()
    cites = "https://github.com/arcee-ai/mergekit"

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        score = _importance(base, tuned[0])
        return base + (tuned[0] - base) * (score >= _threshold(score))


def _importance(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Size of the change, times how far it moves the distribution that a row's softmax is."""
    after, before = other.softmax(dim=-1).add_(SOFT), base.softmax(dim=-1).add_(SOFT)
    moved = (after * torch.log(after / before)).sum(dim=-1, keepdim=True)
    return (other - base).abs_().mul_(moved)


def _threshold(score: torch.Tensor) -> float:
    flat = score.flatten().numpy()
    low, middle, high = (int(q * (len(flat) - 1)) for q in (0.25, 0.5, 0.75))
    parts = np.partition(flat, (low, middle, high))
    return float(parts[middle] + np.float32(SPREADS) * (parts[high] - parts[low]))
