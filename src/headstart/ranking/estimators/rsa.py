"""RSA: whether rows that differ in features differ in what was learned on the target.

Dwivedi and Roig, "Representation Similarity Analysis for Efficient Task Taxonomy & Transfer Learning", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.similarity import beside_reference, pearson, spearman, standardised


@dataclass(frozen=True, kw_only=True, slots=True)
class RSA:
    """Rank correlation of the distances between rows in the features and in the reference, a plain system's output.

    Shapes: features (N, D) and reference (N, R), at most `rows` of them; two (rows, rows) float64;
    O(rows²·(D + R + log rows)).
    Returns: Spearman's correlation over pairs of rows of 1 - Pearson's correlation, columns standardised; -1 to 1, no
    per-row losses.
    Errors: `Unfit` for fewer than 4 rows with a reference, or asked for.

    The reference of the paper is a small network trained on the target; here it is the out-of-fold predictions of the
    cheapest system without transfer. With two classes these correlate by 1 or -1 alone, and with values, where the
    difference takes the place of the correlation, by one number; then it is coarse, and `parc`, which reads the labels
    themselves, is as good.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"), reference=True)
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels", "jackknife",
    )  # fmt: skip
    cites = "arXiv:1904.11740"

    # the most rows that are compared; of more, so many evenly over those sorted by label and fold
    rows: int = 500

    def __post_init__(self) -> None:
        if self.rows < 4:
            raise Unfit(f"rows is {self.rows}", where="RSA(rows=…)", fix="use 500, the default")

    def __call__(self, view: View) -> Score:
        features, reference = beside_reference(view, self.rows)
        return Score(spearman(pearson(standardised(features)), pearson(standardised(reference))))
