"""Ridge accuracy: how often a ridge regression onto the columns of the classes names a held-out row's class.

Hoerl and Kennard, "Ridge regression", 1970; as a classifier, Rifkin, Yeo and Poggio, "Regularized least-squares
classification", 2003.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.spectrum import PENALTIES, ridge_cells


@dataclass(frozen=True, kw_only=True, slots=True)
class RidgeAccuracy:
    """Accuracy of ridge regression on held-out folds: of each row the class whose column it says most of.

    Shapes: features (N, D); N >= D: `view.moments` less each fold's, (D, D) float64, one eigendecomposition a fold;
    N < D: one (N, N) kernel, its training part decomposed a fold. Memory O(min(N, D)²), plus O(N·D) when N < D.
    Returns: share of scored rows that are right, each row counting once; losses (N,) 0 or 1 (several labels a row: the
    share of labels that are wrong, a label being said from a half on), NaN for rows in no fold.
    Errors: `Unfit` when no row is in a fold.

    The fits are those of `ridge_probe`, in closed form, and the strength is chosen as there. It counts what that one
    measures: nearer to the metric, and coarser, so that few rows leave sources tied. A class of the middle can lie
    behind its neighbours in every row, where features order the classes along one line; `lda` finds it.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "doi:10.1080/00401706.1979.10489751"

    # penalties as multiples of the mean squared length of a training row
    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        if not self.penalties or min(self.penalties) <= 0:
            raise Unfit(
                f"penalties {self.penalties} are not all above 0",
                where="RidgeAccuracy(penalties=…)",
                fix="give at least one multiple above 0, such as 0.1",
            )

    def __call__(self, view: View) -> Score:
        features, labels = view.features, np.asarray(view.labels)
        moments = view.moments if features.shape[0] >= features.shape[1] else None
        losses = np.full(len(features), np.nan)
        for _, valid, said in ridge_cells(features, labels, view.classes, view.folds, self.penalties, moments):
            if view.task == "multi_label":
                losses[valid] = ((said >= 0.5) != (labels[valid] > 0)).mean(axis=1)
            else:
                losses[valid] = said.argmax(axis=1) != labels[valid]
        return Score(1 - float(np.nanmean(losses)), losses)
