"""Multi-SLERP: the weighted mean direction of several models.

Goddard, mergekit's `multislerp`, 2024. Its way over the tangent space ends, for weights that sum to one, at the
normalised mean of the directions: the weighted tangents at that point sum to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext
from headstart.numerics.portions import each, summing_to_one
from headstart.numerics.sphere import mean_direction


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiSlerp:
    """The mean direction of several models' changes, as long as they are on average; without a base, of the models.

    Shapes: any; two passes of tiles, memory independent of the model.
    Returns: base + (sum of w_k |change_k|) * the direction of the sum of w_k change_k / |change_k|.
    Errors: `Unfit` when the weights sum to nothing and should sum to one.

    Where the directions cancel, as those of single numbers may, there is no mean direction, and the mean is taken.
    """

    needs = Needs(gives=("weights",), labels=False)
    claims = ("source_order", "agreement", "copies", "one_model", "sign_symmetry")
    cites = "https://github.com/arcee-ai/mergekit"

    weights: tuple[float, ...] = ()  # one a model; none are equal ones
    normalize: bool = True  # weights sum to one

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context
        weights = each(self.weights, inner.models, "weights")
        if self.normalize:
            weights = summing_to_one(weights)
        products = inner.changes()[0]
        found = mean_direction(products, weights)
        return Coefficients((weights if found is None else found)[None], of="changes")
