"""ETran: how familiar the rows look to a source, and how well its features tell the labels.

Gholami et al., "ETran: Energy-Based Transferability Estimation", ICCV 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.discriminant import true_class
from headstart.numerics.held_out import cells, explained
from headstart.numerics.linear import chosen
from headstart.numerics.several_labels import label_by_label
from headstart.numerics.softmax import energies


@dataclass(frozen=True, kw_only=True, slots=True)
class ETran:
    """Energy of the source's own head, and the held-out fit of a discriminant or a linear map on its features, added.

    Shapes: predictions (N, Z) and features (N, D); a shrunk covariance on the smaller of (D, D) and (N, N) for each
    fold, or for values a ridge regression.
    Returns: mean of e / (1 + e), e a row's energy as in `energy`, plus the mean probability of the true class, or R²
    for values: at most 2; losses (N,) of the second part, minus the log probability or the squared error, NaN for rows
    in no fold.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no row is in a fold.

    The paper brings each part to 0 … 1 over the sources at hand, so that a score changes when a source joins; here
    each part has bounds of its own. Its classification and regression parts are of the rows that were fitted, which are
    perfect for wide noise; here other rows are scored. Released code takes the energy of features, whose unit decides.
    """

    needs = Needs(gives=("features", "predictions"), tasks=("single_label", "multi_label", "regression", "tagging"))
    claims = (
        "class_names", "prefers_signal", "width_safe", "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2308.02027"

    # C as in scikit-learn, of the regression
    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        energy = energies(view.predictions)
        fit = self._regression(view) if view.task == "regression" else true_class(view)
        return Score(float((energy / (1 + energy)).mean()) + fit.value, fit.losses)

    def _regression(self, view: View) -> Score:
        features, values = view.features, np.asarray(view.labels, dtype=np.float64)
        losses, naive = np.full(len(values), np.nan), np.full(len(values), np.nan)
        for train, valid in cells(view.folds):
            ids = [str(i) for i in train]
            head = chosen(features[train], values[train], 0, ids, "identity", self.strengths).head
            losses[valid] = np.square(values[valid] - head(features[valid])[:, 0])
            naive[valid] = np.square(values[valid] - values[train].mean())
        return explained(losses, naive)
