"""Logistic or ridge regression on feature columns.

Hoerl and Kennard, "Ridge Regression", Technometrics 1970; Cox, "The Regression Analysis of Binary Sequences", JRSS B
1958.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.numerics.artifacts import Table
from headstart.numerics.linear_fit import STRENGTHS, fit_linear
from headstart.numerics.steps import apply, features
from headstart.numerics.steps_table import fit_columns


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnLinear:
    """Numbers filled and scaled, categories one column a level, then a linear model with its strength chosen inside.

    Shapes: D columns become numbers, marks of missing cells, and at most `levels` columns a category; float64.
    Returns: a `Table`: `columns` and a linear step.
    Errors: `Unfit` for a strength or a number of levels that is not positive.

    A level that the training rows do not have, and a missing one, are all zeros.
    """

    needs = Needs(tasks=("single_label", "multi_label", "regression"), modalities=("table",))
    claims = ("learns_separable", "chance_when_permuted", "numbers_in_their_unit", "column_units")
    cites = "doi:10.1080/00401706.1970.10488634"

    levels: int = 100
    strengths: tuple[float, ...] = (0.01, *STRENGTHS)  # C of the logistic model, one of which is chosen

    def __post_init__(self) -> None:
        if self.levels < 1 or not self.strengths or min(self.strengths) <= 0:
            raise Unfit(
                f"levels {self.levels} and strengths {self.strengths} are above 0",
                where="ColumnLinear(levels=…, strengths=…)",
                fix="leave out what you do not need to change",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:  # noqa: ARG002  # the shape of its kind
        read = fit_columns(view.train.columns, filled=True, most_levels=self.levels)
        x = features([read], view.train)
        fit = fit_linear(x, view.train.labels, view.task, view.classes, view.train.ids, strengths=self.strengths)
        table = Table((read, *fit.steps))
        return Fitted(table, apply(table, view.valid), facts=fit.facts)
