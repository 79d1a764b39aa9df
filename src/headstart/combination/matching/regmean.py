"""RegMean: linear layers whose outputs are nearest to every model's own, on its own inputs.

Jin, Ren, Preotiuc-Pietro and Cheng, "Dataless Knowledge Fusion by Merging Weights of Language Models", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, Passes, Seen, TensorContext, Unfit
from headstart.numerics.matching import regression


@dataclass(frozen=True, kw_only=True, slots=True)
class RegMean:
    """Merge linear layers by least squares on what goes into them; all other tensors are averaged.

    Shapes: a linear weight (out, in), or (in, out) where it is stored so; float32 in, float32 out; Gram matrices
    (in, in) of all models; solved in float64; peak about 10 copies of a tensor.
    Returns: the minimiser of the sum over models of |X (W - model)|² with shrunken Gram matrices X'X.
    Errors: `Unfit` where shrink is no fraction.

    Gram matrices are means over tokens, so that no task wins by its length.
    """

    needs = Needs(gives=("weights", "features"), labels=False, whole_tensors=True, copies=10)
    claims = ("source_order", "agreement", "one_model", "equal_passes_give_the_mean")
    cites = "arXiv:2212.09849"

    # what is kept off the diagonals: at 0 every input stands alone, at 1 the Gram matrix is whole
    shrink: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.shrink <= 1:
            raise Unfit(f"shrink {self.shrink} is no fraction", where="RegMean(shrink=…)", fix="use 0.95")

    @property
    def asks(self) -> tuple[Seen, ...]:
        return ("inputs",)

    def __call__(
        self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor], passes: Sequence[Passes]
    ) -> torch.Tensor:
        del context, base
        return regression(tuned, passes, self.shrink)
