"""Model Breadcrumbs: keep the middle of each tensor's changes.

Davari and Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from headstart.core import Needs, Survey, TensorContext, Unfit
from headstart.numerics import scratch
from headstart.numerics.changes import Combine, SizeOf, enlargements
from headstart.numerics.consensus import agreeing, elected, middles
from headstart.numerics.portions import each


@dataclass(frozen=True, kw_only=True, slots=True)
class Breadcrumbs:
    """Merge fine-tunes of one base, with each tensor's smallest and most extreme changes left out.

    Shapes: base and every tuned tensor (…), equal; float32; tiles, after two or three passes over each tensor.
    Returns: base + scale * the weighted sum of the kept changes, or with consensus="elect" TIES' mean of those that
    agree.
    Errors: `Unfit` when density and outliers do not fit into one, or when there is not one weight a model.

    Of n entries, round(outliers * n) with the largest changes are left out, and those after them are kept until
    round((density + outliers) * n). Settings found for a few tasks hold when tasks are added.
    rescale="l1", which is mergekit's, enlarges what is kept until sizes have the sum that they had.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "copies", "copies_of_a_sum", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2312.06795"

    density: float | tuple[float, ...] = 0.85
    outliers: float | tuple[float, ...] = 0.01
    scale: float = 0.3
    weights: tuple[float, ...] = ()  # one a model; none are 1 each
    trim: Literal["tensor", "model"] = "tensor"
    consensus: Literal["sum", "elect"] = "sum"
    average: Literal["count", "weight", "sum"] = "count"  # of those that agree
    rescale: Literal["none", "l1"] = "none"

    def __post_init__(self) -> None:
        many = max(len(v) if isinstance(v, tuple) else 1 for v in (self.density, self.outliers))
        densities, outliers = each(self.density, many, "density"), each(self.outliers, many, "outliers")
        for kept, cut in zip(densities, outliers, strict=True):
            if not (kept > 0 and cut >= 0 and kept + cut <= 1 + 1e-12):
                raise Unfit(
                    f"density {kept:g} and outliers {cut:g} are fractions of one tensor, together at most 1",
                    where="Breadcrumbs(density=…, outliers=…)",
                    fix="use 0.85 and 0.01, or outliers=0 to keep the largest changes",
                )

    def __call__(self, survey: Survey) -> Combine:
        models = range(survey.models)
        weights = each(self.weights, survey.models, "weights").tolist()
        above = each(self.outliers, survey.models, "outliers")
        below = np.minimum(1, above + each(self.density, survey.models, "density"))
        sizes = [SizeOf(k) for k in models]
        found = survey.largest([*sizes, *sizes], [*above.tolist(), *below.tolist()])
        beyond, upto = found[: survey.models], found[survey.models :]

        def size(model: int) -> Combine:
            def of(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
                least, most = upto[model].cut(context), beyond[model].cut(context)
                return middles(base, [tuned[model]], [least], [most], [1.0])[0].abs_()

            return of

        factors = enlargements(survey, [size(k) for k in models]) if self.rescale == "l1" else [1.0] * len(models)
        times = [w * f for w, f in zip(weights, factors, strict=True)]

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            kept = middles(base, tuned, [c.cut(context) for c in upto], [c.cut(context) for c in beyond], times)
            if self.consensus == "elect":
                changes = list(kept)
                total = agreeing(changes, elected(changes, 1.0), weights, self.average)
            else:
                total = torch.from_numpy(scratch.empty(base.numel(), base.numpy().dtype)).view(base.shape)
                torch.sum(kept, dim=0, out=total)
            return total.mul_(self.scale).add_(base)

        return combine
