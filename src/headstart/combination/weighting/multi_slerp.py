"""Multi-SLERP: the weighted mean direction of several models.

Goddard, mergekit's `multislerp`, 2024. Its way over the tangent space ends, for weights that sum to one, at the
normalised mean of the directions: the weighted tangents at that point sum to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext, Unfit
from headstart.numerics.portions import each, summing_to_one
from headstart.numerics.sphere import mean_direction


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiSlerp:
    """The mean direction of several models' changes, as long as they are on average; without a base, of the models.

    Shapes: any; two passes of tiles, memory independent of the model.
    Returns: base + (sum of w_k |change_k|) * the direction of the sum of w_k change_k / |change_k|.
    Errors: `Unfit` when the weights sum to nothing, or when more than two directions cancel.
    """

    needs = Needs(gives=("weights",), labels=False)
    claims = ("source_order", "agreement", "sign_symmetry", "one_model")
    cites = "https://github.com/arcee-ai/mergekit"

    weights: tuple[float, ...] = ()  # one a model; none are equal ones

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        weights = summing_to_one(each(self.weights, inner.models, "weights"))
        products = inner.changes()[0]
        found = mean_direction(products, weights)
        if found is None and products.any() and inner.models > 2:
            raise Unfit(
                f"the directions of {inner.models} models cancel",
                where=f"`multi_slerp` of tensor `{context.name}`",
                fix="use other weights, or `linear`",
            )
        return Coefficients((weights if found is None else np.asarray(found))[None], of="changes")
