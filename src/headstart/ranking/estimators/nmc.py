"""Nearest class mean: how often a held-out row lies nearest to the mean of its own class.

Mensink et al., "Distance-based image classification: Generalizing to new classes at near-zero cost", TPAMI 2013.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.held_out import cells
from headstart.numerics.moments import Array, Moments


@dataclass(frozen=True, kw_only=True, slots=True)
class NMC:
    """Accuracy of the nearest class mean on held-out folds.

    Shapes: features (N, D); class sums (C, D) float64 by fold, subtracted from the whole; time O(N·D·C), no Gram.
    Returns: share of scored rows that are right, each row counting once; losses (N,) 0 or 1 (several labels a row: the
    share of labels that are wrong), NaN for rows in no fold.
    Errors: `Unfit` when no row is in a fold.

    Well-defined with one row a class. It misleads where classes differ in spread, or where directions that do not
    matter have most of the variance; `lda` weighs those.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "doi:10.1109/TPAMI.2013.83"

    def __call__(self, view: View) -> Score:
        features, labels = view.features, view.labels
        whole = view.class_moments
        losses = np.full(len(features), np.nan)
        for _, valid in cells(view.folds):
            train = whole - Moments.of(features[valid], labels[valid], view.classes, gram=False)
            u = np.subtract(features[valid], train.shift, dtype=np.float64)
            if view.task == "multi_label":
                nearer = self._nearness(u, train.sums, train.counts) > self._nearness(
                    u, train.total - train.sums, train.rows - train.counts
                )
                losses[valid] = (nearer != (labels[valid] > 0)).mean(axis=1)
            else:
                losses[valid] = self._nearness(u, train.sums, train.counts).argmax(axis=1) != labels[valid]
        return Score(1 - float(np.nanmean(losses)), losses)

    def _nearness(self, u: Array, sums: Array, counts: Array) -> Array:
        """(rows, C) squared distance to each mean, negated, less what all share; -inf where a class has no rows."""
        means = sums / np.maximum(counts, 1.0)[:, None]
        nearness = 2 * u @ means.T - np.square(means).sum(axis=1)
        return np.where(counts > 0.5, nearness, -np.inf)
