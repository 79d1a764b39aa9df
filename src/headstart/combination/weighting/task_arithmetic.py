"""Task arithmetic: add what fine-tunes changed.

Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext
from headstart.numerics.portions import each, summing_to_one


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskArithmetic:
    """Add the changes of several fine-tunes to their base, or take some away.

    Shapes: any; tiles, memory independent of the model.
    Returns: base + scale * the weighted sum of the changes (their weighted mean where `normalize` asks for it).
    Errors: `Unfit` when there is not one weight a model.

    A negative scale removes what one fine-tune learned. Weights 1, 1, -1 over the base C are the analogy C + A - B + …
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "copies", "copies_of_a_sum", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2212.04089"

    scale: float = 0.3
    weights: tuple[float, ...] = ()  # one a model; none are 1 each
    normalize: bool = False

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context
        weights = each(self.weights, inner.models, "weights")
        if self.normalize:
            weights = summing_to_one(weights)
        return Coefficients(self.scale * weights[None], of="changes")
