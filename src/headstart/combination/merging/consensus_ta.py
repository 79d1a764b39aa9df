"""Consensus merging: leave out the entries that fewer than two tasks use.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression", ICML 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext, Unfit


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsensusTa:
    """Add what fine-tunes changed, in the entries that enough of them use by their TALL masks.

    Shapes: base and every tuned tensor (…), equal; float32; tiles.
    Returns: base + scale * the sum of the changes where `least` tasks or more use the entry, the base elsewhere.
    Errors: `Unfit` when strictness is below 0 or least below 0.

    A task uses an entry where its change is larger than strictness times what the sum of all changes is off from it.
    least=2 leaves out what no task uses (catastrophic) and what one task alone does (selfish), 1 the former. Of fewer
    models than `least` all must use it. The paper chooses strictness from 0.2 to 0.6, and the scale, on validation
    rows.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "copies_of_a_sum", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2405.07813"

    strictness: float = 0.6
    least: int = 2
    scale: float = 0.3

    def __post_init__(self) -> None:
        for name, value in (("strictness", self.strictness), ("least", self.least)):
            if value < 0:
                raise Unfit(f"{name} is {value}, below 0", where=f"`{name}={value}`", fix="use 0.6 and 2, or leave it")

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        total, used = torch.zeros_like(base), torch.zeros_like(base)
        for one in tuned:
            total += one - base
        for one in tuned:
            change = one - base
            used += change.abs() > self.strictness * (total - change).abs()
        return base + self.scale * total * (used >= min(self.least, len(tuned)))
