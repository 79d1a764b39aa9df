"""PARC by pandas' and scipy's correlations, and the ceilings that its docstring names."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from headstart.ranking.estimators.parc import PARC
from headstart.testing.ranking_estimators import draw, score


@pytest.mark.parametrize(("rows", "width", "classes"), [(60, 8, 3), (25, 100, 5), (40, 2, 2)])
def test_equals_scipy(rows: int, width: int, classes: int) -> None:
    f, y = draw(0, rows, width, classes, apart=0.8)
    f = np.round(f, 6)
    z = (f - f.mean(0)) / f.std(0)
    upper = np.triu_indices(rows, 1)
    apart = np.round(1 - np.corrcoef(z)[upper], 9)
    named = np.round(1 - np.corrcoef(np.eye(classes)[y])[upper], 9)
    assert score(PARC(), f, y, classes) == pytest.approx(100 * spearmanr(apart, named).statistic, abs=1e-7)


def test_several_labels() -> None:
    chance = np.random.default_rng(1)
    f, y = chance.standard_normal((30, 6)), (chance.random((30, 5)) < 0.5).astype(np.int8)
    y[:, 0] = 1 - y[:, 1]  # no row is constant
    upper = np.triu_indices(30, 1)
    z = (f - f.mean(0)) / f.std(0)
    want = spearmanr(1 - np.corrcoef(z)[upper], np.round(1 - np.corrcoef(y)[upper], 9)).statistic
    assert score(PARC(), f, y, 5, task="multi_label") == pytest.approx(100 * want, abs=1e-6)


def test_perfect_features_reach_100_only_where_classes_are_equal() -> None:
    even = np.repeat(np.arange(4), 25)
    assert score(PARC(), np.eye(4)[even], even, 4) == pytest.approx(100.0)
    uneven = np.repeat(np.arange(4), (60, 30, 20, 10))
    assert score(PARC(), np.eye(4)[uneven], uneven, 4) == pytest.approx(84.8, abs=0.1)  # as measured elsewhere


def test_of_many_rows_a_part_is_compared() -> None:
    f, y = draw(2, 600, 6, 3, apart=1.0)
    assert score(PARC(rows=200), f, y) == pytest.approx(score(PARC(rows=600), f, y), abs=6)


def test_values_are_compared_by_their_difference() -> None:
    chance = np.random.default_rng(2)
    f, y = chance.standard_normal((40, 6)), chance.standard_normal(40)
    upper = np.triu_indices(40, 1)
    z = (f - f.mean(0)) / f.std(0)
    want = spearmanr(1 - np.corrcoef(z)[upper], np.abs(y[:, None] - y)[upper]).statistic
    for unit in (1.0, 1e-12, 1e12):
        assert score(PARC(), f, unit * y, 0, task="regression") == pytest.approx(100 * want, abs=1e-5)
    line = np.linspace(-1, 1, 40)[:, None]
    assert score(PARC(), line, line[:, 0] * 5, 0, task="regression") == pytest.approx(100.0), "one feature, the value"
