"""Neural collapse: the spread inside classes, seen along the directions in which their means differ.

Papyan, Han and Donoho, "Prevalence of neural collapse during the terminal phase of deep learning training", PNAS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.several_labels import label_by_label
from headstart.numerics.spectrum import rank_of, two_rows_a_dimension


@dataclass(frozen=True, kw_only=True, slots=True)
class NeuralCollapse:
    """The first measure of neural collapse, NC1 = tr(Sw Sb⁺) / C, turned so that higher is better.

    Shapes: features (N, D), one float64 copy of a projection (N, C - 1), class means (C, D); no Gram; time O(N·D·C).
    Returns: 1 / (1 + NC1): 1 where every class is one point, 0 where all class means are one; no per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` for fewer than two rows for each dimension: means of few rows differ by chance in each of them, so
    that wide noise looks collapsed. One class alone gives 0.

    With few rows prefer `cdnv`. Invariant to a rotation, not to units of single features.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "doi:10.1073/pnas.2015509117"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        features, labels = view.features, np.asarray(view.labels)
        moments = view.class_moments
        varying = int((moments.inverse_deviation() > 0).sum())
        if not varying:
            return Score(0.0)
        two_rows_a_dimension(rank_of(features, varying), len(features), "`neural_collapse`", "`cdnv`")
        present = moments.counts > 0
        means = np.where(present[:, None], moments.class_means, moments.mean)
        between = np.sqrt(moments.counts / moments.rows)[:, None] * (means - moments.mean)
        _, sizes, axes = np.linalg.svd(between, full_matrices=False)
        kept = sizes > max(between.shape) * np.finfo(np.float64).eps * np.sqrt(moments.variance.sum())
        if present.sum() < 2 or not kept.any():
            return Score(0.0)
        along = (axes[kept] / sizes[kept][:, None]).T
        inside = (features - moments.mean) @ along - ((means - moments.mean) @ along)[labels]
        return Score(1 / (1 + float(np.square(inside).sum()) / (moments.rows * int(present.sum()))))
