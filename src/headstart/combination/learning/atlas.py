"""aTLAS: every tensor of every change has a coefficient of its own, learned from a few labelled rows.

Zhang, Albert, Rodriguez-Opazo, van den Hengel and Abbasnejad, "Knowledge Composition using Task Vectors with Learned
Anisotropic Scaling", NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import ceil

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Steps, Unfit
from headstart.numerics.learning import Descent, draws, gradient, loss, slopes


@dataclass(frozen=True, kw_only=True, slots=True)
class Atlas:
    """Learn shares of the models, one a tensor, by the loss on labelled rows; the base is where it begins.

    Shapes: tensors T, models M, shares (T, M); one model is alive, with gradients of its size; changes are read one by
    one.
    Returns: the shares; without a step, zeros: the base.
    Errors: `Unfit` for settings out of range.

    Made for a target that none of the models was tuned for: with T times M numbers to learn it takes few rows. The
    paper's finer form, where a tensor is cut at random into parts with a share each, is not here.
    """

    needs = Needs(gives=("weights", "gradients"), same_base=True)
    claims = ("objective_falls", "finds_the_task")
    cites = "arXiv:2407.02880"

    epochs: int = 10
    batch: int = 32  # rows of each task
    least_steps: int = 100  # where ten epochs of few rows are fewer
    learning_rate: float = 0.1
    weight_decay: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1 or self.least_steps < 0:
            raise Unfit(
                f"epochs={self.epochs}, batch={self.batch}, least_steps={self.least_steps} cannot be",
                where="Atlas(…)",
                fix="use epochs and least_steps from 0, batch from 1",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        rows = max(view.rows(t) for t in range(len(view.tasks)))
        horizon = max(self.least_steps, self.epochs * ceil(rows / self.batch))
        horizon = horizon if steps.horizon is None else steps.horizon
        adam = partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=self.weight_decay)
        descent = Descent(np.zeros((len(view.tensors), len(view.models))), adam)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(descent.optimiser, max(1, horizon))
        batches = [draws(view.rows(t), self.batch, self.seed + t) for t in range(len(view.tasks))]
        curve = []
        for step in range(horizon):
            chosen = [next(b) for b in batches]
            value, slope = gradient(
                view, view.shared(descent.values), chosen,
                lambda t, logits: loss(logits, view.labels(t, chosen[t]), view.link(t)),  # noqa: B023  # used at once
            )  # fmt: skip
            descent.step(slopes(view, slope), longest=1.0)
            falling.step()
            curve.append((step, value))
        return Learned(descent.values, curve=tuple(curve))
