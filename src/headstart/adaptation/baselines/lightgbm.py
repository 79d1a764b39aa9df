"""LightGBM: gradient boosted trees on feature columns.

Ke, Meng, Finley, Wang, Chen, Ma, Ye and Liu, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.numerics.artifacts import Array, Table
from headstart.numerics.inner import inner_folds
from headstart.numerics.steps import Matrix, apply, constant, features, prior, spread
from headstart.numerics.steps_table import fit_columns, trees


@dataclass(frozen=True, kw_only=True, slots=True)
class LightGBM:
    """Boosted trees, with leaves that grow smaller when there are few rows, and rounds fixed or stopped early.

    Shapes: D columns, missing numbers as they are, at most `levels` columns a category; float64.
    Returns: a `Table`: `columns` and `trees`. State: none; a longer schedule starts again, as rounds are cheap.
    Errors: `Unfit` for settings outside their range.

    A step is a round. With early stopping, a fifth of the training rows says when to end, and the trees are then grown
    again on all of them. One thread, and row-wise histograms: the same rows give the same trees.
    """

    needs = Needs(tasks=("single_label", "regression"), modalities=("table",))
    claims = ("learns_separable", "chance_when_permuted", "numbers_in_their_unit", "column_units")
    cites = "NIPS 2017, 6907"

    rounds: int = 100  # without early stopping
    most_rounds: int = 500  # with early stopping
    patience: int = 30  # rounds without a better inner loss
    learning_rate: float = 0.1
    leaves: int = 31
    levels: int = 100

    def __post_init__(self) -> None:
        whole = min(self.rounds, self.most_rounds, self.patience, self.leaves - 1, self.levels)
        if whole < 1 or not 0 < self.learning_rate <= 1:
            raise Unfit(
                f"rounds, patience and levels are at least 1, leaves 2, learning_rate within (0, 1]; these are {self}",
                where="LightGBM(rounds=…, leaves=…, learning_rate=…)",
                fix="leave out what you do not need to change",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:  # noqa: ARG002  # the shape of its kind
        read, labels = fit_columns(view.train.columns, filled=False, most_levels=self.levels), view.train.labels
        present = np.unique(labels)
        if len(present) < 2:
            flat = Table((constant(prior(labels, view.task, view.classes)),))
            return Fitted(flat, apply(flat, view.valid))
        x = features([read], view.train)
        y = labels if view.task == "regression" else np.searchsorted(present, labels)
        horizon = steps.horizon or (self.most_rounds if steps.early_stop else self.rounds)
        rounds = max(1, round(steps.until * horizon))
        if steps.early_stop:
            inner = inner_folds(view.train.ids, y, 5) == 0
            rounds = self._stop(x, y, inner, view.task, view.seed, rounds)
        settings = self._settings(y, view.task, view.seed)
        booster = lightgbm.train(settings, lightgbm.Dataset(x, y, params=settings), num_boost_round=rounds)
        outputs = present if view.task == "single_label" else np.arange(1)
        table = Table((read, trees(booster), *spread(outputs, view.classes or 1)))
        facts = {"steps": rounds, "horizon": horizon}
        return Fitted(table, apply(table, view.valid), fraction=rounds / horizon, facts=facts)

    def _stop(self, x: Matrix, y: Array, inner: Array, task: str, seed: int, most: int) -> int:
        """The round of the lowest loss on the inner rows, of trees grown on the others."""
        if inner.all() or not inner.any() or (task != "regression" and len(np.unique(y[~inner])) < len(np.unique(y))):
            return min(most, self.rounds)
        settings = self._settings(y, task, seed)
        train = lightgbm.Dataset(x[~inner], y[~inner], params=settings)
        booster = lightgbm.train(
            settings,
            train,
            num_boost_round=most,
            valid_sets=[train.create_valid(x[inner], y[inner], params=settings)],
            callbacks=[lightgbm.early_stopping(self.patience, verbose=False)],
        )
        return max(int(booster.best_iteration), 1)

    def _settings(self, y: Array, task: str, seed: int) -> dict[str, Any]:
        classes = 0 if task == "regression" else len(np.unique(y))
        kind: dict[str, Any] = {"objective": "regression"}
        if classes:
            kind = {"objective": "multiclass", "num_class": classes} if classes > 2 else {"objective": "binary"}
        return kind | {
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": max(2, min(20, len(y) // (10 * max(classes, 2)))),
            "min_data_in_bin": 1,
            "feature_pre_filter": False,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed,
            "verbose": -1,
        }
