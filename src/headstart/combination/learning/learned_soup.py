"""Learned soup: the weights of an average of models, learned on labelled rows by gradients.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022, appendix on learned soups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Steps, Unfit
from headstart.numerics.learning import Descent, draws, gradient, loss, slopes


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedSoup:
    """Learn how much of each model an average takes, by the loss on labelled rows.

    Shapes: models M; with `by_tensor` (T, M) weights; one model is alive, with gradients of its size.
    Returns: shares that are above 0 and sum to one; without a step, equal ones.
    Errors: `Unfit` for settings out of range.

    A scale of the logits is learned beside the weights, as in the paper, so that averages may be less sure without
    being punished; it is in the facts and changes no label.
    """

    needs = Needs(gives=("weights", "gradients"))
    claims = ("source_order", "agreement", "one_model", "objective_falls", "shares_sum_to_one")
    cites = "arXiv:2203.05482"

    by_tensor: bool = False
    steps: int = 100
    batch: int = 32  # rows of each task
    learning_rate: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch < 1:
            raise Unfit(
                f"steps={self.steps}, batch={self.batch} cannot be", where="LearnedSoup(…)", fix="use 100 and 32"
            )

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        shape = (len(view.tensors), len(view.models))
        start = np.zeros((shape[0] if self.by_tensor else 1, shape[1] + 1))  # the last column is the logits' scale
        descent = Descent(start, partial(torch.optim.Adam, lr=self.learning_rate))
        batches = [draws(view.rows(t), self.batch, self.seed + t) for t in range(len(view.tasks))]
        curve = []
        for step in range(self.steps if steps.horizon is None else steps.horizon):
            chosen, portions = [next(b) for b in batches], _portions(descent.values[:, :-1])
            scale = torch.tensor(descent.values[:, -1].mean(), dtype=torch.float32, requires_grad=True)
            value, slope = gradient(
                view, view.shared(np.broadcast_to(portions, shape)), chosen,
                lambda t, logits: loss(  # used at once
                    logits * scale.exp() if view.link(t) != "identity" else logits,  # noqa: B023
                    view.labels(t, chosen[t]), view.link(t),  # noqa: B023
                ),
            )  # fmt: skip
            found = slopes(view, slope)
            found = found if self.by_tensor else found.sum(0, keepdims=True)
            down = portions * (found - (portions * found).sum(1, keepdims=True))  # through the softmax
            stretch = float(scale.grad) if scale.grad is not None else 0.0
            descent.step(np.column_stack([down, np.full(len(down), stretch)]))
            curve.append((step, value))
        shares = np.broadcast_to(_portions(descent.values[:, :-1]), shape).copy()
        return Learned(shares, curve=tuple(curve), facts={"logit_scale": float(np.exp(descent.values[:, -1].mean()))})


def _portions(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    grown = np.exp(values - values.max(1, keepdims=True))
    found: np.ndarray[Any, Any] = grown / grown.sum(1, keepdims=True)
    return found
