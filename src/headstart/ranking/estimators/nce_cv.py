"""Held-out NCE: how much of the labels a source's own classes leave open, on rows that the table has not seen.

Tran, Nguyen and Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019, for NCE; here
cross-validated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.held_out import cells
from headstart.numerics.moments import targets_of
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class NCECv:
    """Mean log-likelihood of held-out labels, given the class that the source predicts.

    Shapes: predictions (N, Z), of which the largest counts; a (C, Z) table for each fold; time O(N·Z).
    Returns: nats a row, at most 0; losses (N,), each row's negative one, NaN for rows in no fold.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no row is in a fold.

    `nce` is the same with a table of the rows it is judged on, which is 0 for a source that has a class for each row;
    here that source scores what the labels' own shares do. Each column of the table starts with one row in all, spread
    as the labels of the training rows are; of those, one more row is spread evenly, so that no cell is 0.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "prefers_signal",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:1908.08142"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        predictions, labels = np.asarray(view.predictions), np.asarray(view.labels)
        said = predictions.argmax(axis=1)
        hot = targets_of(labels, view.classes)
        losses = np.full(len(labels), np.nan)
        for train, valid in cells(view.folds):
            shares = (hot[train].sum(axis=0) + 1 / view.classes) / (len(train) + 1)
            table = np.tile(shares[:, None], predictions.shape[1])
            np.add.at(table.T, said[train], hot[train])
            losses[valid] = -np.log((table / table.sum(axis=0))[labels[valid], said[valid]])
        return Score(-float(np.nanmean(losses)), losses)
