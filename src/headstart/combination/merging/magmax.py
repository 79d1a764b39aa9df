"""MagMax: of each entry, the largest change.

Marczak et al., "MagMax: Leveraging Model Merging for Seamless Continual Learning", ECCV 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext


@dataclass(frozen=True, kw_only=True, slots=True)
class MagMax:
    """Take of every entry the change that is largest in size, whichever model made it.

    Shapes: base and every tuned tensor (…), equal; float32; tiles.
    Returns: base + scale * the largest changes; of equal sizes the later model's.
    Errors: none of its own.

    For fine-tunes of one task after the other: what a later task did not touch stays.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("agreement", "copies", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2407.06322"

    scale: float = 0.5

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        largest = torch.zeros_like(base)
        for one in tuned:
            change = one - base
            largest = torch.where(change.abs() >= largest.abs(), change, largest)
        return base + self.scale * largest
