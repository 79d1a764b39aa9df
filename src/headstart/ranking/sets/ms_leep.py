"""MS-LEEP: the LEEP scores of several sources, added up.

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
class MSLEEP:
    """Multi-source LEEP: the sum over sources of what each tells of the labels on its own.

    Shapes: predictions (N, Z), rows of probabilities, Z of each source's own; time O(N·C·Z) a source.
    Returns: the sum of the members' LEEP, each plus the entropy of the labels, in nats; never below 0.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: none of its own.

    The paper compares sets of one size, and the entropy that is added here changes nothing among these; without it
    every source would make a set worse. Sources are taken to be independent of each other, so the best set is that of
    the best sources, copies among them: it says what to look at, and nothing of what an ensemble gains.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label", "multi_label", "tagging"))
    claims = ("submodular", "monotone", "candidate_order", "class_names", "single_is_rank")
    cites = "arXiv:2111.13011"

    def __call__(self, candidates: Sequence[Candidate]) -> SetFunction:
        if not candidates:
            return lambda _: 0.0
        known = one_by_one(candidates[0].labels, candidates[0].classes)
        said = [[expected_predictions(c.predictions, y, classes) for y, classes in known] for c in candidates]
        told = [float(np.log(one).mean()) for one in said]
        shares = float(np.mean([entropy(y) for y, _ in known]))
        # below 0 by rounding alone: the logarithm of a mean is at least the mean of the logarithms
        gains = [max(one + shares, 0.0) for one in told]
        return lambda members: sum((gains[i] for i in members), 0.0)
