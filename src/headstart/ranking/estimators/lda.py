"""Linear discriminant analysis on held-out folds, with a shrunk covariance.

Fisher, "The use of multiple measurements in taxonomic problems", 1936; shrinkage of Ledoit and Wolf, "A
well-conditioned estimator for large-dimensional covariance matrices", 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.held_out import cells
from headstart.numerics.moments import Array, Moments, slices
from headstart.numerics.several_labels import label_by_label
from headstart.numerics.shrinkage import Shrunk

ROUNDING = 1e-10  # variance within classes, in units of the whole, that may be none: one row a class


@dataclass(frozen=True, kw_only=True, slots=True)
class LDA:
    """Accuracy of linear discriminant analysis on held-out folds.

    Shapes: features (N, D); N >= D: `view.moments` less each fold's, (D, D) float64, one Cholesky factor a fold; N < D:
    (N, N) kernels of the training rows. Memory O(min(N, D)²), plus O(N·D) when N < D.
    Returns: share of scored rows that are right, each row counting once; losses (N,) 0 or 1, NaN for rows in no fold.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no row is in a fold.

    Each feature is divided by its deviation over the fold's training rows (constant ones drop out); the pooled
    within-class covariance is then shrunk. In-sample it would be right on pure noise with many dimensions, so only
    rows that were not trained on count.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "doi:10.1016/S0047-259X(03)00096-4"

    # 0 to 1 towards a multiple of the identity; None for Ledoit and Wolf's
    shrinkage: float | None = None
    # rows of features that are in float64 at a time
    block: int = 4096

    def __post_init__(self) -> None:
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise Unfit(
                f"shrinkage {self.shrinkage} is not from 0 to 1",
                where="LDA(shrinkage=…)",
                fix="leave it out to have it estimated",
            )

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        features, labels = view.features, np.asarray(view.labels)
        by_width = features.shape[0] >= features.shape[1]
        whole = view.moments if by_width else view.class_moments
        losses = np.full(len(features), np.nan)
        for train, valid in cells(view.folds):
            moments = whole - Moments.of(features[valid], labels[valid], view.classes, gram=by_width)
            inverse = moments.inverse_deviation(whole)
            alive = np.flatnonzero(inverse)
            with np.errstate(divide="ignore"):  # a class without rows is never predicted
                scores = np.tile(np.log(np.round(moments.counts) / len(train)), (len(valid), 1))
            if len(alive):
                mean, inverse = moments.mean[alive], inverse[alive]
                seen = moments.counts[:, None] > 0.5
                centres = np.where(seen, moments.class_means[:, alive] - mean, 0.0) * inverse
                covariance = self._covariance(moments, features, labels, train, alive, centres, by_width)
                weights = covariance.solve(centres)
                scores += (features[np.ix_(valid, alive)] - mean) * inverse @ weights.T
                scores -= 0.5 * (centres * weights).sum(axis=1)
            losses[valid] = scores.argmax(axis=1) != labels[valid]
        return Score(1 - float(np.nanmean(losses)), losses)

    def _covariance(
        self,
        moments: Moments,
        features: Array,
        labels: Array,
        train: Array,
        alive: Array,
        centres: Array,
        by_width: bool,
    ) -> Shrunk:
        """Of the training rows less their class means, in units of each feature's deviation."""
        mean, inverse = moments.mean[alive], moments.inverse_deviation()[alive]

        def within(rows: Array) -> Array:
            return np.asarray((features[np.ix_(rows, alive)] - mean) * inverse - centres[labels[rows]])

        if not by_width:
            return Shrunk.of_rows(within(train), self.shrinkage, ROUNDING)
        fourth = 0.0
        for s in slices(len(train), self.block):
            lengths = np.square(within(train[s])).sum(axis=1)
            fourth += float(lengths @ lengths)
        scatter = moments.within_gram[np.ix_(alive, alive)] * inverse[:, None] * (inverse / len(train))
        return Shrunk.of_covariance(scatter, fourth, len(train), self.shrinkage, ROUNDING)
