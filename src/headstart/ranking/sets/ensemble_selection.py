"""Ensemble selection: the sources whose probes, averaged, predict best.

Caruana, Niculescu-Mizil, Crew and Ksikes, "Ensemble Selection from Libraries of Models", ICML 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.core import Candidate, Needs, SetFunction, Unfit
from headstart.numerics.moments import Array, targets_of


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleSelection:
    """What the average of cross-validated probes gains over the shares of the classes, or over the mean.

    Shapes: tables (N, C), of which the rows that all candidates have count; time O(N·C) for each member of a set.
    Returns: by how much the loss of the average is below that of predicting the shares (the mean) for every row:
    squared error of the probabilities for `brier`, nats a row for `log`; for regression R² of the average, with either.
    Errors: `Unfit` when no row has been scored for all candidates.

    Works with any source, as a probe needs features alone. The paper selects on the metric at hand and with repetition;
    here a smooth loss decides, which tells sets apart that a metric of few rows cannot, and each source is taken once,
    so that all weigh the same. Sources that each narrow the label down to another half of the classes gain nothing by
    `log`, which reads the probability of the label alone, though their average names it; by `brier` they do. No probe
    has seen the row it predicts, yet the choice has: judge the chosen set on rows of other folds.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"), probe=True)
    claims = ("candidate_order", "class_names", "duplicate_adds_nothing", "single_is_rank")
    cites = "doi:10.1145/1015330.1015432"

    loss: Literal["brier", "log"] = "brier"

    def __post_init__(self) -> None:
        if self.loss not in ("brier", "log"):
            raise Unfit(f"loss is {self.loss!r}", where="EnsembleSelection(loss=…)", fix="use brier or log")

    def __call__(self, candidates: Sequence[Candidate]) -> SetFunction:
        if not candidates:
            return lambda _: 0.0
        first, tables = candidates[0], np.stack([np.asarray(c.table, dtype=np.float64) for c in candidates])
        whole = np.asarray(~np.isnan(tables).any(axis=(0, 2)))
        if not whole.any():
            raise Unfit(
                f"none of {len(whole)} labelled rows has a prediction of every candidate",
                where="the folds of the target",
                fix="label more rows; two rows of each class are the least",
            )
        tables, truth = tables[:, whole], targets_of(np.asarray(first.labels)[whole], first.classes)
        worst = self._loss(np.broadcast_to(truth.mean(axis=0), truth.shape), truth, first.task)
        unit = (worst or 1.0) if first.task == "regression" else 1.0

        def value(members: Sequence[int]) -> float:
            if not members:
                return 0.0
            return (worst - self._loss(tables[list(members)].mean(axis=0), truth, first.task)) / unit

        return value

    def _loss(self, table: Array, truth: Array, task: str) -> float:
        """The mean over rows; of several labels, the sum of theirs."""
        if task == "regression" or self.loss == "brier":
            return float(np.square(table - truth).sum(axis=1).mean())
        right = truth * table
        right = right.sum(axis=1, keepdims=True) if task == "single_label" else right + (1 - truth) * (1 - table)
        return float(-np.log(np.clip(right, np.finfo(np.float64).eps, 1)).sum(axis=1).mean())
