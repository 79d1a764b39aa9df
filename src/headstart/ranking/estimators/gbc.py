"""GBC: how little the classes overlap, when each is taken for a Gaussian.

Pándy et al., "Transferability Estimation using Bhattacharyya Class Separability", CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from headstart.core import Needs, Score, View
from headstart.numerics.moments import Array, Moments
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class GBC:
    """Bhattacharyya overlap of every pair of classes, summed, less what chance sets the classes apart.

    Shapes: class sums (C, D) float64, and second moments as many where a variance is of one dimension; no Gram; time
    O(N·D + C²·D).
    Returns: -log Σ exp(-B) over ordered pairs of classes, B their Bhattacharyya distance; the paper's score is
    -exp(-value), which is 0 for all wide features in floating point. No per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: none of its own. One class alone gives 0.

    Means of few rows differ by chance in every dimension, so the paper's B (`chance="kept"`) grows with the width, for
    noise too. Here the squared distance of two means is less what the rows' spread gives it on average, and a variance
    divides by rows - 1; a class of one row takes that of all classes. With a variance for each dimension their
    logarithms would still grow, so `diagonal` is for sources of one width. The published spherical code leaves the
    width out of the logarithms; here it is in. Variances are kept above 1e-4 of the mean one.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "jackknife", "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2111.12780"

    # of a class: one variance for all dimensions, or one for each
    covariance: Literal["spherical", "diagonal"] = "spherical"
    # what few rows add to the distance of two means; the paper keeps it
    chance: Literal["taken_off", "kept"] = "taken_off"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        diagonal = self.covariance == "diagonal"
        moments = (
            Moments.of(view.features, view.labels, view.classes, gram=False, second=True)
            if diagonal
            else view.class_moments
        )
        present = moments.counts > 0
        alive = moments.inverse_deviation() > 0
        if present.sum() < 2 or not alive.any():
            return Score(0.0)
        counts = moments.counts[present]
        means = moments.sums[present][:, alive] / counts[:, None]
        if diagonal:
            variances = moments.class_variances[present][:, alive]
        else:
            variances = moments.class_spreads[present][:, None] / alive.sum()
        noise = np.zeros_like(variances)  # of a class's mean, in each dimension
        if self.chance == "taken_off":
            within = counts @ variances / max(moments.rows - len(counts), 1)
            noise = within / counts[:, None]
            several = counts[:, None] > 1
            variances = np.where(several, variances * (counts / np.maximum(counts - 1, 1))[:, None], within)
        variances = np.maximum(variances, 1e-4 * moments.variance[alive].mean())
        pairs = _of_diagonal(means, variances, noise) if diagonal else _of_spheres(means, variances[:, 0], noise[:, 0])
        return Score(-float(logsumexp(-pairs)))


def _of_spheres(means: Array, variances: Array, noise: Array) -> Array:
    """(pairs,) Bhattacharyya distances of Gaussians with one variance each, (C,), each ordered pair once."""
    width = means.shape[1]
    middle = (variances[:, None] + variances) / 2
    wide = np.log(middle) - 0.5 * np.log(variances[:, None]) - 0.5 * np.log(variances)
    apart = cdist(means, means, "sqeuclidean") - width * (noise[:, None] + noise)
    found = apart / middle / 8 + width * wide / 2
    return np.asarray(found[~np.eye(len(means), dtype=bool)])


def _of_diagonal(means: Array, variances: Array, noise: Array) -> Array:
    """(pairs,) Bhattacharyya distances of Gaussians with diagonal covariance, (C, D), each ordered pair once."""
    found = []
    for c in range(len(means)):
        others = np.arange(len(means)) != c
        middle = (variances[c] + variances[others]) / 2
        apart = (np.square(means[c] - means[others]) - noise[c] - noise[others]) / middle
        wide = np.log(middle) - 0.5 * np.log(variances[c]) - 0.5 * np.log(variances[others])
        found.append((apart / 8 + wide / 2).sum(axis=1))
    return np.concatenate(found)
