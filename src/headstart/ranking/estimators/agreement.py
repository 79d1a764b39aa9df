"""Agreement: how often a source's own class tells the label, once each of its classes has been given a label.

The majority rule for many-to-one mappings, as in Ben-David, Eiron and Long, "On the difficulty of approximately
maximizing agreements", JCSS 2003; here on held-out rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.held_out import cells
from headstart.numerics.moments import targets_of
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Accuracy of the source's predicted class, renamed to the label that it most often stands beside.

    Shapes: predictions (N, Z), of which the largest counts; a (C, Z) table for each fold; time O(N·Z).
    Returns: share of held-out rows that are right; losses (N,) from 0 to 1, NaN for rows in no fold.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no row is in a fold.

    The mapping is learned without the rows it is judged on, so many source classes gain nothing by knowing single rows.
    Ties, and classes that training did not see, go to the commonest label, and to equals in equal parts. It is what the
    source would get right as it is, with no training but a list of names.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "prefers_signal",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "doi:10.1016/S0022-0000(03)00038-2"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        predictions, labels = np.asarray(view.predictions), np.asarray(view.labels)
        said = predictions.argmax(axis=1)
        hot = targets_of(labels, view.classes)
        losses = np.full(len(labels), np.nan)
        for train, valid in cells(view.folds):
            table = np.zeros((view.classes, predictions.shape[1]))
            np.add.at(table.T, said[train], hot[train])
            shares = hot[train].mean(axis=0)
            weight = table + 0.5 * shares[:, None]  # ties and unseen classes go to the commonest
            meant = weight == weight.max(axis=0)  # several where they are equally common
            losses[valid] = 1 - (meant / meant.sum(axis=0))[labels[valid], said[valid]]
        return Score(1 - float(np.nanmean(losses)), losses)
