"""A small convolutional network trained from scratch on the target's own images.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 1998; with
batch normalisation (Ioffe and Szegedy, ICML 2015) and AdamW (Loshchilov and Hutter, ICLR 2019), which are younger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.numerics.artifacts import Table
from headstart.numerics.network_fit import fit_network
from headstart.numerics.steps import apply, constant, features, prior, spread
from headstart.numerics.steps_image import pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class SmallCnn:
    """Three convolutions and a linear layer, trained from random weights on small images.

    Shapes: images (N, side, side) in grey, or in colour where a training image has one; about 24,000 weights, float32.
    Returns: a `Table`: `pixels` and `network`. State: weights, batch statistics and Adam's moments.
    Errors: `Unfit` for settings outside their range.

    Images are moved by up to two pixels while training, and never mirrored: letters and signs have a right side. The
    schedule is fixed (one cycle of a cosine after a short rise); it does not stop early.
    """

    needs = Needs(tasks=("single_label", "multi_label", "regression"), modalities=("image",))
    claims = ("learns_separable", "goes_on", "numbers_in_their_unit")
    cites = "doi:10.1109/5.726791"

    side: int = 32
    widths: tuple[int, ...] = (16, 32, 64)
    epochs: int = 20  # of the default schedule, within `least` and `most` steps
    least: int = 150
    most: int = 600
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        whole = min(self.epochs, self.least, self.batch - 1, *self.widths, self.side >> len(self.widths))
        if whole < 1 or self.most < self.least or not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise Unfit(
                f"the side is halved {len(self.widths)} times, batches hold 2 rows or more, the rest is positive; "
                f"these are {self}",
                where="SmallCnn(side=…, widths=…, batch=…)",
                fix="leave out what you do not need to change",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:
        labels, rows = view.train.labels, len(view.train)
        present = np.unique(labels) if view.task == "single_label" else np.arange(max(view.classes, 1))
        if rows < 2 or (view.task == "single_label" and len(present) < 2):
            flat = Table((constant(prior(labels, view.task, view.classes)),))
            return Fitted(flat, apply(flat, view.valid))
        read = pixels(view.train, self.side)
        horizon = steps.horizon or min(self.most, max(self.least, self.epochs * math.ceil(rows / self.batch)))
        fit = fit_network(
            features([read], view.train),
            np.searchsorted(present, labels) if view.task == "single_label" else labels,
            view.task,
            len(present),
            side=self.side,
            widths=self.widths,
            horizon=horizon,
            until=max(1, round(steps.until * horizon)),
            batch=self.batch,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            seed=view.seed,
            state=state,
        )
        table = Table((read, fit.step, *spread(present, max(view.classes, 1))))
        facts = {"steps": fit.state.step, "horizon": horizon}
        return Fitted(table, apply(table, view.valid), state=fit.state, curve=fit.curve, facts=facts)
