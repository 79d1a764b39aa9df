"""Shrunk H-score: between-class over total scatter, with a covariance that is safe for few rows.

Ibrahim, Ponomareva and Mazumder, "Newer is not always better: Rethinking transferability metrics, their
peculiarities, stability and performance", ECML-PKDD 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.moments import STRIP_CELLS, Array, pays_to_compile, slices
from headstart.numerics.shrinkage import Shrunk


@dataclass(frozen=True, kw_only=True, slots=True)
class ShrunkHScore:
    """H-score with the covariance shrunk as Ledoit and Wolf derive, less what shuffled labels give.

    Shapes: `view.moments` (D, D) and one pass over `view.features` when N >= D; else features (N, D) through their
    (N, N) kernel; float64, memory O(min(N, D)²), plus O(N·D) when N < D; one Cholesky factor, and its inverse for what
    chance gives.
    Returns: (1 - alpha) tr(Sa⁻¹ Sb), the paper's score, from 0 to classes - 1, less its mean over all orders of the
    labels; for several labels a row the sum of each label's own two-class score; for a value the squared correlation
    with its best shrunk direction, from 0 to 1, less the same. No per-row losses.
    Errors: none of its own. Features or labels that do not vary give 0.

    Every feature is divided by its standard deviation first (constant ones drop out), since shrinkage towards a
    multiple of the identity depends on units; so units do not matter, and a rotation does. It is fitted and judged on
    the same rows, so the paper's score (`chance="kept"`) grows with the width for noise too, and with few rows wide
    noise passes a good source. Over all orders of the labels the mean of Sb is (classes - 1) / (N - 1) times S, so what
    chance gives is known exactly, without shuffling. Of values, where the paper has none, Sb is the covariance of the
    best linear guess of the features from the value, as in the canonical correlations that the H-score adds up: what
    turns round in the middle of the range, as a square does, it does not see.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"))
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe", "jackknife", "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2110.06893"

    # the mean over all orders of the labels; the paper keeps it
    chance: Literal["taken_off", "kept"] = "taken_off"

    def __call__(self, view: View) -> Score:
        features, rows = view.features, len(view.features)
        by_width = rows >= features.shape[1]
        moments = view.moments if by_width else view.class_moments
        every = moments.inverse_deviation()
        alive = np.flatnonzero(every)
        if not len(alive):
            return Score(0.0)
        inverse = every[alive]
        if by_width:
            covariance = moments.centred_gram
            if len(alive) < len(covariance):
                covariance = covariance[np.ix_(alive, alive)]
            covariance *= inverse[:, None]
            covariance *= inverse / rows
            shrunk = Shrunk.of_covariance(covariance, _fourth(features, moments.mean, every), rows)
        else:
            centred = np.array(features if len(alive) == len(every) else features[:, alive], dtype=np.float64)
            centred -= moments.mean[alive]
            centred *= inverse  # in place: a second copy would be most of the memory
            shrunk = Shrunk.of_rows(centred)
        values = view.task == "regression"
        counts = moments.centred_energy if values else moments.counts
        least = rows * np.square(1e-9 * moments.target_mean) if values else 0.0  # below, a deviation may be rounding
        present = counts > least
        counts = counts[present]
        freedoms = len(counts) - (0.0 if values else 1.0)  # of the labels
        between = moments.centred_sums[present][:, alive] * inverse / np.sqrt(rows * counts)[:, None]
        each = (shrunk.solve(between) * between).sum(axis=1)
        if view.task == "multi_label":  # a label's other side, the rows without it, adds n / (N - n) as much
            each = each * np.where(counts < rows, rows / np.maximum(rows - counts, 1.0), 0.0)
            freedoms = float((counts < rows).sum())
        value = float((1 - shrunk.alpha) * each.sum())
        if self.chance == "taken_off":
            value -= freedoms / max(rows - 1, 1) * shrunk.freedom
        return Score(value)


def _fourth(features: Array, mean: Array, inverse: Array) -> float:
    """The sum over rows of |standardised row|⁴, a strip in a core's cache at a time; what does not vary adds 0."""
    if pays_to_compile(features):
        from headstart.numerics.sums import fourth

        return float(fourth(features, mean, inverse))
    total = 0.0
    for s in slices(len(features), max(STRIP_CELLS // len(mean), 32)):
        u = np.array(features[s], dtype=np.float64)
        u -= mean
        u *= inverse
        lengths = np.vecdot(u, u)
        total += float(lengths @ lengths)
    return total
