"""Coordinates and ridge without groups, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from headstart.numerics.alignment import Coordinates, ridge_without_groups


def test_coordinates_of_products_are_principal_components() -> None:
    x = np.random.default_rng(0).standard_normal((20, 5)) * np.arange(1, 6) + 3
    made, new = Coordinates.of(x @ x.T, 3), np.arange(5.0)
    pca = PCA(3).fit(x)
    wanted = pca.transform(x)
    scale = np.sqrt(np.square(wanted).sum(axis=1).mean())
    signs = np.sign((made.at * wanted).sum(axis=0))
    np.testing.assert_allclose(made.at, signs * wanted / scale, atol=1e-8)
    np.testing.assert_allclose(made.of_new(x @ new), signs * pca.transform(new[None])[0] / scale, atol=1e-8)


def test_one_of_the_things_lies_where_it_did() -> None:
    x = np.random.default_rng(1).standard_normal((12, 4))
    kernel = x @ x.T
    made = Coordinates.of(kernel, 9)
    np.testing.assert_allclose(made.of_new(kernel[5]), made.at[5], atol=1e-8)


def test_things_that_are_all_alike_have_no_coordinates() -> None:
    assert Coordinates.of(np.ones((6, 6)), 4).at.shape == (6, 0)


def test_left_out_residuals_are_those_of_fits_without_the_group() -> None:
    chance = np.random.default_rng(2)
    x, y = chance.standard_normal((40, 6)), chance.standard_normal(40)
    groups = chance.integers(7, size=40)
    made = ridge_without_groups(x, y, groups, [0.5])
    level = 0.5 * np.square(x).sum() / 40
    whole = Ridge(level, fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(made.weights, whole.coef_, atol=1e-10)
    for g in np.unique(groups):
        rest = Ridge(level, fit_intercept=False).fit(x[groups != g], y[groups != g])
        here = groups == g
        np.testing.assert_allclose(made.left_out[here], y[here] - rest.predict(x[here]), atol=1e-9)


def test_the_strength_is_the_one_that_left_out_groups_ask_for() -> None:
    chance = np.random.default_rng(3)
    x = chance.standard_normal((60, 5))
    groups, penalties = np.arange(60) // 4, [1e-6, 1e-3, 1.0, 1e3]
    signal = ridge_without_groups(x, x @ np.arange(5.0), groups, penalties)
    noise = ridge_without_groups(x, chance.standard_normal(60), groups, penalties)
    assert (signal.penalty, noise.penalty) == (1e-6, 1e3)
    errors = [np.square(ridge_without_groups(x, x[:, 0], groups, [p]).left_out).sum() for p in penalties]
    assert ridge_without_groups(x, x[:, 0], groups, penalties).penalty == penalties[int(np.argmin(errors))]


def test_more_columns_than_rows_are_no_trouble() -> None:
    x = np.random.default_rng(4).standard_normal((10, 30))
    assert ridge_without_groups(x, x[:, 0], np.arange(10), [0.1]).weights == pytest.approx(
        Ridge(0.1 * np.square(x).sum() / 10, fit_intercept=False).fit(x, x[:, 0]).coef_
    )
