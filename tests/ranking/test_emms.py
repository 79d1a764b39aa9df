"""EMMS by dense algebra and a general minimiser over the weights, and what tells it from a probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm, rankdata

from headstart.core import Unfit
from headstart.ranking.estimators.emms import EMMS
from headstart.ranking.estimators.ridge_probe import RidgeProbe
from headstart.testing.ranking_estimators import dealt, draw, score, seen

Array = np.ndarray[Any, Any]


def unit(e: Array) -> Array:
    e = e - e.mean(axis=0)
    return np.asarray(e / np.sqrt((e**2).sum(axis=1).mean()))


def embeddings(y: Array, told: Array) -> list[Array]:
    """Of classes, one at a time."""
    hot = np.eye(told.shape[1])[y]
    means = np.stack([told[y == c].mean(axis=0) for c in range(told.shape[1])])
    return [unit(e) for e in (hot, hot / np.sqrt(hot.mean(axis=0)), means[y])]


def direct(f: Array, made: list[Array], folds: Array, penalty: float) -> float:
    """penalty: as a multiple of the mean squared length of a training row."""
    errors = naive = 0.0
    for fold in np.unique(folds[folds >= 0]):
        t, v = folds != fold, folds == fold
        x, mean = f[t] - f[t].mean(axis=0), f[t].mean(axis=0)
        p = penalty * np.square(x).sum() / t.sum()
        right = [e - e[t].mean(axis=0) for e in made]

        def fit(w: Array, x: Array = x, p: float = p, right: list[Array] = right, t: Array = t) -> Array:
            aim = sum(a * e[t] for a, e in zip(w, right, strict=True))
            return np.asarray(np.linalg.solve(x.T @ x + p * np.eye(x.shape[1]), x.T @ aim))

        def loss(w: Array, x: Array = x, p: float = p, right: list[Array] = right, t: Array = t) -> float:
            aim, b = sum(a * e[t] for a, e in zip(w, right, strict=True)), fit(w)
            return float(np.square(aim - x @ b).sum() + p * np.square(b).sum())

        size = len(made)
        w = minimize(
            loss, np.full(size, 1 / size), method="SLSQP", bounds=[(0, 1)] * size,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-14, "maxiter": 500},
        ).x  # fmt: skip
        aim = sum(a * e[v] for a, e in zip(w, right, strict=True))
        errors += np.square(aim - (f[v] - mean) @ fit(w)).sum()
        naive += np.square(aim).sum()
    return 1 - errors / naive


@pytest.mark.parametrize(("rows", "width"), [(90, 6), (40, 60)])
def test_classes_by_dense_algebra(rows: int, width: int) -> None:
    f, y = draw(0, rows, width, 3, apart=0.6)
    y = np.where(np.arange(rows) % 5 == 0, 0, y)  # of unequal shares
    told = np.eye(3)[y] + 0.5 * np.random.default_rng(1).standard_normal((rows, 3))
    folds = dealt(y)
    found = score(EMMS(penalties=(0.1,)), f, y, told=told, folds=folds)
    assert found == pytest.approx(direct(f, embeddings(y, told), folds, 0.1), rel=1e-5)


def test_values_by_dense_algebra() -> None:
    chance = np.random.default_rng(2)
    f = chance.standard_normal((60, 5))
    y = np.exp(f[:, 0] + 0.5 * chance.standard_normal(60))
    made = [unit(y[:, None]), unit(norm.ppf((rankdata(y) - 0.5) / 60)[:, None])]
    folds = dealt(y)
    found = score(EMMS(penalties=(0.01,)), f, y, 0, task="regression", folds=folds)
    assert found == pytest.approx(direct(f, made, folds, 0.01), rel=1e-5)


def test_the_rank_of_a_skewed_value_is_what_a_linear_map_can_tell() -> None:
    chance = np.random.default_rng(3)
    f = chance.standard_normal((120, 4))
    y = np.exp(2 * f[:, 0])
    plain = score(RidgeProbe(), f, y, 0, task="regression")
    assert score(EMMS(), f, y, 0, task="regression") > plain + 0.2


def test_the_embedding_of_confused_classes_is_easier_than_their_names() -> None:
    """Four classes of which a system without transfer, like the features, knows in which half they are."""
    f, half = draw(4, 120, 6, 2, apart=1.5)
    y = 2 * half + np.random.default_rng(0).integers(0, 2, 120)
    told = 0.5 * np.eye(2)[half].repeat(2, axis=1)
    assert score(EMMS(), f, y, 4, told=told) > score(EMMS(), f, y, 4) + 0.1


def test_with_one_embedding_it_is_the_ridge_probe() -> None:
    f, y = draw(5, 60, 8, 3, apart=0.7)
    same = EMMS(penalties=RidgeProbe().penalties)
    assert score(same, f, y) == pytest.approx(score(RidgeProbe(), f, y), rel=1e-9)


def test_many_dimensions_are_not_interpolated() -> None:
    f, y = np.random.default_rng(0).standard_normal((80, 400)), np.arange(80) % 4
    assert score(EMMS(), f, y, 4) < 0.1


def test_labels_and_a_reference_that_do_not_vary() -> None:
    f, y = draw(6)
    flat = np.full((60, 3), 1 / 3)
    assert np.isfinite(score(EMMS(), f, y, told=flat))
    assert EMMS()(seen(EMMS(), f, np.zeros(60, dtype=np.int64), 2)).value == 0


def test_penalties_are_above_zero() -> None:
    with pytest.raises(Unfit, match="penalties"):
        EMMS(penalties=(0.0,))
