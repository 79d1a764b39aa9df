"""DDS: alignment of the distances between rows in the features and in what was learned on the target.

Dwivedi et al., "Duality Diagram Similarity: a generic framework for initialization selection in task transfer
learning", ECCV 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.similarity import beside_reference, cosine, debiased_cka, standardised


@dataclass(frozen=True, kw_only=True, slots=True)
class DDS:
    """Duality diagram similarity of the features with the reference, a plain system's output on the target.

    Shapes: features (N, D) and reference (N, R), at most `rows` of them; two (rows, rows) float64; O(rows²·(D + R)).
    Returns: debiased CKA of the two matrices of 1 - cosine between rows, columns standardised: the setting that the
    paper found best; at most 1 and about 0 for features that tell nothing, no per-row losses.
    Errors: `Unfit` for fewer than 4 rows with a reference, or asked for.

    The reference of the paper is a small network trained on the target; here it is the out-of-fold predictions of the
    cheapest system without transfer. For values, which are one column, the difference of two rows takes the place of
    the cosine, of which only the sign would be left.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"), reference=True)
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe",
        "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2008.02107"

    # the most rows that are compared; of more, so many evenly over those sorted by label and fold
    rows: int = 2000

    def __post_init__(self) -> None:
        if self.rows < 4:
            raise Unfit(f"rows is {self.rows}", where="DDS(rows=…)", fix="use 2000, the default")

    def __call__(self, view: View) -> Score:
        f, r = (cosine(standardised(x)) for x in beside_reference(view, self.rows))
        return Score(debiased_cka(f, r))
