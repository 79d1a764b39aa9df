"""E-LEEP: how well the labels are predicted by the average of what several sources expect of them.

Agostinelli, Uijlings, Mensink and Ferrari, "Transferability Metrics for Selecting Source Model Ensembles", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core import Candidate, Needs, SetFunction
from headstart.numerics.information import entropy, expected_predictions
from headstart.numerics.several_labels import one_by_one


@dataclass(frozen=True, kw_only=True, slots=True)
class ELEEP:
    """LEEP of an ensemble: the log of the mean of its members' expected empirical predictions.

    Shapes: predictions (N, Z), rows of probabilities, Z of each source's own; time O(N·C·Z) a source and O(N) a set.
    Returns: mean log-likelihood of the labels in nats, plus the entropy of the labels: what the set tells beyond the
    shares of the classes. Of one source it is LEEP plus that entropy, never below 0. Several labels a row: the mean
    over labels, each a class of its own against the rest.
    Errors: none of its own.

    The paper compares sets of one size, and the entropy that is added here changes nothing among these; it makes 0 of
    no sources. A set may be worth less than one of its members, and then none joins. The tables behind the expected
    predictions are made of the same rows, as in LEEP: a source with many classes knows few rows by heart.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label", "multi_label", "tagging"))
    claims = ("candidate_order", "class_names", "duplicate_adds_nothing", "single_is_rank")
    cites = "arXiv:2111.13011"

    def __call__(self, candidates: Sequence[Candidate]) -> SetFunction:
        if not candidates:
            return lambda _: 0.0
        known = one_by_one(candidates[0].labels, candidates[0].classes)
        told = [[expected_predictions(c.predictions, y, classes) for y, classes in known] for c in candidates]
        shares = float(np.mean([entropy(y) for y, _ in known]))

        def value(members: Sequence[int]) -> float:
            if not members:
                return 0.0
            return float(np.log(np.mean([told[i] for i in members], axis=0)).mean()) + shares

        return value
