"""CKA: how alike the features and what was learned on the target are, whatever their width and rotation.

Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019; the debiased form is of Székely
and Rizzo, "Partial distance correlation with methods for dissimilarities", Annals of Statistics 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.similarity import beside_reference, centred, debiased_cka


@dataclass(frozen=True, kw_only=True, slots=True)
class CKA:
    """Centred kernel alignment of the features with the reference: what a plain system learned on the target alone.

    Shapes: features (N, D) and reference (N, R), at most `rows` of them; two (rows, rows) float64; O(rows²·(D + R)).
    Returns: debiased linear CKA, at most 1 and about 0 for features that tell nothing, or a little less; no per-row
    losses.
    Errors: `Unfit` for fewer than 4 rows with a reference, or asked for.

    The biased form, as most code has it, is near 1 for any features with more dimensions than rows; this one leaves out
    each row's likeness to itself. A source is asked for the same directions that a small system found, and one that
    knows better loses by it. Few dimensions of large variance decide; `dds` gives each the same weight.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"), reference=True)
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:1905.00414"

    # the most rows that are compared; of more, so many evenly over those sorted by label and fold
    rows: int = 2000

    def __post_init__(self) -> None:
        if self.rows < 4:
            raise Unfit(f"rows is {self.rows}", where="CKA(rows=…)", fix="use 2000, the default")

    def __call__(self, view: View) -> Score:
        f, r = (centred(x) for x in beside_reference(view, self.rows))
        return Score(debiased_cka(f @ f.T, r @ r.T))
