"""TMI: the entropy of features inside classes.

Xu and Kang, "Fast and Accurate Transferability Measurement by Evaluating Intra-class Feature Variance", ICCV 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma
from sklearn.neighbors import NearestNeighbors

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import Array
from headstart.numerics.several_labels import label_by_label
from headstart.numerics.spectrum import rank_of, two_rows_a_dimension


@dataclass(frozen=True, kw_only=True, slots=True)
class TMI:
    """Entropy of the features given the class, a dimension: a source that keeps variety inside classes is more general.

    Shapes: features (N, D); nearest neighbours inside each class by the largest difference; time O(Σ n_c²·D).
    Returns: Kozachenko and Leonenko's entropy in nats, averaged over rows and divided by the width; no per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no class has two rows, for fewer than two rows for each dimension, as distances to neighbours
    then tell the width, or for fewer than one neighbour.

    Features are divided by their deviation first, and the entropy by their number: the published sum grows with both,
    so that wide noise wins. Noise still has the most variety, and a source whose classes have collapsed, and which is
    perfect for the task, has none: it is a vote beside others, and never one alone. So wrong labels raise it, up to the
    entropy of all rows together, which depends on how these lie; it claims neither a fall with noise nor a null.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = ("row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "jackknife")
    cites = "arXiv:2308.05986"

    neighbours: int = 3

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise Unfit(f"neighbours {self.neighbours}", where="TMI(neighbours=…)", fix="use 3, the default")

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        f, labels = np.asarray(view.features, dtype=np.float64), np.asarray(view.labels)
        f = f - f.mean(axis=0)
        spread = f.std(axis=0)
        alive = spread > 1e-9 * np.abs(view.features).max(axis=0)
        classes = [f[labels == c][:, alive] / spread[alive] for c in np.unique(labels)]
        many = [c for c in classes if len(c) > 1]
        if not many:
            raise Unfit("no class has two rows", where="`tmi`", fix="label two rows of a class at least")
        if not alive.any():
            return Score(0.0)
        two_rows_a_dimension(rank_of(f, int(alive.sum())), len(f), "`tmi`", "`cdnv`")
        rows = sum(len(c) for c in many)
        return Score(float(sum(len(c) / rows * self._entropy(c) for c in many)) / int(alive.sum()))

    def _entropy(self, f: Array) -> float:
        """Of the density that the rows (n, D) are drawn from, in nats."""
        rows, width = f.shape
        k = min(self.neighbours, rows - 1)
        distances, _ = NearestNeighbors(n_neighbors=k, metric="chebyshev").fit(f).kneighbors()
        floor = 1e-6  # deviations; equal rows have no density
        return float(digamma(rows) - digamma(k) + width * np.log(2 * np.maximum(distances[:, -1], floor)).mean())
