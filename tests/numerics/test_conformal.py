"""Intervals for a new target: against MAPIE, hand-made quantiles, and how often they hold the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from headstart.core import Experience, Unfit
from headstart.numerics.conformal import by_target, forecast, others

Array = np.ndarray[Any, Any]


def least_squares(past: Experience) -> Any:
    design = np.column_stack([np.ones(len(past.values)), past.features])
    weights, *_ = np.linalg.lstsq(design, past.values, rcond=None)
    return lambda features: np.column_stack([np.ones(len(features)), features]) @ weights


def mean(past: Experience) -> Any:
    level = float(by_target(past) @ past.values)
    return lambda features: np.full(len(features), level)


def test_equals_mapie_where_each_target_has_one_source() -> None:
    from mapie.regression import CrossConformalRegressor
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import LeaveOneOut

    chance = np.random.default_rng(0)
    features = chance.standard_normal((37, 2))
    values = features @ [1.0, -0.5] + chance.standard_normal(37)
    new = chance.standard_normal((9, 2))
    level = 33.5 / 38  # 34 of 37 is the first share above 0.9; they count one target more, at infinity
    theirs = CrossConformalRegressor(LinearRegression(), confidence_level=level, method="plus", cv=LeaveOneOut())
    theirs.fit_conformalize(features, values)
    _, spans = theirs.predict_interval(new)
    ours = forecast(least_squares, Experience(features, values, np.arange(37)), new)
    np.testing.assert_allclose(ours.lows, np.minimum(spans[:, 0, 0], ours.values), rtol=1e-9)
    np.testing.assert_allclose(ours.highs, np.maximum(spans[:, 1, 0], ours.values), rtol=1e-9)


def test_targets_count_alike_however_many_sources_they_have() -> None:
    """Of nine targets, the one of the widest errors decides at 90 %, with one row or a hundred."""
    values = np.concatenate([np.zeros(8 * 5), [4.0], np.full(100, 4.0)])
    numbers = np.concatenate([np.repeat(np.arange(8), 5), [8], np.full(100, 8)])
    one = Experience(np.zeros((41, 1)), values[:41], numbers[:41])
    many = Experience(np.zeros((141, 1)), values, numbers)
    a, b = (forecast(mean, past, np.zeros((1, 1))) for past in (one, many))
    assert a.rule == b.rule == "jackknife+"
    assert a.highs == pytest.approx(b.highs)
    assert a.highs[0] == pytest.approx(4.0)  # 0 without that target, and 4 away


def test_few_targets_take_students_t() -> None:
    past = Experience(np.zeros((4, 1)), np.array([0.0, 1.0, 2.0, 3.0]), np.arange(4))
    told = forecast(mean, past, np.zeros((1, 1)))
    off = [abs(v - np.mean([w for w in range(4) if w != v])) for v in range(4)]
    half = t.ppf(0.95, 3) * np.sqrt(np.mean(np.square(off)))
    assert told.rule == "student"
    assert (told.lows[0], told.highs[0]) == pytest.approx((1.5 - half, 1.5 + half))


def test_two_targets_are_refused() -> None:
    past = Experience(np.zeros((4, 1)), np.zeros(4), np.array([0, 0, 1, 1]))
    with pytest.raises(Unfit, match="2 past targets"):
        forecast(mean, past, np.zeros((1, 1)))


def test_others_leave_whole_targets_out() -> None:
    past = Experience(np.arange(5.0)[:, None], np.arange(5.0), np.array([3, 1, 3, 1, 2]))
    assert [left.values.tolist() for _, left in others(past)] == [[1, 3], [4], [0, 2]]
    assert all(not set(rest.targets) & set(left.targets) for rest, left in others(past))


@pytest.mark.parametrize(("targets", "rule"), [(6, "student"), (15, "jackknife+")])
def test_nine_in_ten_new_targets_are_held(targets: int, rule: str) -> None:
    """Rows of a target share a level, so intervals made of rows alone would be far too narrow."""
    chance, held = np.random.default_rng(1), []
    for _ in range(150):
        features = chance.standard_normal(((targets + 1) * 4, 2))
        level = np.repeat(chance.standard_normal(targets + 1), 4)
        values = features.sum(axis=1) + level + 0.3 * chance.standard_normal(len(level))
        numbers = np.repeat(np.arange(targets + 1), 4)
        old = numbers < targets
        told = forecast(least_squares, Experience(features[old], values[old], numbers[old]), features[~old])
        assert told.rule == rule
        held.append(np.mean((told.lows <= values[~old]) & (values[~old] <= told.highs)))
    error = np.std(held) / np.sqrt(len(held))
    assert abs(np.mean(held) - 0.9) <= 0.02 + 3 * error
