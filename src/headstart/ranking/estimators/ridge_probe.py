"""Ridge probe: how well a linear map of the features predicts rows that it was not fitted on.

Hoerl and Kennard, "Ridge regression", 1970; strength by leaving out rows, Allen, 1974, or where there are many by
generalised cross-validation, Golub, Heath and Wahba, 1979.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.spectrum import PENALTIES, held_out_ridge


@dataclass(frozen=True, kw_only=True, slots=True)
class RidgeProbe:
    """R² of ridge regression on held-out folds, to class columns or to the value.

    Shapes: features (N, D); N >= D: `view.moments` less each fold's, (D, D) float64, one eigendecomposition a fold;
    N < D: one (N, N) kernel, its training part decomposed a fold. Memory O(min(N, D)²), plus O(N·D) when N < D.
    Returns: 1 - squared error / squared error of the training rows' mean, 0 or less for noise; losses (N,) squared
    error summed over columns, NaN for rows in no fold.
    Errors: `Unfit` when no row is in a fold.

    The losses are what a race compares: smooth, and comparable row by row between sources. R² of class columns is not
    accuracy. The strength is chosen in each fold's training rows alone: by the exact error on each row left out, or
    with rows twice the rank by generalised cross-validation, which fewer rows fool where some come twice.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"))
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
                where="RidgeProbe(penalties=…)",
                fix="give at least one multiple above 0, such as 0.1",
            )

    def __call__(self, view: View) -> Score:
        features = view.features
        moments = view.moments if features.shape[0] >= features.shape[1] else None
        return held_out_ridge(features, view.labels, view.classes, view.folds, self.penalties, moments)
