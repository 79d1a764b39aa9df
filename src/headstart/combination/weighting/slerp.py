"""SLERP: the arc between two models.

Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985; for weights, folklore.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext
from headstart.numerics.sphere import arc


@dataclass(frozen=True, kw_only=True, slots=True)
class Slerp:
    """A point on the arc between two models, tensor by tensor.

    Shapes: any; two passes of tiles, memory independent of the model.
    Returns: sin((1 - t) w) / sin w * first + sin(t w) / sin w * second, with w the angle between them; a straight line
    where |cos w| > straight. Lengths are as they are, so that the length of the result is not exactly between.
    Errors: none of its own.

    Fine-tunes of one base nearly always have a cosine above 0.9995: there it is `linear`. `nuslerp` with a base goes
    along the arc between their changes, which are not so alike.
    """

    needs = Needs(gives=("weights",), labels=False, fewest=2, most=2)
    claims = ("source_order", "agreement", "copies", "base_is_left_out")
    cites = "doi:10.1145/325334.325242"
    compares = "weights"

    t: float = 0.5
    straight: float = 0.9995

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context
        return Coefficients(arc(inner.weights()[0], self.t, self.straight)[None])
