"""DARE: drop most changes at random, and enlarge the rest.

Yu et al., "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch", ICML 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, TensorContext
from headstart.numerics.chance import uniforms
from headstart.numerics.consensus import agreeing, elected
from headstart.numerics.portions import each, fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Dare:
    """Keep each change with a chance of `density`, divided by it, so that its expectation stays.

    Shapes: base and every tuned tensor (…), equal; float32; tiles.
    Returns: base + scale * the weighted sum of the kept changes, or with consensus="elect" TIES' mean of those that
    agree. Errors: `Unfit` when density is outside (0, 1], or when there is not one weight a model.

    What is kept follows from the seed, the model's number, the tensor's name and the entry's place, and from nothing
    else. For fine-tunes with small changes; large ones do not survive densities below about 0.1.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("scale_zero", "one_model", "seeds_differ")
    cites = "arXiv:2311.03099"

    density: float | tuple[float, ...] = 0.1
    scale: float = 0.3
    weights: tuple[float, ...] = ()  # one a model; none are 1 each
    consensus: Literal["sum", "elect"] = "sum"

    def __post_init__(self) -> None:
        fraction(self.density, "density")

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = each(self.weights, len(tuned), "weights")
        densities = each(self.density, len(tuned), "density")
        kept = []
        for k, one in enumerate(tuned):
            drawn = uniforms((context.seed, context.name, k), context.offset, base.numel())
            mask = torch.from_numpy(drawn < densities[k]).view(base.shape)
            kept.append((one - base) * mask * float(weights[k] / densities[k]))
        if self.consensus == "elect":
            change = agreeing(kept, elected(kept), weights.tolist())
        else:
            change = torch.stack(kept).sum(dim=0)
        return base + self.scale * change
