"""NCTI: how near to neural collapse a discriminant of the features is.

Wang et al., "How Far Pre-trained Models Are from Neural Collapse on the Target Dataset Informs their Transferability",
ICCV 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.discriminant import Array, held_out
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class NCTI:
    """Three signs of neural collapse in held-out class probabilities, averaged.

    Shapes: features (N, D); a shrunk covariance on the smaller of (D, D) and (N, N) for each fold; singular values of
    the (N, C) probabilities and of each class's own.
    Returns: the mean of three shares, 0 to 1, each 1 when collapse is complete; no per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no row is in a fold.

    The shares: the probability of the true class; the nuclear norm of the centred probabilities, in units of that of
    the labels themselves; and how near each class's probabilities are to one direction, by their nuclear norm over
    their Frobenius norm. The published score brings its three terms to 0 … 1 over the sources at hand, so that it
    changes when a source joins, and takes them from the rows that were fitted, after 64 principal components, which
    fewer rows or dimensions do not have; here each has bounds of its own, rows are held out, and all dimensions count.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "ICCV 2023, 5549-5558"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        labels = np.asarray(view.labels)
        told = np.exp(held_out(view.features, labels, view.folds, view.classes))
        scored = ~np.isnan(told).any(axis=1)
        told, labels = told[scored], labels[scored]
        hot = np.eye(view.classes)[labels]
        whole = _nuclear(hot - hot.mean(axis=0))
        spread = _nuclear(told - told.mean(axis=0)) / whole if whole > 0 else 0.0
        collapsed = [_one_direction(told[labels == c]) for c in np.unique(labels)]
        return Score(float(np.mean([(told * hot).sum(axis=1).mean(), min(spread, 1.0), np.mean(collapsed)])))


def _nuclear(matrix: Array) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def _one_direction(rows: Array) -> float:
    """1 where all rows are multiples of one, 0 where they use all directions equally."""
    most = np.sqrt(min(rows.shape))
    return float((most - _nuclear(rows) / np.linalg.norm(rows)) / (most - 1)) if most > 1 else 1.0
