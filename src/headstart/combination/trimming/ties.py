"""TIES: trim, elect a sign, average those that agree.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, Survey, TensorContext
from headstart.numerics.changes import Combine, SizeOf, enlargements
from headstart.numerics.consensus import trimmed_mean, trimmed_signs
from headstart.numerics.portions import each, fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Ties:
    """Merge fine-tunes of one base, with small and contradicting changes left out.

    Shapes: base and every tuned tensor (…), equal; float32; tiles, after two to four passes over all of them.
    Returns: base + scale * the mean of those kept changes that have the elected sign.
    Errors: `Unfit` when density is outside (0, 1], or when there is not one weight a model.

    Exactly `round(density * entries)` changes of each model are kept, of equal sizes those that come first. As in the
    paper one threshold holds for a whole model, signs are elected by the sum of the changes, and where they cancel the
    sign that more entries have is taken. trim="tensor" has a threshold for each tensor, undecided="plus" the sign that
    mergekit takes, and average="weight" its mean, which a single model's weight does not enter; its rescale="l1"
    enlarges what is kept until sizes have the sum that they had before the trim. elect="plain" has the weights in the
    mean alone: with trim="tensor" and undecided="plus" peft's formula, which keeps `int(density * entries)`.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "agreement", "copies", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2306.01708"

    density: float | tuple[float, ...] = 0.2
    scale: float = 1.0
    weights: tuple[float, ...] = ()  # one a model; none are 1 each
    trim: Literal["model", "tensor"] = "model"
    elect: Literal["weighted", "plain"] = "weighted"
    undecided: Literal["majority", "plus"] = "majority"
    average: Literal["count", "weight", "sum"] = "count"
    rescale: Literal["none", "l1"] = "none"

    def __post_init__(self) -> None:
        fraction(self.density, "density")

    def __call__(self, survey: Survey) -> Combine:
        weights = each(self.weights, survey.models, "weights").tolist()
        densities = each(self.density, survey.models, "density").tolist()
        kept = survey.largest([SizeOf(k) for k in range(survey.models)], densities)
        enlarged = [1.0] * survey.models
        if self.rescale == "l1":

            def size(model: int) -> Combine:
                return lambda context, base, tuned: kept[model].changes(context, base, tuned[model]).abs()

            enlarged = list(enlargements(survey, [size(k) for k in range(survey.models)]))
        votes, factors = enlarged, weights
        if self.elect == "weighted":
            votes, factors = [w * e for w, e in zip(weights, enlarged, strict=True)], [1.0] * survey.models
        sign = 1.0
        if self.undecided == "majority" and survey.models > 1:

            def signs(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
                return torch.tensor(float(trimmed_signs(base, tuned, [c.cut(context) for c in kept], votes)))

            total = float(survey.sums([signs])[0])
            sign = float((total > 0) - (total < 0))

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            cuts = [c.cut(context) for c in kept]
            change = trimmed_mean(base, tuned, cuts, votes, sign, self.average, weights, factors)
            return change.mul_(self.scale).add_(base)

        return combine
