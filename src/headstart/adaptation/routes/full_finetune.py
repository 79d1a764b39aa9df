"""Full fine-tuning with layer-wise learning rates.

Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018 (rates that fall from layer
to layer); settings as in Clark et al., "ELECTRA", ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.execution import fit
from headstart.numerics.artifacts import Head, Model
from headstart.numerics.linear import prior


@dataclass(frozen=True, kw_only=True, slots=True)
class FullFinetune:
    """Train all weights and a new head, the lower layers more slowly.

    The head starts at the class prior (the mean, for numbers) with zero weights, so that nothing is random.

    Shapes: AdamW in float32: about 4 copies of the weights, and the activations of 4,096 tokens.
    Returns: a `Model`: all tensors of the encoder, and the head; facts: steps, horizon, rows.
    Errors: `Unfit` when a setting is out of its range, or `state` belongs to another schedule.

    For targets with many labels, or far from what the source was trained on. With few labels the new head distorts
    good features before it knows what it wants: `lp_ft` is then the better choice.
    """

    needs = Needs(gives=("features", "gradients", "weights"), tasks=("single_label", "multi_label", "regression"))
    claims = ("resumes", "learns_separable", "flat_head_only")
    cites = "arXiv:1801.06146"

    # of the head's neighbourhood; see layer_decay
    learning_rate: float = 1e-4
    # a layer at depth d below the head learns at learning_rate × layer_decay^d; 1 is flat, 0 trains the head alone
    layer_decay: float = 0.75
    # times learning_rate
    head_rate: float = 10.0
    # of matrices only
    weight_decay: float = 0.01
    # passes over the rows, where the caller gives no horizon; never fewer than 60 steps
    epochs: int = 6
    batch_rows: int = 16

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and 0 <= self.layer_decay <= 1 and self.epochs > 0 and self.batch_rows > 0):
            raise Unfit(
                f"learning_rate {self.learning_rate}, layer_decay {self.layer_decay}, epochs {self.epochs}, batch_rows "
                f"{self.batch_rows}: a rate above 0, a decay in [0, 1] and whole numbers above 0 are meant",
                where="FullFinetune(…)",
                fix="use the defaults: 1e-4, 0.75, 6 and 16",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:
        encoder, link = view.encoder, fit.LINKS[view.task]
        fit.unfreeze(encoder)

        def fresh(features: Any, labels: Any, ids: Sequence[str]) -> Head:
            del ids
            bias = prior(labels, view.classes, link).astype(np.float32)
            return Head(np.zeros((len(bias), features.shape[1]), dtype=np.float32), bias, link)

        recipe = fit.Recipe(
            learning_rate=self.learning_rate,
            layer_decay=self.layer_decay,
            head_rate=self.head_rate,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch_rows=self.batch_rows,
        )
        done = fit.train(encoder, view, fresh, recipe, state, steps)
        tensors = {n: t.detach().cpu().clone() for n, t in encoder.module.state_dict().items()}
        return Fitted(
            Model(tensors, done.head), done.predictions, done.state, done.curve, done.fraction, facts=done.facts
        )
