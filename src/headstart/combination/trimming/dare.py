"""DARE: drop most changes at random, and enlarge the rest.

Yu et al., "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch", ICML 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, Survey, TensorContext
from headstart.numerics.chance import uniforms
from headstart.numerics.changes import Combine, enlargements
from headstart.numerics.consensus import agreeing, elected
from headstart.numerics.portions import each, fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Dare:
    """Keep each change with a chance of `density`, divided by it, so that its expectation stays.

    Shapes: base and every tuned tensor (…), equal; float32; tiles, with rescale="l1" after one pass over each tensor.
    Returns: base + scale * the weighted sum of the kept changes, or with consensus="elect" TIES' mean of those that
    agree.
    Errors: `Unfit` when density is outside (0, 1], or when there is not one weight a model.

    What is kept follows from the seed, the model's number, the tensor's name and the entry's place, and from nothing
    else. For fine-tunes with small changes; large ones do not survive densities below about 0.1. rescale="l1", which is
    mergekit's, enlarges until the sizes of a tensor's changes have the sum that they had, whatever was drawn. With
    consensus="elect", elect="plain" has the weights in the mean alone, as peft's `dare_ties`.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, copies=18)
    claims = (
        "source_order_without_chance", "copies", "copies_of_a_sum", "one_model", "scale_zero", "sign_symmetry",
        "seeds_differ",
    )  # fmt: skip
    cites = "arXiv:2311.03099"
    trim = "tensor"

    density: float | tuple[float, ...] = 0.1
    scale: float = 0.3
    weights: tuple[float, ...] = ()  # one a model; none are 1 each
    consensus: Literal["sum", "elect"] = "sum"
    elect: Literal["weighted", "plain"] = "weighted"
    average: Literal["count", "weight", "sum"] = "count"  # of those that agree
    rescale: Literal["chance", "l1", "none"] = "chance"
    normalize: bool = False

    def __post_init__(self) -> None:
        fraction(self.density, "density")

    def __call__(self, survey: Survey) -> Combine:
        weights = each(self.weights, survey.models, "weights").tolist()
        densities = each(self.density, survey.models, "density").tolist()
        factors = [1 / d if self.rescale == "chance" else 1.0 for d in densities]
        if self.rescale == "l1" and any(d < 1 for d in densities):
            factors = enlargements(survey, [_Kept(k, densities[k]) for k in range(survey.models)])
        plain = self.consensus == "elect" and self.elect == "plain"
        times = factors if plain else [w * f for w, f in zip(weights, factors, strict=True)]
        divisor = sum(weights) if self.normalize and self.consensus == "sum" and abs(sum(weights)) > 1e-8 else 1.0

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            changes = [
                torch.where(_drawn(context, k, densities[k], base), one - base, 0) * times[k]
                for k, one in enumerate(tuned)
            ]
            if self.consensus == "elect":
                sign = elected(changes, 1.0)
                return base + self.scale * agreeing(changes, sign, weights, self.average, weights if plain else ())
            return base + self.scale / divisor * torch.stack(changes).sum(dim=0)

        return combine


@dataclass(frozen=True, slots=True)
class _Kept:
    """The sizes of one model's kept changes."""

    model: int
    density: float

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.where(_drawn(context, self.model, self.density, base), (tuned[self.model] - base).abs(), 0)


def _drawn(context: TensorContext, model: int, density: float, like: torch.Tensor) -> torch.Tensor:
    numbers = uniforms((context.seed, context.name, model), context.offset, like.numel())
    return torch.from_numpy(numbers < density).view(like.shape)
