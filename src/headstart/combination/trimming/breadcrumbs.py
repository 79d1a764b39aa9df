"""Model Breadcrumbs: keep the middle of each tensor's changes.

Davari and Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, Survey, TensorContext, Unfit
from headstart.numerics.changes import SizeOf
from headstart.numerics.portions import each

Combine = Callable[[TensorContext, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Breadcrumbs:
    """Merge fine-tunes of one base, with each tensor's smallest and most extreme changes left out.

    Shapes: base and every tuned tensor (…), equal; float32; tiles, after two or three passes over each tensor.
    Returns: base + scale * the weighted sum of the kept changes.
    Errors: `Unfit` when density and outliers do not fit into one, or when there is not one weight a model.

    Of n entries, round(outliers * n) with the largest changes are left out, and those after them are kept until
    round((density + outliers) * n). Settings found for a few tasks hold when tasks are added.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "sign_symmetry", "scale_zero", "one_model")
    cites = "arXiv:2312.06795"

    density: float = 0.85
    outliers: float = 0.01
    scale: float = 0.3
    weights: tuple[float, ...] = ()  # one a model; none are 1 each
    trim: Literal["tensor", "model"] = "tensor"

    def __post_init__(self) -> None:
        if not (self.density > 0 and self.outliers >= 0 and self.density + self.outliers <= 1):
            raise Unfit(
                f"density {self.density} and outliers {self.outliers} are fractions of one tensor, together at most 1",
                where="Breadcrumbs(density=…, outliers=…)",
                fix="use 0.85 and 0.01, or outliers=0 to keep the largest changes",
            )

    def __call__(self, survey: Survey) -> Combine:
        models = range(survey.models)
        weights = each(self.weights, survey.models, "weights").tolist()
        sizes = [SizeOf(k) for k in models]
        upto = [self.outliers] * len(models) + [self.outliers + self.density] * len(models)
        found = survey.largest([*sizes, *sizes], upto)

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            total = torch.zeros_like(base)
            for k in models:
                change = tuned[k] - base
                size = change.abs()
                middle = found[len(models) + k](context, size) & ~found[k](context, size)
                total += torch.where(middle, change * weights[k], 0)
            return base + self.scale * total

        return combine
