"""LDA against scikit-learn's, fold by fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from headstart.core import Unfit
from headstart.ranking.estimators.lda import LDA
from headstart.testing.ranking_estimators import dealt, draw, seen


@pytest.mark.parametrize(("rows", "width"), [(150, 10), (40, 60)])
@pytest.mark.parametrize("shrinkage", [0.3, None])
def test_predicts_as_scikit_learn(rows: int, width: int, shrinkage: float | None) -> None:
    f, y = draw(0, rows, width, 3, apart=0.35)
    f[:, 1] *= 100
    folds, method = dealt(y), LDA(shrinkage=shrinkage, block=11)
    given = method(seen(method, f, y, folds=folds))
    assert given.losses is not None
    for fold in range(5):
        train, valid = folds != fold, folds == fold
        z = (f - f[train].mean(0)) / f[train].std(0)
        within = z[train] - np.stack([z[train & (y == c)].mean(0) for c in y[train]])
        alpha = ledoit_wolf_shrinkage(within, assume_centered=True) if shrinkage is None else shrinkage
        peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=alpha).fit(z[train], y[train])
        np.testing.assert_array_equal(given.losses[valid], peer.predict(z[valid]) != y[valid])


def test_one_row_a_class_is_the_nearest_mean() -> None:
    f, y = np.array([[0.0, 1.0], [0.1, 1.0], [5.0, 1.0], [5.1, 1.0]]), np.array([0, 0, 1, 1])
    assert LDA()(seen(LDA(), f, y, 2, folds=np.array([0, 1, 0, 1]))).value == 1


def test_shrinkage_is_a_fraction() -> None:
    with pytest.raises(Unfit):
        LDA(shrinkage=1.5)
