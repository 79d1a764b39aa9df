"""Majority: the class frequencies of the training rows, or their mean, for every row.

The null system of any comparison; for class labels also called the zero rule (Holte, "Very Simple Classification Rules
Perform Well on Most Commonly Used Datasets", Machine Learning 1993, names it as the reference).
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Fitted, FitView, Needs, State, Steps
from headstart.numerics.artifacts import Table
from headstart.numerics.steps import apply, constant, prior


@dataclass(frozen=True, kw_only=True, slots=True)
class Majority:
    """The same prediction for every row: class frequencies, label frequencies, or the mean.

    Shapes: reads labels only, (N,) or (N, C); cost O(N).
    Returns: a `Table` of one constant row.
    Errors: none of its own.
    """

    needs = Needs(tasks=("single_label", "multi_label", "regression"))
    claims = ("blind", "train_order")
    cites = "doi:10.1023/A:1022631118932"

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:  # noqa: ARG002  # the shape of its kind
        table = Table((constant(prior(view.train.labels, view.task, view.classes)),))
        return Fitted(table, apply(table, view.valid))
