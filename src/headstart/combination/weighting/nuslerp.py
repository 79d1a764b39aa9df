"""NuSLERP: the arc between what two models changed.

Goddard, mergekit's `nuslerp`, 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext
from headstart.numerics.portions import each
from headstart.numerics.sphere import arc


@dataclass(frozen=True, kw_only=True, slots=True)
class NuSlerp:
    """A point on the arc between the changes of two fine-tunes; without a base, between the models themselves.

    Shapes: any; two passes of tiles; with per="row" or "column", so many (2, 2) float64 beside.
    Returns: base + the point at t = second weight / sum of weights (0.5 where they sum to nothing).
    Errors: `Unfit` when there are not two weights.
    """

    needs = Needs(gives=("weights",), labels=False, fewest=2, most=2)
    claims = ("source_order", "agreement", "copies", "sign_symmetry")
    cites = "https://github.com/arcee-ai/mergekit"

    weights: tuple[float, ...] = ()  # two; none are equal ones
    per: Literal["tensor", "row", "column"] = "tensor"

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context
        weights = each(self.weights, inner.models, "weights")
        total = float(weights.sum())
        t = 0.5 if abs(total) < 1e-6 else float(weights[1]) / total
        # arcs of all angles: only where sin w is nothing the straight line takes over
        return Coefficients(np.stack([arc(p, t, 1 - 1e-16) for p in inner.changes(self.per)]), "changes", self.per)
