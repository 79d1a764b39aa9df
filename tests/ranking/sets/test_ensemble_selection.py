"""Ensemble selection against scikit-learn's losses of the averaged tables, and against all sets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, r2_score

from headstart.core import TaskType, Unfit
from headstart.ranking.sets import choose
from headstart.ranking.sets.ensemble_selection import EnsembleSelection
from headstart.testing.ranking_sets import SOURCES, draw, subsets

Array = np.ndarray[Any, Any]


def direct(method: EnsembleSelection, task: TaskType, y: Array, tables: list[Array]) -> float:
    mean = np.mean(tables, axis=0)
    if task == "regression":
        return float(r2_score(y, mean[:, 0]))

    def loss(table: Array) -> float:
        if task == "multi_label":
            columns = range(y.shape[1])
            if method.loss == "log":
                return float(sum(log_loss(y[:, c], table[:, c], labels=[0, 1]) for c in columns))
            return float(sum(brier_score_loss(y[:, c], table[:, c]) for c in columns))
        if method.loss == "log":
            return float(log_loss(y, table, labels=[0, 1, 2]))
        return float(np.mean(np.sum((table - np.eye(3)[y]) ** 2, axis=1)))

    shares = y.mean(axis=0) if y.ndim == 2 else np.bincount(y, minlength=3) / len(y)
    return loss(np.tile(shares, (len(y), 1))) - loss(mean)


@pytest.mark.parametrize("method", [EnsembleSelection(), EnsembleSelection(loss="brier")], ids=["log", "brier"])
@pytest.mark.parametrize("task", ["single_label", "multi_label", "regression"])
@settings(max_examples=4)
@given(seed=st.integers(0, 999))
def test_equals_the_loss_of_the_average(method: EnsembleSelection, task: TaskType, seed: int) -> None:
    drawn = draw(method, seed, task=task)
    value = method(drawn)
    for s in subsets()[1::3]:
        want = direct(method, task, drawn[0].known, [drawn[i].scored for i in s])
        assert value(s) == pytest.approx(want, rel=1e-9, abs=1e-9)


@settings(max_examples=10)
@given(seed=st.integers(0, 999), most=st.integers(1, SOURCES))
def test_all_sets_hold_none_that_is_better_than_the_one_chosen(seed: int, most: int) -> None:
    drawn = draw(EnsembleSelection(), seed)
    y, tables = drawn[0].known, [c.scored for c in drawn]
    best = max(
        direct(EnsembleSelection(), "single_label", y, [tables[i] for i in s]) for s in subsets()[1:] if len(s) <= most
    )
    found = choose(drawn, most, exhaustively=True)
    assert found.values[-1] == pytest.approx(best, abs=1e-9)
    assert choose(drawn, most).values[-1] <= found.values[-1] + 1e-9


def test_two_that_err_on_different_rows_are_better_than_any_one() -> None:
    y = np.arange(60) % 3
    vague = 0.2 * np.eye(3)[y] + 0.8 / 3
    odd = np.arange(60) % 2 == 0
    halves = [np.where(side[:, None], 0.97 * np.eye(3)[y] + 0.01, 1 / 3) for side in (odd, ~odd)]
    one = draw(EnsembleSelection(), 0, rows=60)[0]
    drawn = [replace(one, known=y, scored=table) for table in (vague, *halves)]
    found = choose(drawn, 3)
    assert set(found.members) == {1, 2}
    assert found.values[1] > found.values[0] > EnsembleSelection()(drawn)([0])


def test_rows_that_one_candidate_lacks_count_for_none() -> None:
    drawn = draw(EnsembleSelection(), 1)
    holes = drawn[1].scored.copy()
    holes[:10] = np.nan
    value = EnsembleSelection()([drawn[0], replace(drawn[1], scored=holes)])
    fewer = [replace(c, known=c.known[10:], scored=c.scored[10:]) for c in drawn[:2]]
    assert [value(s) for s in ([0], [1], [0, 1])] == [EnsembleSelection()(fewer)(s) for s in ([0], [1], [0, 1])]
    with pytest.raises(Unfit, match="none of 40"):
        EnsembleSelection()([replace(drawn[0], scored=np.full((40, 3), np.nan))])


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(Unfit, match="hinge"):
        EnsembleSelection(loss="hinge")  # type: ignore[arg-type]  # what a person may type
