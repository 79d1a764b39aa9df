"""NCTI: its three shares by scikit-learn's probabilities, and both ends of its range."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from headstart.ranking.estimators.ncti import NCTI
from headstart.testing.ranking_estimators import dealt, draw, score


def test_equals_the_shares_written_out() -> None:
    f, y = draw(0, 90, 6, 3, apart=0.5)
    y = np.where(np.arange(90) < 20, 0, y)  # classes of unequal size
    folds, told = dealt(y), np.empty((90, 3))
    for fold in range(5):
        train, valid = folds != fold, folds == fold
        scale = StandardScaler().fit(f[train])
        x = scale.transform(f[train])
        within = x - np.stack([x[y[train] == c].mean(0) for c in y[train]])
        alpha = ledoit_wolf_shrinkage(within, assume_centered=True)
        fit = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=alpha).fit(x, y[train])
        told[valid] = fit.predict_proba(scale.transform(f[valid]))
    hot = np.eye(3)[y]
    right = told[np.arange(90), y].mean()
    spread = np.linalg.norm(told - told.mean(0), "nuc") / np.linalg.norm(hot - hot.mean(0), "nuc")
    ratios = [np.linalg.norm(told[y == c], "nuc") / np.linalg.norm(told[y == c]) for c in range(3)]
    collapsed = np.mean([(np.sqrt(3) - r) / (np.sqrt(3) - 1) for r in ratios])
    assert score(NCTI(), f, y, folds=folds) == pytest.approx((right + spread + collapsed) / 3, rel=1e-6)


def test_collapsed_classes_reach_1_and_noise_does_not() -> None:
    y = np.arange(90) % 3
    chance = np.random.default_rng(0)
    assert score(NCTI(), 50 * np.eye(3)[y] + chance.standard_normal((90, 3)), y) == pytest.approx(1.0, abs=1e-6)
    assert score(NCTI(), chance.standard_normal((90, 300)), y) < 0.6
    assert score(NCTI(), np.zeros((90, 4)), y) == pytest.approx((1 / 3 + 0 + 1) / 3, abs=0.01), "the labels' shares"


def test_few_rows_and_dimensions_will_do() -> None:
    """The published code asks for 64 of both."""
    f, y = draw(0, 12, 2)
    assert 0 < score(NCTI(), f, y) <= 1
