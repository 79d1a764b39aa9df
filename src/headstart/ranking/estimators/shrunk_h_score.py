"""Shrunk H-score: between-class over total scatter, with a covariance that is safe for few rows.

Ibrahim, Ponomareva and Mazumder, "Newer is not always better: Rethinking transferability metrics, their
peculiarities, stability and performance", ECML-PKDD 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.moments import STRIP_CELLS, Array, slices
from headstart.numerics.shrinkage import Shrunk


@dataclass(frozen=True, kw_only=True, slots=True)
class ShrunkHScore:
    """H-score with the covariance shrunk as Ledoit and Wolf derive.

    Shapes: `view.moments` (D, D) and one pass over `view.features` when N >= D; else features (N, D) through their
    (N, N) kernel; float64, memory O(min(N, D)²), plus O(N·D) when N < D; one Cholesky factor, no inverse.
    Returns: (1 - alpha) tr(Sa⁻¹ Sb), from 0 to classes - 1; for several labels a row the sum of each label's own
    two-class score. No per-row losses.
    Errors: none of its own. Features that do not vary give 0.

    Every feature is divided by its standard deviation first (constant ones drop out), since shrinkage towards a
    multiple of the identity depends on units; so units do not matter, and a rotation does. It is fitted and judged on
    the same rows: with few rows a class, wide noise comes near to a good source, and noise whose variance lies in few
    directions, which is then hardly shrunk, passes it; held-out estimators do not let it.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2110.06893"

    def __call__(self, view: View) -> Score:
        features, rows = view.features, len(view.features)
        by_width = rows >= features.shape[1]
        moments = view.moments if by_width else view.class_moments
        inverse = moments.inverse_deviation()
        alive = np.flatnonzero(inverse)
        if not len(alive):
            return Score(0.0)
        mean, inverse = moments.mean[alive], inverse[alive]
        if by_width:
            covariance = moments.centred_gram
            if len(alive) < len(covariance):
                covariance = covariance[np.ix_(alive, alive)]
            covariance *= inverse[:, None]
            covariance *= inverse / rows
            shrunk = Shrunk.of_covariance(covariance, _fourth(features, alive, mean, inverse), rows)
        else:
            shrunk = Shrunk.of_rows((features[:, alive] - mean) * inverse)
        present = moments.counts > 0
        counts = moments.counts[present]
        between = moments.centred_sums[present][:, alive] * inverse / np.sqrt(rows * counts)[:, None]
        each = (shrunk.solve(between) * between).sum(axis=1)
        if view.task == "multi_label":  # a label's other side, the rows without it, adds n / (N - n) as much
            each = each * np.where(counts < rows, rows / np.maximum(rows - counts, 1.0), 0.0)
        return Score(float((1 - shrunk.alpha) * each.sum()))


def _fourth(features: Array, alive: Array, mean: Array, inverse: Array) -> float:
    """The sum over rows of |standardised row|⁴, of the dimensions that vary; a strip in a core's cache at a time."""
    total = 0.0
    for s in slices(len(features), max(STRIP_CELLS // len(alive), 32)):
        u = features[s] if len(alive) == features.shape[1] else features[s, alive]
        u = np.array(u, dtype=np.float64)
        u -= mean
        u *= inverse
        lengths = np.vecdot(u, u)
        total += float(lengths @ lengths)
    return total
