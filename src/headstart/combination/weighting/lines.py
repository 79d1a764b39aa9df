"""LiNeS: scale what fine-tunes changed by how deep it lies.

Wang et al., "LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging", ICLR 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """Add the changes of fine-tunes, little in the first layers, which are general, and more in the last.

    Shapes: any; tiles, memory independent of the model.
    Returns: base + (shallow + rise * depth) * the sum of the changes, depth 0 in the first layer and 1 in the last;
    what lies outside layers is scaled as the first.
    Errors: none of its own.

    Of one fine-tune it undoes forgetting: with shallow=0.5 and rise=0.5 the last layer stays, and the first goes
    halfway back to the base. Both want validation rows.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "agreement", "copies", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2410.17146"

    shallow: float | None = None  # None is 1 / models
    rise: float = 0.5

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        shallow = 1 / inner.models if self.shallow is None else self.shallow
        factor = shallow + self.rise * (context.depth or 0.0)
        return Coefficients(np.full((1, inner.models), factor), of="changes")
