"""AdaMerging: how much of each change is taken, found where predictions on unlabelled rows are surest.

Yang, Wang, Shen, Liu, Guo, Wang and Tao, "AdaMerging: Adaptive Model Merging for Multi-Task Learning", ICLR 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Steps, Unfit
from headstart.numerics.consensus import elected
from headstart.numerics.learning import Descent, draws, entropy, gated, gradient, slopes
from headstart.numerics.masks import largest


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaMerging:
    """Learn shares of the models, one a tensor or one a model, by the least entropy of predictions.

    Shapes: tensors T, models M, shares (T, M); one model is alive, with gradients of its size; changes are read one by
    one.
    Returns: the shares; without a step, task arithmetic with the start as its scale.
    Errors: `Unfit` for settings out of range, and for tasks whose predictions are numbers.

    Reads no labels. The published runs learn on the rows that they test on; here the rows are those given to learn
    from. With few classes or rows in one class, entropy may fall by naming one class for all: `balance` above 0 rewards
    classes that are named equally often.

    With a density, such as 0.2, it is AdaMerging++: of each model's changes the largest take part, and of these the
    ones with the sign that TIES elects.
    """

    needs = Needs(gives=("weights", "gradients"), tasks=("single_label", "multi_label"), labels=False, same_base=True)
    claims = ("source_order", "agreement", "one_model", "scale_zero", "objective_falls")
    cites = "arXiv:2310.02575"

    per: Literal["tensor", "model"] = "tensor"
    start: float = 0.3
    steps: int = 500
    batch: int = 16  # rows of each task
    learning_rate: float = 1e-3
    most: float = 1.0  # shares stay between 0 and this
    balance: float = 0.0
    density: float | None = None  # share of each model's changes that take part; None is all, whatever their signs
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per not in ("tensor", "model") or self.steps < 0 or self.batch < 1 or not 0 <= self.start <= self.most:
            raise Unfit(
                f"per={self.per}, steps={self.steps}, batch={self.batch}, start={self.start} cannot be",
                where="AdaMerging(…)",
                fix="use per=tensor or model, steps from 0, batch from 1, and a start between 0 and `most`",
            )
        if self.density is not None and not 0 < self.density <= 1:
            raise Unfit(
                f"density {self.density} is no share", where="AdaMerging(density=…)", fix="use 0.2, or none for all"
            )

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        spread = np.full((len(view.tensors), len(view.models)), self.start)
        descent = Descent(
            spread if self.per == "tensor" else spread[:1], partial(torch.optim.Adam, lr=self.learning_rate)
        )
        gates = {} if self.density is None else _trimmed(view, self.density)
        batches = [draws(view.rows(t), self.batch, self.seed + t) for t in range(len(view.tasks))]
        curve = []
        for step in range(self.steps if steps.horizon is None else steps.horizon):
            shares = np.broadcast_to(descent.values, spread.shape)
            value, slope = gradient(
                view,
                gated(view, shares, gates),
                [next(b) for b in batches],
                lambda t, logits: self._objective(view, t, logits),
            )
            found = slopes(view, slope, gates)
            descent.step(found if self.per == "tensor" else found.sum(0, keepdims=True))
            descent.clamp(0.0, self.most)
            curve.append((step, value))
        return Learned(np.broadcast_to(descent.values, spread.shape).copy(), gates, curve=tuple(curve))

    def _objective(self, view: MergeView, task: int, logits: torch.Tensor) -> torch.Tensor:
        value = entropy(logits, view.link(task))
        if not self.balance or view.link(task) != "softmax":
            return value
        named = torch.softmax(logits, 1).mean(0)
        return value + self.balance * (named * named.clamp_min(1e-12).log()).sum()


def _trimmed(view: MergeView, density: float) -> dict[str, np.ndarray[Any, Any]]:
    """(models, …) of each tensor: whether a change is among its model's largest, and has the elected sign."""
    kept = []
    for model in range(len(view.models)):
        sizes = {n: view.changes(n)[model].abs() for n in view.tensors}
        kept.append(largest(sizes, round(density * sum(s.numel() for s in sizes.values()))))
    out = {}
    for name in view.tensors:
        left = [k[name] * change for k, change in zip(kept, view.changes(name), strict=True)]
        sign = elected(left)
        out[name] = np.stack([((c != 0) & (torch.sign(c) == sign)).numpy() for c in left])
    return out
