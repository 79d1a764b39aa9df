"""DELLA: drop changes at random, small ones more often.

Deep, Bhardwaj and Poria, "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling",
2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, TensorContext, Unfit
from headstart.numerics.chance import uniforms
from headstart.numerics.consensus import agreeing, elected
from headstart.numerics.portions import each


@dataclass(frozen=True, kw_only=True, slots=True)
class Della:
    """Keep each change with a chance that grows with its rank in its row, divided by that chance.

    Shapes: base and every tuned tensor (…), equal; float32; whole tensors: peak about models + 8 copies of one tensor.
    Returns: base + scale * TIES' mean of the kept changes that agree, or with consensus="sum" their weighted sum.
    Errors: `Unfit` when density ± epsilon leaves (0, 1), or when there is not one weight a model; a density of 1 keeps
    all of a model's changes.

    A row is what lies along the last axis. The smallest change of a row has the chance density - epsilon, the largest
    density + epsilon; in rows of one entry it is density. Equal changes rank by their place. rescale="l1" is
    mergekit's: a tensor's sizes keep their sum.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True)
    claims = ("source_order_without_chance", "copies", "one_model", "scale_zero", "sign_symmetry", "seeds_differ")
    cites = "arXiv:2406.11617"

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
        """Tensors of the shape beside the inputs: what is kept of each change, and the ranks of one."""
        del shape
        return models + 11.5

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = each(self.weights, len(tuned), "weights")
        densities, around = each(self.density, len(tuned), "density"), each(self.epsilon, len(tuned), "epsilon")
        kept = []
        for k, one in enumerate(tuned):
            change = one - base
            chance = _chances(change, float(densities[k]), float(around[k]))
            drawn = torch.from_numpy(uniforms((context.seed, context.name, k), 0, base.numel())).view(base.shape)
            enlarged = change / chance if self.rescale == "chance" else change
            some = torch.where(drawn < chance, enlarged, 0)
            if self.rescale == "l1" and bool(some.any()):
                some *= float(change.abs().double().sum() / some.abs().double().sum())
            kept.append(some * float(weights[k]))
        if self.consensus == "elect":
            merged = agreeing(kept, elected(kept, 1.0), weights.tolist(), self.average)
        else:
            merged = torch.stack(kept).sum(dim=0)
        return base + self.scale * merged


def _chances(change: torch.Tensor, density: float, epsilon: float) -> torch.Tensor:
    rows = change.abs().reshape(-1, change.shape[-1]) if change.dim() else change.abs().reshape(1, 1)
    wide = rows.shape[-1]
    if wide == 1 or density == 1:
        return torch.full_like(change, density)
    rank = rows.argsort(dim=1, stable=True).argsort(dim=1).to(change.dtype)
    return (density - epsilon + 2 * epsilon * rank / (wide - 1)).view(change.shape)
