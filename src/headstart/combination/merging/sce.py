"""SCE: select where models differ, weigh by energy, erase what disagrees.

Wan et al., "FuseChat: Knowledge Fusion of Chat Models", EMNLP 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext
from headstart.numerics.consensus import agreeing, elected
from headstart.numerics.portions import fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Sce:
    """Merge the entries in which the changes vary most, each model by the share of its squared changes.

    Shapes: base and every tuned tensor (…), equal; float32; whole tensors: peak about models + 5 copies of one tensor.
    Returns: base + scale * the mean of the selected changes that have the elected sign, weighted by energy.
    Errors: `Unfit` when density is outside (0, 1].

    density: of the entries whose changes are not all equal, how many are selected. With one model, or models that are
    all equal, nothing varies, and everything is kept at density 1.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True)
    claims = ("source_order", "agreement", "copies", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2408.07990"

    density: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        fraction(self.density, "density")

    def holds(self, shape: Sequence[int], models: int) -> float:
        """Tensors of the shape beside the inputs: all changes, all of them weighted, and what one energy takes."""
        del shape
        return 2 * models + 3

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        changes = torch.stack([one - base for one in tuned])
        if self.density < 1:
            changes *= self._selected(changes)
        energy = torch.stack([change.double().square().mean() for change in changes])
        if not bool(energy.sum() > 0):
            return base.clone()
        share = (energy / energy.sum()).tolist()
        sign = elected(list(changes))
        weighted = [change * w for change, w in zip(changes, share, strict=True)]
        return base + self.scale * agreeing(weighted, sign, share, "weight")

    def _selected(self, changes: torch.Tensor) -> torch.Tensor:
        spread = changes.var(dim=0, correction=0).flatten()
        kept = int(self.density * int(spread.count_nonzero()))
        order = spread.argsort(descending=True, stable=True)
        mask = torch.zeros_like(spread, dtype=torch.bool)
        mask[order[:kept]] = True
        return mask.view(changes.shape[1:])
