"""RegMean++: linear layers whose outputs are nearest to every model's own, on what the merged layers before them give.

Nguyen, Dang, Suzuki and Nguyen, "RegMean++: Enhancing Effectiveness and Generalization of Regression Mean for Model
Merging", TMLR 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, Passes, Seen, TensorContext, Unfit
from headstart.numerics.matching import regression


@dataclass(frozen=True, kw_only=True, slots=True)
class RegMeanPlusPlus:
    """Merge linear layers by least squares on what will go into them, layer by layer; all other tensors are averaged.

    Shapes: a linear weight (out, in), or (in, out) where it is stored so; float32 in, float32 out; Gram matrices
    (in, in) of all models; solved in float64; peak about 10 copies of a tensor.
    Returns: the minimiser of the sum over models of |X (W - model)|² with shrunken Gram matrices X'X.
    Errors: `Unfit` where shrink is no fraction.

    RegMean looks at inputs that no layer but the first has once the ones before it are merged; here they are merged
    first, and rows go through every model once for each of its layers. Inside a layer inputs are the model's own. In a
    network of one layer it is RegMean. Gram matrices are means over tokens, so that no task wins by its length.
    """

    needs = Needs(gives=("weights", "features"), labels=False, whole_tensors=True, copies=10)
    claims = ("source_order", "agreement", "one_model", "equal_passes_give_the_mean")
    cites = "arXiv:2508.03121"

    # what is kept off the diagonals: at 0 every input stands alone, at 1 the Gram matrix is whole
    shrink: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.shrink <= 1:
            raise Unfit(f"shrink {self.shrink} is no fraction", where="RegMeanPlusPlus(shrink=…)", fix="use 0.95")

    @property
    def asks(self) -> tuple[Seen, ...]:
        return ("merged_inputs",)

    def __call__(
        self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor], passes: Sequence[Passes]
    ) -> torch.Tensor:
        del context, base
        return regression(tuned, passes, self.shrink)
