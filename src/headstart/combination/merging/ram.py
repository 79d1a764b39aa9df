"""RAM: keep what one model alone changed, and average what several did.

"Reinforced Agent Merging", 2026, as mergekit's `ram`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext, Unfit


@dataclass(frozen=True, kw_only=True, slots=True)
class Ram:
    """Average each entry's changes over the models that changed it, so that what is one model's own stays whole.

    Shapes: base and every tuned tensor (…), equal; float32; tiles.
    Returns: base + scale * the mean of the changes larger than epsilon, of each entry over those that have one.
    Errors: `Unfit` when epsilon is below 0.

    For fine-tunes that touch few entries, as reinforcement learning does. Where training rounded in bfloat16, nearly
    every entry of a large weight moved by more than epsilon: raise it, or all is one plain mean.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "agreement", "copies", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2601.13572"

    epsilon: float = 1e-5  # in units of the weights
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.epsilon < 0:
            raise Unfit(f"epsilon is {self.epsilon}, below 0", where=f"`epsilon={self.epsilon}`", fix="use 1e-5")

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        total, count = torch.zeros_like(base), torch.zeros_like(base)
        for one in tuned:
            change = one - base
            moved = change.abs() > self.epsilon
            total += change * moved
            count += moved
        return base + self.scale * total / count.clamp_min(1)
