"""RAM+: keep what one model alone changed, a little enlarged where much of that model is shared and so averaged.

"Reinforced Agent Merging", 2026, as mergekit's `ramplus_tl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, Survey, TensorContext, Unfit
from headstart.numerics.changes import Combine


@dataclass(frozen=True, kw_only=True, slots=True)
class RamPlus:
    """Average shared changes as `ram` does, and make up for it in what is a model's own.

    Shapes: base and every tuned tensor (…), equal; float32; tiles, after one pass over all of them that compares the
    models 2 K² times a tile for K models.
    Returns: base + scale * the mean of shared changes; a change that is one model's own is enlarged by 1 + r * its
    model's (shared / own entries), at most alpha.
    Errors: `Unfit` when epsilon, r or alpha is below 0.

    A change is larger than epsilon. trim="tensor" counts in each tensor, as mergekit does, "model" in all of them.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "agreement", "copies", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2601.13572"

    epsilon: float = 1e-5  # in units of the weights
    r: float = 0.1
    alpha: float = 0.2
    scale: float = 1.0
    trim: Literal["model", "tensor"] = "tensor"

    def __post_init__(self) -> None:
        for name, value in (("epsilon", self.epsilon), ("r", self.r), ("alpha", self.alpha)):
            if value < 0:
                raise Unfit(f"{name} is {value}, below 0", where=f"`{name}={value}`", fix="use 1e-5, 0.1 and 0.2")

    def __call__(self, survey: Survey) -> Combine:
        models = range(survey.models)
        counts = survey.sums([self._counted(k, own) for k in models for own in (True, False)]).reshape(-1, 2)
        # without an entry of its own a model has nothing to enlarge
        factors = [1 + self.r * min(shared / own, self.alpha) if own else 1.0 for own, shared in counts.tolist()]

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            del context
            count = self._count(base, tuned)
            total = torch.zeros_like(base)
            for one, factor in zip(tuned, factors, strict=True):
                change = one - base
                kept = change * (change.abs() > self.epsilon)
                total += torch.where(count == 1, factor * kept, kept)
            return base + self.scale * total / count.clamp_min(1)

        return combine

    def _count(self, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        """How many models changed each entry."""
        count = torch.zeros_like(base)
        for one in tuned:
            count += (one - base).abs() > self.epsilon
        return count

    def _counted(self, model: int, own: bool) -> Combine:
        """How many entries of a tile the model changed alone, or with others."""

        def counted(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            del context
            count = self._count(base, tuned)
            alone = count == 1 if own else count > 1
            return (alone & ((tuned[model] - base).abs() > self.epsilon)).sum().float()

        return counted
