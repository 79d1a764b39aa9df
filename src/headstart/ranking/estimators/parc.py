"""PARC: whether rows that differ in features differ in labels.

Bolya, Mittapalli and Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning", NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import targets_of
from headstart.numerics.similarity import pearson, spearman, standardised
from headstart.numerics.some_rows import looked_at


@dataclass(frozen=True, kw_only=True, slots=True)
class PARC:
    """Pairwise annotation representation comparison: rank correlation of distances in features and in labels.

    Shapes: features (N, D), at most `rows` of them; (rows, rows) float64; time O(rows²·(D + log rows)).
    Returns: 100 × Spearman's correlation over pairs of rows of 1 - Pearson's correlation of two rows' features, each
    feature standardised, and of two rows' labels, or of the difference of their values; ties share a rank. No per-row
    losses.
    Errors: `Unfit` for fewer than 3 rows asked for.

    Well-defined with few rows and wide features. Classes of different size keep even perfect features below 100, and
    with many classes nearly all pairs count as different. A rotation changes it, since each feature is standardised.
    Equal labels tie; the released code ranks them by what rounding left of a distance of 0.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"))
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels", "jackknife",
    )  # fmt: skip
    cites = "arXiv:2106.04261"

    # the most rows that are compared; of more, so many evenly over those sorted by label and fold
    rows: int = 500

    def __post_init__(self) -> None:
        if self.rows < 3:
            raise Unfit(f"rows is {self.rows}", where="PARC(rows=…)", fix="use 500, the default")

    def __call__(self, view: View) -> Score:
        labels, some = np.asarray(view.labels), looked_at(view, self.rows)
        apart = pearson(standardised(view.features[some]))
        return Score(100 * spearman(apart, pearson(targets_of(labels[some], view.classes))))
