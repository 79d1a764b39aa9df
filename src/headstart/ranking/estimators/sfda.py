"""SFDA: discriminant analysis that is fitted a second time, on rows pushed towards the classes they are confused with.

Shao et al., "Not All Models Are Equal: Predicting Model Transferability in a Self-challenging Fisher Space", ECCV 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from headstart.core import Needs, Score, View
from headstart.numerics.discriminant import Array, class_means, log_probabilities, true_class
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class SFDA:
    """Probability of the true class on held-out rows, by a discriminant analysis that was made harder for itself.

    Shapes: features (N, D), float64 copies of a fold's training rows; a shrunk covariance on the smaller of (D, D) and
    (N, N), twice a fold.
    Returns: mean probability of the true class, from 0 to 1; losses (N,) minus its logarithm, NaN for rows in no fold.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no row is in a fold.

    A first fit says how sure each training row is of its class, softened once more; the row is then mixed with the mean
    of the other classes in that proportion, and a second fit is made. The published score is of the rows it was fitted
    on, which is 1 for any noise with more dimensions than rows; here other rows are scored, as they are. Features are
    in units of their deviation, and each fit shrinks its covariance as Ledoit and Wolf derive.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "class_names", "row_order", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2207.03036"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        return true_class(view, _challenged)


def _challenged(x: Array, codes: Array) -> Array:
    """Each row mixed with the mean of the other classes' means, the more the less sure the first fit is of it."""
    counts = np.bincount(codes)
    if len(counts) < 2:
        return x
    means = class_means(x, codes)
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    sure = softmax(np.exp(log_probabilities(x, codes, x)), axis=1)[np.arange(len(x)), codes][:, None]
    return np.asarray(sure * x + (1 - sure) * others[codes])
