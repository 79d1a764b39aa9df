"""NCE: how much of the labels a source's own classes leave open.

Tran, Nguyen and Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.core import Needs, Score, View
from headstart.numerics.information import four_rows_a_class
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class NCE:
    """Negative conditional entropy of the labels, given the class that the source predicts.

    Shapes: predictions (N, Z), of which the largest counts; a (C, Z) table; time O(N·Z).
    Returns: -H(label | predicted class) in nats, from -log classes to 0; no per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` for fewer than four rows for each source class in use: noise over as many classes scores as well as
    a good source.

    Needs no more than predicted names, so black boxes will do. A source with about as many classes as there are rows
    would tell every row apart; `correction="miller_madow"` takes off what many cells give by chance.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "prefers_signal", "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:1908.08142"

    # for the bias of an entropy that is estimated from few rows
    correction: Literal["none", "miller_madow"] = "none"

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        said, labels = np.asarray(view.predictions).argmax(axis=1), np.asarray(view.labels)
        rows = len(labels)
        four_rows_a_class(np.eye(int(said.max()) + 1)[said], "`nce`")
        _, cells = np.unique(np.stack([labels, said]), axis=1, return_counts=True)
        _, columns = np.unique(said, return_counts=True)
        joint, alone = (float(-(n / rows * np.log(n / rows)).sum()) for n in (cells, columns))
        if self.correction == "miller_madow":
            joint, alone = (h + (len(n) - 1) / (2 * rows) for h, n in ((joint, cells), (alone, columns)))
        return Score(alone - joint)
