"""PED: pushes by a loop over pairs on raw rows, its limits, and the discriminant by scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from headstart.core import Unfit
from headstart.ranking.estimators.ped import PED
from headstart.testing.ranking_estimators import dealt, draw, score

Array = np.ndarray[Any, Any]


def pushed(x: Array, y: Array, reach: float, step: float) -> Array:
    """The rows after one step, pair by pair."""
    classes, moved = np.unique(y), x.copy()
    for a in classes:
        for b in classes:
            if a != b:
                one, other = x[y == a], x[y == b]
                way = one.mean(0) - other.mean(0)
                far = np.sqrt(way @ way)
                radii = np.sqrt(one.var(0).sum()) + np.sqrt(other.var(0).sum())
                overlap = max(reach * radii - far, 0.0)
                moved[y == a] += way / far * min(0.5 * step**2 * overlap, overlap)
    return moved


@given(seed=st.integers(0, 999), width=st.integers(1, 20), classes=st.integers(2, 6))
def test_equals_pushes_pair_by_pair(seed: int, width: int, classes: int) -> None:
    x, y = draw(seed, 50, width, classes, apart=0.3)
    want = x
    for _ in range(3):
        want = pushed(want, y, 0.6, 0.8)
    assert np.allclose(PED(step=0.8, steps=3, least=0.0)._descended(x, y), want)


def test_a_push_that_is_not_half_the_first_is_the_end_and_is_not_made() -> None:
    x, y = draw(0, 60, 8, 3, apart=0.4)
    once = pushed(x, y, 0.6, 0.8)
    twice = pushed(once, y, 0.6, 0.8)
    assert 0 < np.abs(twice - once).sum() < 0.5 * np.abs(once - x).sum()
    assert np.allclose(PED(step=0.8)._descended(x, y), once)


def test_classes_that_do_not_overlap_stay_and_so_do_those_with_equal_means() -> None:
    far, y = draw(0, 60, 8, 3, apart=40.0)
    assert np.array_equal(PED()._descended(far, y), far)
    same = np.tile(np.random.default_rng(0).standard_normal((20, 4)), (3, 1))
    assert np.allclose(PED()._descended(same, np.repeat(np.arange(3), 20)), same)


@pytest.mark.parametrize(("rows", "width"), [(90, 6), (30, 50)])
def test_scores_rows_that_were_not_moved(rows: int, width: int) -> None:
    f, y = draw(0, rows, width, 3, apart=0.5)
    folds, told = dealt(y), []
    for fold in range(5):
        train, valid = folds != fold, folds == fold
        x = (f[train] - f[train].mean(0)) / f[train].std(0)
        new = (f[valid] - f[train].mean(0)) / f[train].std(0)
        x = pushed(x, y[train], 0.6, 1.0)
        within = x - np.stack([x[y[train] == c].mean(0) for c in y[train]])
        alpha = ledoit_wolf_shrinkage(within, assume_centered=True)
        fit = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=alpha).fit(x, y[train])
        told += list(fit.predict_proba(new)[np.arange(valid.sum()), y[valid]])
    assert score(PED(step=1.0, steps=1), f, y, folds=folds) == pytest.approx(np.mean(told), rel=1e-6)


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(Unfit, match="step -1"):
        PED(step=-1)
