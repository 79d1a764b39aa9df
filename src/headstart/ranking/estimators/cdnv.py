"""CDNV: the spread inside classes against the distance between their means.

Galanti, György and Hutter, "On the Role of Neural Collapse in Transfer Learning", ICLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class CDNV:
    """Class separation: the class-distance normalised variance of every pair of classes.

    Shapes: class sums (C, D) float64, no Gram; time O(N·D + C²·D).
    Returns: mean over pairs of 1 / (1 + 2 V), V = (variance of one + of the other) / (2 squared distance of the means):
    1 where classes have collapsed to points, 0 where their means coincide. No per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: none of its own. One class alone gives 0.

    The paper's V has no bound where means coincide, and its mean is then that one pair's; each pair is bounded first.
    It sees no direction: classes that differ along one of many noisy dimensions look bad, and are not.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2112.15121"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        moments = view.class_moments
        present = moments.counts > 0
        if present.sum() < 2 or not moments.inverse_deviation().any():
            return Score(0.0)
        means = moments.sums[present] / moments.counts[present][:, None]
        spread = moments.class_spreads[present]
        lengths = np.square(means).sum(axis=1)
        one, other = np.triu_indices(len(means), 1)
        apart = np.maximum(lengths[one] + lengths[other] - 2 * (means @ means.T)[one, other], 0.0)
        both = apart + spread[one] + spread[other]
        return Score(float(np.divide(apart, both, out=np.zeros_like(both), where=both > 0).mean()))
