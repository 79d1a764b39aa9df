"""PARC: whether rows that differ in features differ in labels.

Bolya, Mittapalli and Hoffman, "Scalable Diverse Model Selection for Accessible Transfer Learning", NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import Array, targets_of


@dataclass(frozen=True, kw_only=True, slots=True)
class PARC:
    """Pairwise annotation representation comparison: rank correlation of distances in features and in labels.

    Shapes: features (N, D), at most `rows` of them; (rows, rows) float64; time O(rows²·(D + log rows)).
    Returns: 100 × Spearman's correlation over pairs of rows of 1 - Pearson's correlation of two rows' features, each
    feature standardised, and of two rows' labels; ties share a rank. No per-row losses.
    Errors: `Unfit` for fewer than 3 rows asked for.

    Well-defined with few rows and wide features. Classes of different size keep even perfect features below 100, and
    with many classes nearly all pairs count as different. A rotation changes it, since each feature is standardised.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label"))
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe",
    )  # fmt: skip
    cites = "arXiv:2106.04261"

    # the most rows that are compared; of more, so many evenly over those sorted by label and fold
    rows: int = 500

    def __post_init__(self) -> None:
        if self.rows < 3:
            raise Unfit(f"rows is {self.rows}", where="PARC(rows=…)", fix="use 500, the default")

    def __call__(self, view: View) -> Score:
        features, labels = np.asarray(view.features), np.asarray(view.labels)
        if len(features) > self.rows:
            some = np.linspace(0, len(features) - 1, self.rows).astype(int)
            key = labels if labels.ndim == 1 else np.arange(len(labels))
            some = np.sort(np.lexsort((view.folds, key))[some])
            features, labels = features[some], labels[some]
        f = features.astype(np.float64)
        f = f - f.mean(axis=0)
        spread = f.std(axis=0)
        alive = spread > 1e-9 * np.abs(features).max(axis=0)
        apart = _distances(f[:, alive] / spread[alive])
        named = _distances(targets_of(labels, view.classes))
        ranks = [rankdata(d) - (len(d) + 1) / 2 for d in (apart, named)]
        sizes = [float(np.linalg.norm(r)) for r in ranks]
        return Score(100 * float(ranks[0] @ ranks[1]) / (sizes[0] * sizes[1]) if all(sizes) else 0.0)


def _distances(rows: Array) -> Array:
    """(pairs,) 1 - Pearson's correlation of two rows, rounded so that equal ones tie; 1 for rows that do not vary."""
    if not rows.shape[1]:
        return np.zeros(len(rows) * (len(rows) - 1) // 2)
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12)
    return np.round(1 - (rows @ rows.T)[np.triu_indices(len(rows), 1)], 9)
