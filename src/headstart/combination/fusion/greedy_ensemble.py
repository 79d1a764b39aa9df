"""Greedy ensemble selection: add, again and again, the member that helps the blend most.

Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models", ICML 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import METRICS, Needs, Unfit
from headstart.numerics import metrics

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class GreedyEnsemble:
    """Weights by greedy selection with replacement on the target's metric.

    Starts from the best member, adds in each round the one that makes the mean of those chosen best, and returns the
    round that was best. Of equal metrics the smaller loss wins (log loss, squared error), then the earlier member.

    Shapes: tables (members, N, C) float64; cost rounds · members evaluations of the metric.
    Returns: weights (members,): how often each was chosen, over the number of choices; they sum to one.
    Errors: `Unfit` when rounds or patience is not above 0.

    On the rows it sees it is never worse than the best member; with many members and few rows this is optimistic, so
    judge it on rows of other folds.
    """

    needs = Needs()
    claims = ("never_below_the_best", "copies", "member_order", "row_order")
    cites = "doi:10.1145/1015330.1015432"

    rounds: int = 25
    # rounds without a better blend, after which the selection ends
    patience: int = 5

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.patience < 1:
            raise Unfit(
                f"rounds is {self.rounds} and patience {self.patience}, and both must be above 0",
                where="GreedyEnsemble(rounds=…, patience=…)",
                fix="use 25 and 5, the defaults",
            )

    def __call__(self, tables: Sequence[Array], labels: Array, metric: str) -> Array:
        total = np.zeros_like(np.asarray(tables[0], dtype=np.float64))
        counts = np.zeros(len(tables))
        best, kept, stale = (-np.inf, -np.inf), counts, 0
        for size in range(1, self.rounds + 1):
            scores = [_score((total + table) / size, labels, metric) for table in tables]
            pick = max(range(len(scores)), key=scores.__getitem__)  # the first of equals
            total, counts = total + tables[pick], counts + np.eye(len(tables))[pick]
            if scores[pick] > best:
                best, kept, stale = scores[pick], counts, 0
            else:
                stale += 1
                if stale == self.patience:
                    break
        return np.asarray(kept / kept.sum())


def _score(table: Array, labels: Array, metric: str) -> tuple[float, float]:
    """(metric, minus loss), both so that higher is better, and rounded so that sums in another order are equal."""
    value = METRICS[metric].sign * metrics.value(metric, labels, table)
    return round(value, 12), round(-float(metrics.row_losses(metric, labels, table).mean()), 12)
