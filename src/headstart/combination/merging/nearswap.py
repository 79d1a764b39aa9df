"""NearSwap: take from another model what is nearly what the base has.

alchemonaut, "QuartetAnemoi-70B-t0.0001", 2024; mergekit's `nearswap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext, Unfit

LEAST_GAP = 1e-6  # below this two entries count as this far apart


@dataclass(frozen=True, kw_only=True, slots=True)
class NearSwap:
    """Go from the base to another model in the entries where they are near, and the less the further they are.

    Shapes: base and the tuned tensor (…), equal; float32; tiles.
    Returns: base + w * (other - base), with w = t / |other - base|, at most 1.
    Errors: `Unfit` when t is below 0.

    No entry moves by more than t. For two models that were trained apart: the base keeps its character.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, most=1)
    claims = ("one_model", "scale_zero", "sign_symmetry")
    cites = "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001"

    t: float = 0.0001  # in units of the weights

    def __post_init__(self) -> None:
        if self.t < 0:
            raise Unfit(f"t is {self.t}, and no entry moves by less than 0", where=f"`t={self.t}`", fix="use t=0.0001")

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        change = tuned[0] - base
        return base + change * (self.t / change.abs().clamp_min(LEAST_GAP)).clamp_max(1)
