"""Maps between feature spaces against scikit-learn, planted maps, and held-out errors done on raw rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from headstart.core import Unfit
from headstart.numerics.moments import Moments
from headstart.numerics.space_maps import SpaceMap, fit_map

Array = np.ndarray[Any, Any]
WHAT = ("mean", "variance", "class_means", "centred_gram", "centred_sums", "centred_energy")


def drawn(rows: int = 200, width: int = 12, seed: int = 0) -> Array:
    chance = np.random.default_rng(seed)
    mixed = chance.standard_normal((rows, width)) @ chance.standard_normal((width, width))
    return (mixed + 5 * chance.standard_normal(width)).astype(np.float32)


def planted(noise: float, rows: int = 200, seed: int = 0) -> tuple[Array, Array, SpaceMap]:
    x, chance = drawn(rows, seed=seed), np.random.default_rng((seed, 1))
    truth = SpaceMap(chance.standard_normal((7, x.shape[1])), 10 * chance.standard_normal(7))
    y = truth(x)
    return x, y + noise * y.std() * chance.standard_normal(y.shape), truth


@pytest.mark.parametrize("classes", [3, 0])
def test_moments_through_a_map_are_those_of_the_mapped_rows(classes: int) -> None:
    x, chance = drawn(90), np.random.default_rng(2)
    y = chance.integers(3, size=90) if classes else chance.standard_normal(90)
    one = SpaceMap(chance.standard_normal((5, 12)), chance.standard_normal(5))
    by_algebra, again = one.moments(Moments.of(x, y, classes)), Moments.of(one(x), y, classes)
    for name in WHAT:
        if name == "class_means" and not classes:
            continue
        a, b = getattr(by_algebra, name), getattr(again, name)
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.abs(b).max(), err_msg=name)


def test_moments_without_a_gram_go_through_no_map() -> None:
    with pytest.raises(Unfit, match="no Gram"):
        Moments.of(drawn(), np.zeros(200, dtype=int), 1, gram=False).affine(np.eye(12), np.zeros(12))


def test_a_planted_map_is_recovered() -> None:
    x, y, truth = planted(noise=0.0)
    fitted = fit_map(x, y, np.arange(200) % 5)
    assert fitted.r2 > 1 - 1e-9
    np.testing.assert_allclose(fitted.map.weight, truth.weight, atol=1e-4 * np.abs(truth.weight).max())  # float32
    np.testing.assert_allclose(fitted.map(x), y, atol=1e-4 * np.abs(y).max())
    assert (fitted.map.weight.dtype, fitted.map.bias.dtype, fitted.rows) == (np.float32, np.float32, 200)


def test_the_held_out_figure_is_the_one_of_raw_rows() -> None:
    x, y, _ = planted(noise=0.7)
    folds, penalty = np.arange(200) % 4, 0.03
    fitted = fit_map(x, y, folds, penalties=(penalty,))
    error = naive = 0.0
    for f in range(4):
        train, valid = folds != f, folds == f
        centred = x[train] - x[train].mean(axis=0, dtype=np.float64)
        level = penalty * np.square(centred).sum() / train.sum()
        model = Ridge(level).fit(x[train].astype(np.float64), y[train])
        error += np.square(y[valid] - model.predict(x[valid])).sum()
        naive += np.square(y[valid] - y[train].mean(axis=0)).sum()
    assert fitted.r2 == pytest.approx(1 - error / naive, abs=1e-9)


def test_the_held_out_figure_is_what_new_rows_show_and_the_strength_follows_the_noise() -> None:
    penalties = []
    for noise in (0.05, 1.0):
        x, y, _ = planted(noise, rows=4000)
        fitted = fit_map(x[:150], y[:150], np.arange(150) % 5)
        fresh = 1 - np.square(y[150:] - fitted.map(x[150:])).sum() / np.square(y[150:] - y[:150].mean(axis=0)).sum()
        assert fitted.r2 == pytest.approx(fresh, abs=0.05)  # of 150 rows, and a fifth fewer in each fold
        penalties.append(fitted.penalty)
    assert penalties[0] < penalties[1]


def test_with_fewer_rows_than_features_the_map_is_finite_and_says_how_sure_it_is() -> None:
    chance = np.random.default_rng(0)
    x = chance.standard_normal((60, 200)) * 0.9 ** np.arange(200)
    fitted = fit_map(x, x[:, :4] @ chance.standard_normal((4, 30)), np.arange(60) % 5)
    assert np.isfinite(fitted.map.weight).all()
    assert 0.5 < fitted.r2 < 1


@pytest.mark.parametrize(
    ("base", "tuned", "what"),
    [
        (np.ones((60, 4)), drawn(60), "features of the base are the same"),
        (drawn(60), np.ones((60, 3)), "features of the source are the same"),
        (drawn(60), np.full((60, 3), np.nan), "not finite"),
        (drawn(60), np.random.default_rng(3).standard_normal((60, 3)), "explains next to nothing"),
    ],
)
def test_rows_that_say_nothing_are_refused(base: Array, tuned: Array, what: str) -> None:
    with pytest.raises(Unfit, match=what):
        fit_map(base, tuned, np.arange(60) % 5)
