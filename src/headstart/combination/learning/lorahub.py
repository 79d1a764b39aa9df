"""LoraHub: one coefficient a model, found without gradients on a few labelled rows.

Huang, Liu, Lin, Pang, Du and Lin, "LoraHub: Efficient Cross-Task Generalization via Dynamic LoRA Composition",
COLM 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Learned, MergeView, Needs, Steps, Unfit
from headstart.numerics.blind_search import minimised
from headstart.numerics.learning import mean_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraHub:
    """Search one share a model, by the loss on labelled rows and a price on large shares.

    Shapes: models M, shares (T, M), equal in all tensors; one model is alive, without gradients; `trials` passes over
    the rows.
    Returns: the best shares that were tried; zeros, the base, are tried first.
    Errors: `Unfit` for settings out of range.

    Changes are added whole. The published code sums the two factors of adapters each by itself, which mixes one
    adapter's left factor with another's right one, and divides the mean loss by the number of rows, so that its price
    weighs the more, the more rows there are.
    """

    needs = Needs(
        gives=("weights", "predictions"), tasks=("single_label", "multi_label", "regression"), same_base=True,
        extras=(("cmaes", "search"), ("optuna", "search")),
    )  # fmt: skip
    claims = ("scale_zero", "objective_falls", "finds_the_task")
    cites = "arXiv:2307.13269"

    trials: int = 40
    most: float = 1.5  # shares lie between -most and most
    price: float = 0.05  # on the mean size of the shares
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 0 or not self.most > 0 or self.price < 0:
            raise Unfit(
                f"trials={self.trials}, most={self.most}, price={self.price} cannot be",
                where="LoraHub(…)",
                fix="use 40, 1.5 and 0.05",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        shape = (len(view.tensors), len(view.models))

        def cost(shares: dict[str, float]) -> float:
            values = np.array([shares[f"{m}"] for m in range(shape[1])])
            return mean_loss(view, view.shared(np.broadcast_to(values, shape))) + self.price * float(
                np.abs(values).mean()
            )

        space = {f"{m}": (-self.most, self.most) for m in range(shape[1])}
        trials = self.trials if steps.horizon is None else steps.horizon
        best, curve = minimised(cost, space, dict.fromkeys(space, 0.0), trials, self.seed)
        values = np.array([best[f"{m}"] for m in range(shape[1])])
        return Learned(np.broadcast_to(values, shape).copy(), curve=curve)
