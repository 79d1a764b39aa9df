"""WiSE-FT: go back part of the way from a fine-tune to its base.

Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext
from headstart.numerics.portions import fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class WiseFt:
    """A point between a base and its fine-tune: often better than both where the data shift.

    Shapes: any; tiles, memory independent of the model.
    Returns: (1 - alpha) * base + alpha * fine-tune.
    Errors: `Unfit` when alpha is outside [0, 1].
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, most=1)
    claims = ("one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2109.01903"

    alpha: float = 0.5

    def __post_init__(self) -> None:
        fraction(self.alpha, "alpha", zero=True)

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context, inner
        return Coefficients(np.array([[self.alpha]]), of="changes")
