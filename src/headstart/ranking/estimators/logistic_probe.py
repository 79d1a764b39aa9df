"""Logistic probe: the log-likelihood of held-out rows under logistic regression on the features.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.held_out import cells
from headstart.numerics.inner import first_seen
from headstart.numerics.linear import chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class LogisticProbe:
    """Mean log-likelihood of held-out rows under L2 logistic regression.

    Shapes: features (N, D); two float64 copies of a fold's training rows; with N < D the fit stays in their span. One
    path of warm-started fits for each fold and inner fold.
    Returns: nats a row, 0 at best; losses (N,) minus that, a mean over labels where a row has several, NaN for rows in
    no fold.
    Errors: `Unfit` when no row is in a fold.

    The same fit as the linear probe that would be adapted, with standardised features and the strength chosen on inner
    folds of the training rows; so the closest proxy of it, and the slowest here. A probability is floored at 1 / (2 +
    training rows), so that no single row decides.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:1610.01644"

    # C as in scikit-learn, the inverse of the L2 penalty on standardised features
    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0:
            raise Unfit(
                f"strengths {self.strengths} are not all above 0",
                where="LogisticProbe(strengths=…)",
                fix="give at least one above 0, such as 1",
            )

    def __call__(self, view: View) -> Score:
        features, several = view.features, view.task == "multi_label"
        # inner folds are dealt class by class: in the order in which classes come, and not in that of their names
        labels = np.asarray(view.labels) if several else first_seen(np.asarray(view.labels))
        losses = np.full(len(labels), np.nan)
        for train, valid in cells(view.folds):
            probe = chosen(
                features[train],
                labels[train],
                view.classes,
                [str(i) for i in train],
                "sigmoid" if several else "softmax",
                self.strengths,
            )
            told = probe.head(features[valid])
            if several:
                told = np.where(labels[valid] > 0, told, 1 - told)
            else:
                told = told[np.arange(len(valid)), labels[valid]][:, None]
            losses[valid] = -np.log(np.maximum(told, 1 / (2 + len(train)))).mean(axis=1)
        return Score(-float(np.nanmean(losses)), losses)
