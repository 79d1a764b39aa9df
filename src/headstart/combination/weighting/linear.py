"""Linear: the weighted mean of models.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext
from headstart.numerics.portions import each, summing_to_one


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """The weighted mean of the models; with equal weights a uniform soup.

    Shapes: any; tiles, memory independent of the model.
    Returns: the weights as they are, divided by their sum where `normalize` asks for it; the base does not enter.
    Errors: `Unfit` when there is not one weight a model, or when they sum to nothing.

    For fine-tunes of one base that differ in seed, settings or task: they lie in one basin. Means of models from
    different starts fall far below either.
    """

    needs = Needs(gives=("weights",), labels=False)
    claims = ("source_order", "agreement", "copies", "one_model", "sign_symmetry", "base_is_left_out")
    cites = "arXiv:2203.05482"

    weights: tuple[float, ...] = ()  # one a model; none are equal ones
    normalize: bool = True

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context
        weights = each(self.weights, inner.models, "weights")
        return Coefficients((summing_to_one(weights) if self.normalize else weights)[None])
