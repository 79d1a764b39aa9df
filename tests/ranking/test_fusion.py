"""Models that learn from past targets: against least squares under bounds, and on planted histories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from headstart.core import Experience, Unfit
from headstart.numerics.conformal import by_target
from headstart.numerics.pools import Pool, read
from headstart.ranking.expect import forecast_of
from headstart.ranking.fusion.isotonic import Isotonic
from headstart.ranking.fusion.ridge import Ridge
from headstart.testing.ranking_fusion import draw

Array = np.ndarray[Any, Any]


def test_ridge_is_bounded_least_squares() -> None:
    past = draw(3, targets=5)
    learned = Ridge(strengths=(0.3,))(past)
    share = by_target(past)
    centre = share @ past.features
    unit = np.sqrt(share @ np.square(past.features - centre))
    rows = np.sqrt(share)[:, None] * (past.features - centre) / unit
    right = np.sqrt(share) * (past.values - share @ past.values)
    told = lsq_linear(
        np.vstack([rows, np.sqrt(0.3) * np.eye(4)]), np.concatenate([right, np.zeros(4)]), (0, np.inf), tol=1e-12
    )
    new = draw(4).features
    np.testing.assert_allclose(learned(new), share @ past.values + (new - centre) / unit @ told.x, atol=1e-6)


def test_ridge_without_penalty_finds_the_plane() -> None:
    past = draw(5, noise=0.0)
    level = np.array([past.values[past.targets == n].mean() for n in past.targets])  # of each target, and its features'
    within = np.array([past.features[past.targets == n].mean(axis=0) for n in past.targets])
    learned = Ridge(strengths=(1e-9,))(Experience(past.features - within, past.values - level, past.targets))
    np.testing.assert_allclose(learned(np.eye(4)) - learned(np.zeros((1, 4))), [1, 1, 0, 0], atol=1e-4)


def test_isotonic_is_pooled_means() -> None:
    """Three pairs out of order are one step: their mean."""
    past = Experience(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0.0, 3.0, 2.0, 1.0]), np.arange(4))
    assert Isotonic()(past)(np.array([[-9.0], [0.0], [1.5], [9.0]])).tolist() == [0.0, 0.0, 2.0, 2.0]


def test_features_are_in_units_of_the_bases() -> None:
    pools = [
        Pool(
            target=f"t{i}",
            sources=("a", "b", "c"),
            proxies={"logme": np.array([1.0, 2.0, 3.0]) * 10**i, "rare": np.array([1.0, 2.0, 3.0])} if i else
            {"logme": np.array([1.0, 2.0, 3.0])},
            base=np.array([0.5, 0.6, 0.7]),
            values=np.array([np.nan, 0.65, 0.9]),
        )
        for i in range(2)
    ]  # fmt: skip
    new = Pool(target="new", sources=("a", "c", "z"), proxies={"logme": np.array([5.0, np.nan, 7.0])},
               base=np.array([0.3, 0.4, 0.5]))  # fmt: skip
    seen = read(pools, new)
    assert seen.names == ("logme", "history", "behind", "room")
    np.testing.assert_allclose(seen.past.values, [0.05, 0.2, 0.05, 0.2])
    unit = np.std([0.5, 0.6, 0.7])
    np.testing.assert_allclose(seen.past.features[:, 0], [0, unit * np.sqrt(1.5)] * 2, atol=1e-12)
    np.testing.assert_allclose(seen.past.features[:, 2], [0.1, 0.0] * 2, atol=1e-12)
    np.testing.assert_allclose(seen.past.features[:, 3], -0.7)
    np.testing.assert_allclose(seen.new[:, 0], np.std([0.3, 0.4, 0.5]) * np.array([-1, 0, 1]), atol=1e-12)
    # c was the better of two on both past targets, a was never tried, z is unknown; the past knows one other target
    np.testing.assert_allclose(seen.new[:, 1], np.std([0.3, 0.4, 0.5]) * np.array([0, 2 / 3, 0]), atol=1e-12)
    np.testing.assert_allclose(seen.past.features[:, 1], unit * np.array([-0.5, 0.5] * 2), atol=1e-12)
    np.testing.assert_allclose(seen.start, [0.3, 0.4, 0.5])


def test_without_bases_the_level_is_that_of_the_past() -> None:
    chance = np.random.default_rng(0)
    pools = []
    for i in range(12):
        told = chance.standard_normal(6)
        pools.append(
            Pool(
                target=f"t{i}",
                sources=tuple("abcdef"),
                proxies={"good": told, "bad": chance.standard_normal(6)},
                values=70 + 5 * chance.standard_normal() + 2 * told,
            )
        )
    told = np.linspace(-1.5, 1.5, 6)
    new = Pool(target="n", sources=tuple("abcdef"), proxies={"good": told, "bad": chance.standard_normal(6)})
    values, lows, highs, rule = forecast_of(pools, new)
    assert rule == "jackknife+"
    assert np.corrcoef(values, told)[0, 1] > 0.95
    assert abs(values.mean() - np.mean([one.values.mean() for one in pools if one.values is not None])) < 0.5
    assert (lows < values).all()
    assert (values < highs).all()


def test_no_past_is_refused() -> None:
    with pytest.raises(Unfit, match="no past target"):
        forecast_of([], Pool(target="n", sources=("a",)))
