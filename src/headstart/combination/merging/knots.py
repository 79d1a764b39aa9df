"""KnOTS: turn what fine-tunes changed into directions that they share, and merge by TIES there.

Stoica et al., "Model merging with SVD to tie the Knots", ICLR 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext
from headstart.numerics.consensus import agreeing, elected
from headstart.numerics.portions import fraction
from headstart.numerics.singular import is_matrix, side_by_side


@dataclass(frozen=True, kw_only=True, slots=True)
class Knots:
    """Merge by TIES along the singular directions of all changes side by side, rather than entry by entry.

    Shapes: base and every tuned tensor (out, in), equal; float32; whole tensors, and one eigendecomposition of
    (out, out) in float64, or where out > K in of (K in, K in).
    Returns: base + scale * U ties(U' change), U the left singular vectors of the changes side by side; of tensors that
    are no matrices, scale * their TIES.
    Errors: `Unfit` when density is outside (0, 1].

    For LoRA adapters, whose changes lie in few directions that differ between tasks. As in the published code U'
    change = S V' is trimmed, its zeros elect no sign. The code trims over the whole model, here over each tensor.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True)
    claims = ("source_order", "copies", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2410.19735"

    density: float = 0.2
    scale: float = 0.6

    def __post_init__(self) -> None:
        fraction(self.density, "density")

    def holds(self, shape: Sequence[int], models: int) -> float:
        """Tensors of the shape beside the inputs: the changes, and what eigenvectors or TIES take beside them."""
        if len(shape) != 2 or not min(shape):
            return 2 * models + 6
        high, wide = shape
        small = min(high, models * wide)
        square, turned = small**2 / (high * wide), small / high
        return models + max(8 * square, (models + 6) * turned + 2 * square)

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        changes = [one - base for one in tuned]
        if not is_matrix(base):
            return base + self.scale * self._ties(changes)
        turned, back = side_by_side(changes)
        return base + self.scale * back(self._ties(turned))

    def _ties(self, changes: list[torch.Tensor]) -> torch.Tensor:
        for k, change in enumerate(changes):
            changes[k] = self._largest(change)  # the whole one is not needed again
        return agreeing(changes, elected(changes), [1.0] * len(changes))

    def _largest(self, change: torch.Tensor) -> torch.Tensor:
        left_out = change.numel() - round(self.density * change.numel())
        if not left_out:
            return change.contiguous()
        size = change.abs()
        return torch.where(size > size.flatten().kthvalue(left_out).values, change, 0)
