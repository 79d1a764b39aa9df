"""SFDA: discriminant analysis that is fitted a second time, on rows pushed towards the classes they are confused with.

Shao et al., "Not All Models Are Equal: Predicting Model Transferability in a Self-challenging Fisher Space", ECCV 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from headstart.core import Needs, Score, View
from headstart.numerics.held_out import cells
from headstart.numerics.moments import Array
from headstart.numerics.shrinkage import Shrunk


@dataclass(frozen=True, kw_only=True, slots=True)
class SFDA:
    """Probability of the true class on held-out rows, by a discriminant analysis that was made harder for itself.

    Shapes: features (N, D), float64 copies of a fold's training rows; a shrunk covariance on the smaller of (D, D) and
    (N, N), twice a fold.
    Returns: mean probability of the true class, from 0 to 1; losses (N,) minus its logarithm, NaN for rows in no fold.
    Errors: `Unfit` when no row is in a fold.

    A first fit says how sure each training row is of its class, softened once more; the row is then mixed with the mean
    of the other classes in that proportion, and a second fit is made. The published score is of the rows it was fitted
    on, which is 1 for any noise with more dimensions than rows; here other rows are scored, as they are. Features are
    in units of their deviation, and each fit shrinks its covariance as Ledoit and Wolf derive.
    """

    needs = Needs(gives=("features",), tasks=("single_label",))
    claims = ("class_names", "row_order", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
              "width_safe")  # fmt: skip
    cites = "arXiv:2207.03036"

    def __call__(self, view: View) -> Score:
        features, labels = np.asarray(view.features, dtype=np.float64), np.asarray(view.labels)
        losses = np.full(len(labels), np.nan)
        for train, valid in cells(view.folds):
            x, y = features[train], labels[train]
            centre, spread = x.mean(axis=0), x.std(axis=0)
            alive = spread > 1e-9 * np.abs(x).max(axis=0)
            present, codes = np.unique(y, return_inverse=True)
            told = np.full((len(valid), view.classes), -np.inf)
            if alive.any():
                x = (x - centre)[:, alive] / spread[alive]
                new = (features[valid] - centre)[:, alive] / spread[alive]
                told[:, present] = _log_probabilities(_challenged(x, codes), codes, new)
            else:
                told[:, present] = np.log(np.bincount(codes) / len(codes))
            losses[valid] = -np.maximum(told[np.arange(len(valid)), labels[valid]], -50.0)
        return Score(float(np.exp(-losses[~np.isnan(losses)]).mean()), losses)


def _challenged(x: Array, codes: Array) -> Array:
    """Each row mixed with the mean of the other classes' means, the more the less sure the first fit is of it."""
    counts = np.bincount(codes)
    if len(counts) < 2:
        return x
    means = _means(x, codes)
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    sure = softmax(np.exp(_log_probabilities(x, codes, x)), axis=1)[np.arange(len(x)), codes][:, None]
    return np.asarray(sure * x + (1 - sure) * others[codes])


def _log_probabilities(x: Array, codes: Array, new: Array) -> Array:
    """(new rows, classes) by linear discriminant analysis of x with a shrunk covariance inside classes."""
    means, counts = _means(x, codes), np.bincount(codes)
    within = x - means[codes]
    if len(x) < x.shape[1]:
        shrunk = Shrunk.of_rows(within, floor=1e-10)
    else:
        lengths = np.square(within).sum(axis=1)
        shrunk = Shrunk.of_covariance(within.T @ within / len(x), float(lengths @ lengths), len(x), floor=1e-10)
    weights = shrunk.solve(means)
    scores = new @ weights.T - 0.5 * (means * weights).sum(axis=1) + np.log(counts / len(codes))
    return np.asarray(log_softmax(scores, axis=1))


def _means(x: Array, codes: Array) -> Array:
    return np.stack([x[codes == c].mean(axis=0) for c in range(codes.max() + 1)])
