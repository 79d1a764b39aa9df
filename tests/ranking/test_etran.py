"""ETran's parts by scikit-learn, and the wide noise that the published parts are perfect on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from headstart.ranking.estimators.etran import ETran
from headstart.testing.ranking_estimators import dealt, draw, score

Array = np.ndarray[Any, Any]


def familiar(f: Array) -> float:
    """The first part, of logits f."""
    centred = f - f.mean(axis=1, keepdims=True)
    energy = np.log(np.exp(centred).mean(axis=1))
    return float((energy / (1 + energy)).mean())


@pytest.mark.parametrize(("rows", "width"), [(90, 6), (30, 50)])
def test_labels_by_scikit_learns_discriminant(rows: int, width: int) -> None:
    f, y = draw(0, rows, width, 3, apart=0.6)
    folds, told = dealt(y), []
    for fold in range(5):
        train, valid = folds != fold, folds == fold
        scale = StandardScaler().fit(f[train])
        x = scale.transform(f[train])
        within = x - np.stack([x[y[train] == c].mean(0) for c in y[train]])
        alpha = ledoit_wolf_shrinkage(within, assume_centered=True)
        fit = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=alpha).fit(x, y[train])
        told += list(fit.predict_proba(scale.transform(f[valid]))[np.arange(valid.sum()), y[valid]])
    assert score(ETran(), f, y, folds=folds) == pytest.approx(familiar(f) + np.mean(told), rel=1e-6)


def test_values_by_scikit_learns_ridge() -> None:
    chance = np.random.default_rng(1)
    f = chance.standard_normal((60, 5))
    y = f[:, 0] + 0.5 * chance.standard_normal(60)
    folds, errors, naive = dealt(y), 0.0, 0.0
    for fold in range(5):
        train, valid = folds != fold, folds == fold
        scale = StandardScaler().fit(f[train])
        fit = Ridge(alpha=1 / 0.1).fit(scale.transform(f[train]), y[train])
        errors += np.square(y[valid] - fit.predict(scale.transform(f[valid]))).sum()
        naive += np.square(y[valid] - y[train].mean()).sum()
    found = score(ETran(strengths=(0.1,)), f, y, 0, task="regression", folds=folds)
    assert found == pytest.approx(familiar(f) + 1 - errors / naive, rel=1e-5)  # heads are float32


def test_wide_noise_is_at_chance() -> None:
    noise, y = np.random.default_rng(0).standard_normal((120, 256)), np.arange(120) % 4
    assert score(ETran(), noise, y, 4) - familiar(noise) == pytest.approx(0.25, abs=0.1)
