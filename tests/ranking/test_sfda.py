"""SFDA by scikit-learn's discriminant analysis, fitted twice, fold by fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from headstart.ranking.estimators.sfda import SFDA
from headstart.testing.ranking_estimators import dealt, draw, score

Array = np.ndarray[Any, Any]


def fitted(x: Array, y: Array) -> LinearDiscriminantAnalysis:
    means = np.stack([x[y == c].mean(0) for c in y])
    alpha = ledoit_wolf_shrinkage(x - means, assume_centered=True)
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=alpha).fit(x, y)


@pytest.mark.parametrize(("rows", "width"), [(90, 6), (30, 50)])
def test_equals_two_fits_of_scikit_learn(rows: int, width: int) -> None:
    f, y = draw(0, rows, width, 3, apart=0.6)
    f = f * 40 + 7
    folds, told = dealt(y), []
    for fold in range(5):
        train, valid = folds != fold, folds == fold
        x = (f[train] - f[train].mean(0)) / f[train].std(0)
        new = (f[valid] - f[train].mean(0)) / f[train].std(0)
        sure = softmax(fitted(x, y[train]).predict_proba(x), axis=1)[np.arange(train.sum()), y[train]]
        means = np.stack([x[y[train] == c].mean(0) for c in range(3)])
        others = np.stack([means[[k for k in range(3) if k != c]].mean(0) for c in y[train]])
        mixed = sure[:, None] * x + (1 - sure)[:, None] * others
        told += list(fitted(mixed, y[train]).predict_proba(new)[np.arange(valid.sum()), y[valid]])
    assert score(SFDA(), f, y, folds=folds) == pytest.approx(np.mean(told), rel=1e-6)


def test_wide_noise_is_at_chance() -> None:
    """The published score, of the rows that were fitted, is 1 here."""
    noise = np.random.default_rng(0).standard_normal((120, 256))
    assert score(SFDA(), noise, np.arange(120) % 4, 4) == pytest.approx(0.25, abs=0.1)
