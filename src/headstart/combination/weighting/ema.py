"""EMA: checkpoints of one run, the later the more.

Li et al., "Model Merging in Pre-training of Large Language Models", 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Coefficients, InnerProducts, Needs, TensorContext, Unfit


@dataclass(frozen=True, kw_only=True, slots=True)
class Ema:
    """Exponential moving average of checkpoints, given from the first to the last.

    Shapes: any; tiles, memory independent of the model.
    Returns: after each checkpoint, momentum * the average so far + (1 - momentum) * the checkpoint; it starts from the
    first one, so nothing pulls it towards zero.
    Errors: `Unfit` when momentum is outside [0, 1).
    """

    needs = Needs(gives=("weights",), labels=False)
    claims = ("agreement", "copies", "one_model", "sign_symmetry", "base_is_left_out")
    cites = "arXiv:2505.12082"

    momentum: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise Unfit(
                f"momentum is {self.momentum}, and a number in [0, 1) is meant",
                where="Ema(momentum=…)",
                fix="use 0.8; 0 takes the last checkpoint alone",
            )

    def __call__(self, context: TensorContext, inner: InnerProducts) -> Coefficients:
        del context
        late = np.arange(inner.models)
        weights = (1 - self.momentum) * self.momentum ** (inner.models - 1 - late)
        weights[0] = self.momentum ** (inner.models - 1)
        return Coefficients(weights[None])
