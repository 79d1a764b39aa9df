"""Iso-CTS: directions that tasks share, beside those of each task, all equally strong.

Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces", ICML 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext
from headstart.numerics.portions import fraction
from headstart.numerics.singular import flat, is_matrix, polar, rank_of, rounding, square_share


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoCts:
    """The strongest directions of the summed changes, and of each task's rest, made orthogonal and equally strong.

    Shapes: base and every tuned tensor (…), equal; float32; whole tensors: models + 3 SVDs a matrix.
    Returns: base + scale * the flat matrix; of tensors that are no matrices, scale * the mean change.
    Errors: `Unfit` when common is outside [0, 1].

    common: the share of all directions that is the sum's own; the rest is dealt to the tasks in equal parts, and what
    is left over stays common. At 1 it is `iso_c`, and better than that the more tasks there are. Of a change of lower
    rank, or of none, nothing is made up for its part, where the published code takes what rounding has there.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True)
    claims = ("source_order", "sign_symmetry", "scale_zero")
    cites = "arXiv:2502.04959"

    common: float = 0.8
    scale: float = 1.0

    def __post_init__(self) -> None:
        fraction(self.common, "common", zero=True)

    def holds(self, shape: Sequence[int], models: int) -> float:
        """Tensors of the shape beside the inputs: the changes, two decompositions, and room that one works in."""
        return models + 8.5 + 7.2 * square_share(shape)

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        changes = [one - base for one in tuned]
        total = torch.stack(changes).sum(dim=0)
        if not is_matrix(total):
            return base + self.scale * total / len(tuned)
        left, values, right = torch.linalg.svd(total, full_matrices=False)
        rank = rank_of(values, total.shape)
        if not rank:
            return base.clone()
        own = round((rank - int(rank * self.common)) / len(tuned))
        shared = max(0, rank - own * len(tuned))
        lefts, spectrum, rights = [], [], []
        for change in changes if own else ():
            rest = change - left[:, :shared] @ (left[:, :shared].T @ change)
            u, s, v = torch.linalg.svd(rest, full_matrices=False)
            kept = int((s[:own] > rounding(change)).sum())
            lefts.append(u[:, :kept].clone())  # of the rest nothing is kept
            spectrum.append(s[:kept])
            rights.append(v[:kept].clone())
        lefts.append(left[:, :shared])
        spectrum.append(values[:shared])
        rights.append(right[:shared])
        merged = flat(polar(torch.cat(lefts, dim=1)), torch.cat(spectrum), polar(torch.cat(rights, dim=0)))
        return base + self.scale * merged
