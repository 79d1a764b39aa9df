"""ATM: every task tunes the merged body a little, the changes are merged, and so on.

Zhou, Solombrino, Crisostomi, Bucarelli, D'Inverno, Silvestri and Rodolà, "ATM: Improving Model Merging by Alternating
Tuning and Merging", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch

from headstart.core import Looped, MergeView, Needs, Steps, Unfit
from headstart.numerics.learning import mean_loss
from headstart.numerics.loops import Tuner, check, lengths, moved


@dataclass(frozen=True, kw_only=True, slots=True)
class Atm:
    """Tune the body on each task for a few steps, move it by the mean of the changes, and begin again.

    Shapes: N weights of the body, tasks K; float32; the body, the sum of changes and one copy with its gradient are
    alive, with Adam two more of N; steps * K gradients a round, and one pass over all rows that measures the loss.
    Returns: body + alpha * mean of the changes, after the last round; after the first of `start="models"`, that is task
    arithmetic at the scale alpha / M, M models.
    Errors: `Unfit` for settings out of range and for losses that are no numbers any more.

    Rows of the tasks are never pooled. With one full-batch step of `sgd` each, a round is a step of multi-task learning
    on the mean loss. It refines a merge by rows that are few: these are learned from, so that figures on them say
    nothing. Every entry of a copy of the body is trained, in memory: no coefficients, and no model's own weights. Heads
    stay as they are, and the optimiser begins anew in every round.
    """

    needs = Needs(gives=("weights", "gradients"), same_base=True)
    claims = (
        "begins_as_task_arithmetic",
        "a_step_is_a_joint_step",
        "loss_falls",
        "one_model_is_itself",
        "source_order",
        "copies",
        "scale_zero",
    )
    cites = "arXiv:2411.03055"

    start: str = "models"
    rounds: int = 10
    # of each task in a round; None is one pass over its rows
    steps: int | None = None
    batch: int = 32  # rows of a step; 0 is all
    learning_rate: float = 2e-5
    optimiser: str = "adam"  # or sgd
    alpha: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check(
            "Atm(…)", rounds=self.rounds, steps=self.steps, batch=self.batch, optimiser=self.optimiser,
            learning_rate=self.learning_rate,
        )  # fmt: skip

    def __call__(self, view: MergeView, body: Mapping[str, torch.Tensor], steps: Steps) -> Looped:
        tuner = Tuner(
            view, optimiser=self.optimiser, learning_rate=self.learning_rate, batch=self.batch, seed=self.seed
        )
        tasks, first = range(len(view.tasks)), self.start == "models" and self.rounds > 0
        own = [self.steps or tuner.epoch(t) for t in tasks]
        rounds, each = lengths(steps.horizon, self.rounds - first, own)
        curve = [(0, mean_loss(view, body))]
        if first:
            body = view.shared(np.full((len(view.tensors), len(view.models)), self.alpha / len(view.models)))
            curve.append((1, mean_loss(view, body)))
        for number in range(len(curve), len(curve) + rounds):
            body = moved(body, (tuner.tuned(body, {t: 1.0}, each[t]) for t in tasks), self.alpha)
            curve.append((number, self._finite(mean_loss(view, body))))
        return Looped(body, curve=tuple(curve), facts={"rounds": len(curve) - 1, "steps": each})

    def _finite(self, value: float) -> float:
        if not isfinite(value):
            raise Unfit(
                "the loss is no number any more",
                where=f"Atm(learning_rate={self.learning_rate}, alpha={self.alpha})",
                fix=f"use smaller steps: --set learning_rate={self.learning_rate / 10:g}",
            )
        return value
