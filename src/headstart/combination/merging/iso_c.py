"""Iso-C: add what fine-tunes changed, and make all its directions equally strong.

Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces", ICML 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext
from headstart.numerics.singular import flat, is_matrix, rank_of, square_share


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoC:
    """Flatten the spectrum of the summed changes, so that no task's strong directions drown the others'.

    Shapes: base and every tuned tensor (…), equal; float32; whole tensors: one SVD a matrix.
    Returns: base + scale * U mean(S) V' of the summed changes of a matrix; of other tensors, scale * their mean.
    Errors: none of its own.

    One model alone is flattened too. Directions that are rounding only (of changes of low rank) stay out, where the
    published code raises them to the mean. `scale` wants tuning on validation rows.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True)
    claims = ("source_order", "sign_symmetry", "scale_zero")
    cites = "arXiv:2502.04959"

    scale: float = 1.0

    def holds(self, shape: Sequence[int], models: int) -> float:
        """Tensors of the shape beside the inputs: the sum, one decomposition, and room that it works in."""
        del models
        return 5 + 2.5 * square_share(shape)

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        total = torch.zeros_like(base)
        for one in tuned:
            total += one - base
        if not is_matrix(total):
            return base + self.scale * total / len(tuned)
        left, values, right = torch.linalg.svd(total, full_matrices=False)
        rank = rank_of(values, total.shape)
        if not rank:
            return base.clone()
        return base + self.scale * flat(left[:, :rank], values[:rank], right[:rank])
