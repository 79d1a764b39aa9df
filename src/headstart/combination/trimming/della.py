"""DELLA: drop changes at random, small ones more often.

Deep, Bhardwaj and Poria, "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling",
2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, Survey, TensorContext, Unfit
from headstart.numerics.chance import uniforms
from headstart.numerics.changes import Combine, enlargements
from headstart.numerics.consensus import agreeing, elected
from headstart.numerics.portions import each


@dataclass(frozen=True, kw_only=True, slots=True)
class Della:
    """Keep each change with a chance that grows with its rank in its row, divided by that chance.

    Shapes: base and every tuned tensor (…), equal; float32; tiles of whole rows, with
    rescale="l1" after one pass over each tensor.
    Returns: base + scale * TIES' mean of the kept changes that agree, or with consensus="sum" their weighted sum.
    Errors: `Unfit` when density ± epsilon leaves (0, 1), or when there is not one weight a model; a density of 1 keeps
    all of a model's changes.

    A row is what lies along the last axis. The smallest change of a row has the chance density - epsilon, the largest
    density + epsilon; in rows of one entry it is density. Equal changes rank by their place. rescale="l1" is
    mergekit's: a tensor's sizes keep their sum.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_rows=True)
    claims = ("source_order_without_chance", "copies", "one_model", "scale_zero", "sign_symmetry", "seeds_differ")
    cites = "arXiv:2406.11617"
    trim = "tensor"

    density: float | tuple[float, ...] = 0.5
    epsilon: float | tuple[float, ...] = 0.15
    scale: float = 1.0
    weights: tuple[float, ...] = ()  # one a model; none are 1 each
    consensus: Literal["elect", "sum"] = "elect"
    average: Literal["count", "weight", "sum"] = "count"  # of those that agree
    rescale: Literal["chance", "l1", "none"] = "chance"

    def __post_init__(self) -> None:
        many = max(len(v) if isinstance(v, tuple) else 1 for v in (self.density, self.epsilon))
        densities, around = each(self.density, many, "density"), each(self.epsilon, many, "epsilon")
        for density, epsilon in zip(densities, around, strict=True):
            if density != 1 and not (epsilon >= 0 and density - epsilon > 0 and density + epsilon < 1):
                raise Unfit(
                    f"chances from {density - epsilon:g} to {density + epsilon:g} leave (0, 1)",
                    where=f"`density={density:g}`, `epsilon={epsilon:g}`",
                    fix="choose a smaller epsilon, as in density=0.5, epsilon=0.15",
                )

    def holds(self, shape: Sequence[int], models: int) -> float:
        """Tiles beside the inputs: what is kept of each change, and the ranks of one."""
        del shape
        return models + 11.5

    def __call__(self, survey: Survey) -> Combine:
        weights = each(self.weights, survey.models, "weights").tolist()
        densities, around = each(self.density, survey.models, "density"), each(self.epsilon, survey.models, "epsilon")
        kept = [
            _Kept(k, float(density), float(epsilon), self.rescale == "chance")
            for k, (density, epsilon) in enumerate(zip(densities, around, strict=True))
        ]
        factors = enlargements(survey, [one.sizes for one in kept]) if self.rescale == "l1" else [1.0] * len(kept)

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            changes = [
                one(context, base, tuned) * factor * weight
                for one, factor, weight in zip(kept, factors, weights, strict=True)
            ]
            if self.consensus == "elect":
                merged = agreeing(changes, elected(changes, 1.0), weights, self.average)
            else:
                merged = torch.stack(changes).sum(dim=0)
            return base + self.scale * merged

        return combine


@dataclass(frozen=True, slots=True)
class _Kept:
    """The kept changes of one model, enlarged or not, and 0 elsewhere."""

    model: int
    density: float
    epsilon: float
    enlarged: bool

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        change = tuned[self.model] - base
        chance = _chances(change, self.density, self.epsilon)
        numbers = uniforms((context.seed, context.name, self.model), context.offset, base.numel())
        drawn = torch.from_numpy(numbers).view(base.shape) < chance
        return torch.where(drawn, change / chance if self.enlarged else change, 0)

    def sizes(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        return self(context, base, tuned).abs()


def _chances(change: torch.Tensor, density: float, epsilon: float) -> torch.Tensor:
    rows = change.abs().reshape(-1, change.shape[-1]) if change.dim() else change.abs().reshape(1, 1)
    wide = rows.shape[-1]
    if wide == 1 or density == 1:
        return torch.full_like(change, density)
    rank = rows.argsort(dim=1, stable=True).argsort(dim=1).to(change.dtype)
    return (density - epsilon + 2 * epsilon * rank / (wide - 1)).view(change.shape)
