"""Model Stock: between the base and the mean of fine-tunes, as their angles tell.

Jang, Yun and Han, "Model Stock: All we need is just a few fine-tuned models", ECCV 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext
from headstart.numerics.sphere import unit

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelStock:
    """The point on the line from the base to the mean that is nearest to the centre of all such fine-tunes.

    Shapes: any; two passes of tiles; with per="row", (rows, models, models) float64 beside.
    Returns: base + t * the mean change, t = K cos / (1 + (K - 1) cos), with cos the mean cosine of two changes.
    Where they point away from each other t would leave [0, 1], and the base stays; with beyond it may, as in mergekit.
    Errors: none of its own.

    For fine-tunes that differ in seed or settings, not in task. Where nothing changed, the base stays.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, fewest=2)
    claims = ("source_order", "agreement", "copies", "sign_symmetry")
    cites = "arXiv:2403.19522"

    per: Literal["tensor", "row"] = "tensor"
    beyond: bool = False

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context
        return Coefficients(np.stack([self._share(p) for p in inner.changes(self.per)]), "changes", self.per)

    def _share(self, products: Array) -> Array:
        models = len(products)
        directions, _ = unit(products)
        cosine = float((directions.sum() - np.trace(directions)) / (models * (models - 1)))
        divisor = 1 + (models - 1) * cosine
        real = cosine > 0 or (self.beyond and abs(divisor) >= 1e-6)
        return np.full(models, cosine / divisor if real else 0.0)
