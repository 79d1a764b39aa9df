"""TSV-M: the strongest singular vectors of each task, made orthogonal to each other.

Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext
from headstart.numerics.singular import is_matrix, polar, rank_of, square_share


@dataclass(frozen=True, kw_only=True, slots=True)
class TsvM:
    """Give every task an equal share of a matrix' directions, and keep the shares from overlapping.

    Shapes: base and every tuned tensor (…), equal; float32; whole tensors: models + 2 SVDs a matrix.
    Returns: base + scale * U S V' of the tasks' strongest triples, U and V the nearest orthonormal ones; of tensors
    that are no matrices, scale * the mean change.
    Errors: none of its own.

    Each of K tasks keeps 1 / K of the directions; of more tasks than directions the mean is taken. It assumes tasks
    that differ: copies of one task are pushed apart into directions that neither has, and a merge warns of them.
    Directions that are rounding only (of changes of low rank, or of none) stay out, where the published code lets them
    push the others aside.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True)
    claims = ("source_order", "sign_symmetry", "scale_zero", "one_model")
    cites = "arXiv:2412.00081"
    compares = "changes"

    scale: float = 1.0

    def holds(self, shape: Sequence[int], models: int) -> float:
        """Tensors of the shape beside the inputs: a decomposition, what is kept of each, and room that one works in."""
        del models
        return 5.6 + 6.5 * square_share(shape)

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        share = min(base.shape) // len(tuned) if is_matrix(base) else 0
        if not share:
            return base + self.scale * torch.stack([one - base for one in tuned]).mean(dim=0)
        lefts, values, rights = [], [], []
        for one in tuned:
            u, s, v = torch.linalg.svd(one - base, full_matrices=False)
            kept = min(share, rank_of(s, base.shape))
            lefts.append(u[:, :kept].clone())  # of the rest nothing is kept
            values.append(s[:kept])
            rights.append(v[:kept].clone())
        spectrum = torch.cat(values)
        if not len(spectrum):
            return base.clone()
        left, right = polar(torch.cat(lefts, dim=1)), polar(torch.cat(rights, dim=0))
        return base + self.scale * (left * spectrum) @ right
