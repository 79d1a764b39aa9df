"""TaskShop: a source is as good as it was for other tasks, and as these are like the target.

Kim, Asai, Ilharco and Hajishirzi, "TaskWeb: Selecting Better Source Tasks for Multi-task NLP", EMNLP 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Guess, Known, Needs, Unfit
from headstart.numerics.records import Records, nearness, standard


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskShop:
    """Mean over pivot tasks of recorded transfer and similarity, mixed with the similarity of the source's own task.

    value(s) = weight · mean over p of (T(s, p) + F(p, t)) / 2 + (1 - weight) · F(s, t), p any past target that s was
    tried on and was not trained on; T: the figure of s on p, F: the similarity of two tasks.

    Shapes: records (T, S), similarities (T,); cost T·S.
    Returns: values (S,); no errors. F is 0, the mean, where a similarity or what a source was trained on is unknown.
    Errors: `Unfit` when weight lies outside [0, 1].

    Both terms are in standard deviations: T within its pivot, F over past targets. The published code mixes a
    percentage of improvement and a share of positive runs with a cosine of another scale, and keys its table target
    first. As published, F(p, t) enters as a sum, so it shifts all sources that were tried on the same pivots alike.
    """

    needs = Needs(labels=False)
    claims = ("source_order", "target_order", "scale", "direction", "finds_the_best")
    cites = "arXiv:2305.13256"

    # of the pivots, 0 to 1; with 0 sources are ranked by the similarity of their own task alone
    weight: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise Unfit(
                f"weight is {self.weight}, and must lie between 0 and 1",
                where="TaskShop(weight=…)",
                fix="use 0.7, the default",
            )

    def __call__(self, records: Records, target: Known) -> Guess:
        transfer = records.standardised()
        near, _ = nearness(records, target)
        alike = np.where(np.isfinite(near), standard(near), 0.0)
        pivots = np.isfinite(transfer)
        own = records.own
        trained = own >= 0
        pivots[own[trained], np.flatnonzero(trained)] = False
        counts = pivots.sum(axis=0)
        sums = np.where(pivots, transfer + alike[:, None], 0.0).sum(axis=0) / 2
        similarity = np.where(trained, alike[own], 0.0)
        values = self.weight * sums / np.maximum(counts, 1) + (1 - self.weight) * similarity
        return Guess(np.where(counts > 0, values, np.nan))
