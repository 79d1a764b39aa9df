"""LEEP: how well the labels are predicted through a source's own classes.

Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned Representations", ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.information import expected_predictions, four_rows_a_class
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class LEEP:
    """Log expected empirical prediction: labels guessed from P(label | source class) and the source's probabilities.

    Shapes: predictions (N, Z), rows of probabilities; a (C, Z) table; time O(N·C·Z).
    Returns: mean log-likelihood of the labels in nats, at most 0; losses (N,), each row's negative one.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` for fewer than four rows for each source class in use: noise over as many classes, if it is sure of
    them, scores as well as a good source.

    The table is made from the same rows: with about as many source classes as rows it knows them by heart. Rows that
    are spread over many classes use few. Some released code leaves the logarithm out, and its figures are not the
    paper's. A source whose probabilities are too sure scores lower than its classes deserve.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "prefers_signal",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2002.12462"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        four_rows_a_class(view.predictions, "`leep`")
        losses = -np.log(expected_predictions(view.predictions, view.labels, view.classes))
        return Score(-float(losses.mean()), losses)
