"""Nearest neighbours, leave one out: how well a row's neighbours in feature space tell its label.

Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018 (the weights).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.held_out import explained
from headstart.numerics.moments import slices, targets_of


@dataclass(frozen=True, kw_only=True, slots=True)
class KNNLoo:
    """Leave-one-out prediction from the nearest rows by cosine similarity.

    Shapes: features (N, D), one centred unit-length float64 copy, and blocks of similarities (block, N); time O(N²·D).
    Returns: for one label a row the share of rows whose weighted vote is right, with losses (N,) 0 or 1; for several
    labels and for values R² against the mean of the rows that may vote, with losses (N,) of squared error.
    Errors: `Unfit` with a single group of rows.

    Features are centred, since a common direction makes a few rows everyone's neighbour. A row is left out by its
    number, not as its own nearest, and with it the rows that folds do not part from it: those of its group, equal
    inputs, and the words of its sentence. Inputs that are nearly equal, and in no group, still tell their labels.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:1805.01978"

    neighbours: int = 5
    # a neighbour's weight is exp(similarity / temperature)
    temperature: float = 0.07
    # rows whose similarities are held at a time
    block: int = 512

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.block < 1 or not self.temperature > 0:
            raise Unfit(
                f"neighbours {self.neighbours}, temperature {self.temperature}, block {self.block}",
                where="KNNLoo(neighbours=…, temperature=…, block=…)",
                fix="give numbers above 0, such as 5, 0.07 and 512",
            )

    def __call__(self, view: View) -> Score:
        f, y = np.array(view.features, dtype=np.float64), targets_of(view.labels, view.classes)
        rows, groups = len(f), np.unique(view.groups, return_inverse=True)[1]
        if rows < 2 or not groups.any():
            raise Unfit("labelled rows of a single group have no neighbour", where="`knn_loo`", fix="label more rows")
        f -= f.mean(axis=0)
        lengths = np.linalg.norm(f, axis=1, keepdims=True)
        f /= np.where(lengths > 1e-9 * lengths.max(), lengths, np.inf)
        k = min(self.neighbours, rows - 1)
        told = np.empty_like(y)
        for s in slices(rows, self.block):
            alike = f[s] @ f.T
            alike[groups[s, None] == groups] = -np.inf
            near = np.argpartition(alike, rows - k, axis=1)[:, rows - k :]
            weights = np.exp((np.take_along_axis(alike, near, axis=1) - 1) / self.temperature)
            told[s] = np.einsum("nk,nkc->nc", weights / weights.sum(axis=1, keepdims=True), y[near])
        if view.task == "single_label":
            losses = (told.argmax(axis=1) != view.labels).astype(np.float64)
            return Score(1 - float(losses.mean()), losses)
        members = np.bincount(groups)
        inside = np.zeros((len(members), y.shape[1]))
        np.add.at(inside, groups, y)
        others = (y.sum(axis=0) - inside[groups]) / (rows - members[groups])[:, None]
        return explained(np.square(y - told).sum(axis=1), np.square(y - others).sum(axis=1))
