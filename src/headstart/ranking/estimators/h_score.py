"""H-score: how much of the spread of features lies between classes.

Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.moments import targets_of
from headstart.numerics.spectrum import Spectrum, two_rows_a_dimension


@dataclass(frozen=True, kw_only=True, slots=True)
class HScore:
    """Between-class over total scatter: the sum of squared canonical correlations of features and labels.

    Shapes: `view.moments` (D, D) when N >= D, else features (N, D) through their (N, N) kernel; float64, O(min(N, D)³).
    Returns: tr(S⁺ Sb), from 0 to classes - 1; for several labels a row, or a value, the same sum of correlations, up to
    their number; for a value it is R² on the rows themselves. No per-row losses.
    Errors: `Unfit` for fewer than two rows for each dimension: noise then has half of what there is, and with as many
    dimensions as rows all of it.

    Invariant to every invertible linear map of the features. It is fitted and judged on the same rows, and rises with
    the rank whatever the features say; `shrunk_h_score` does not need more rows than dimensions.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "feature_scale", "translation", "zero_columns",
        "prefers_signal", "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "doi:10.1109/ICIP.2019.8803726"

    def __call__(self, view: View) -> Score:
        spectrum, rows = Spectrum.of_view(view), len(view.features)
        rank = len(spectrum.values)
        two_rows_a_dimension(rank, rows, "`h_score`", "`shrunk_h_score`")
        targets = targets_of(view.labels, view.classes)
        least = 1e-9 * np.abs(targets).max()  # a deviation that may be rounding
        targets = targets - targets.mean(axis=0)
        sizes, axes = np.linalg.eigh(targets.T @ targets)
        kept = sizes > max(rows * np.finfo(np.float64).eps * float(sizes[-1]), rows * least**2)
        return Score(float((np.square(spectrum.along @ axes[:, kept]) / sizes[kept]).sum()))
