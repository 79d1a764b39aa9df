"""Karcher mean: the centre of several models on a sphere.

Karcher, "Riemannian center of mass and mollifier smoothing", Communications on Pure and Applied Mathematics 1977; for
weights, arXiv:2603.04972.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext
from headstart.numerics import sphere


@dataclass(frozen=True, kw_only=True, slots=True)
class Karcher:
    """The direction that is nearest to all models along the sphere, as long as they are on average.

    Shapes: any; two passes of tiles: the iterations need inner products alone.
    Returns: the mean, tensor by tensor; zero tensors have no direction, and count for the length alone.
    Errors: none of its own.

    Of two models of equal length it is the middle of their arc.
    """

    needs = Needs(gives=("weights",), labels=False)
    claims = ("source_order", "agreement", "copies", "one_model", "base_is_left_out")
    cites = "doi:10.1002/cpa.3160300502"

    steps: int = 10
    tolerance: float = 1e-5  # radians

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context
        return Coefficients(sphere.karcher(inner.weights()[0], self.steps, self.tolerance)[None])
