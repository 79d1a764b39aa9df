"""Clusterability by scikit-learn's groups and silhouettes, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import silhouette_score

from headstart.core import Unfit
from headstart.ranking.estimators.clusterability import Clusterability
from headstart.testing.ranking_estimators import CLAIMS, draw, falling, score

FEW = Clusterability(least=3)
RAW = Clusterability(draws=0, least=3)


@given(
    seed=st.integers(0, 999), width=st.integers(1, 30), classes=st.integers(2, 8), scale=st.sampled_from([1e-6, 1e6])
)
def test_without_draws_it_equals_scikit_learn(seed: int, width: int, classes: int, scale: float) -> None:
    f, y = draw(seed, 50, width, classes, apart=1.0)
    groups = AgglomerativeClustering(classes, linkage="ward").fit_predict(f)
    assert score(RAW, scale * f, y, classes) == pytest.approx(silhouette_score(f, groups), rel=1e-9, abs=1e-12)


def test_groups_far_apart_stand_out() -> None:
    f, y = draw(0, 90, 5, 3, apart=100.0)
    assert score(RAW, f, y) > 0.95
    assert score(FEW, f, y) > 0.3


@pytest.mark.parametrize("width", [1, 3, 30, 500])
def test_a_cloud_of_any_form_is_at_0(width: int) -> None:
    form = 0.7 ** np.arange(width)
    found = [score(FEW, np.random.default_rng(s).standard_normal((90, width)) * form, np.arange(90) % 3)
             for s in range(10)]  # fmt: skip
    assert np.mean(found) == pytest.approx(0.0, abs=0.03)
    raw = score(RAW, np.random.default_rng(0).standard_normal((90, width)) * form, np.arange(90) % 3)
    assert raw > 0.2, "what the cuts of a cloud of few directions look like"


def test_groups_need_not_be_the_classes() -> None:
    f, y = draw(1, 90, 5, 3, apart=100.0)
    shuffled = np.random.default_rng(0).permutation(y)
    assert score(FEW, f, shuffled) == score(FEW, f, y)


def test_of_many_rows_a_part_is_grouped_whatever_their_order() -> None:
    f, y = draw(2, 600, 6, 3, apart=3.0)
    order = np.random.default_rng(0).permutation(600)
    part = Clusterability(rows=150, least=150)
    assert score(part, f, y) == pytest.approx(score(FEW, f, y), abs=0.1)
    assert score(part, f[order], y[order]) == pytest.approx(score(part, f, y), rel=1e-9)
    with pytest.raises(Unfit, match="rows 2"):
        Clusterability(rows=2)


@pytest.mark.parametrize("name", Clusterability.claims)
def test_the_laws_that_draw_fewer_rows_than_it_asks_for_hold_without_that(name: str) -> None:
    CLAIMS[name](FEW, seed=0)


def test_fewer_rows_than_it_is_sure_of_are_refused() -> None:
    """Noise of few directions: a toss-up with 100 rows, and behind with 200."""
    ahead = []
    for rows in (100, 200):
        found = []
        for seed in range(12):
            f, y = draw(seed, rows, 32, 4, apart=0.5)
            noise = falling(np.random.default_rng((seed, 1)), rows, 384)
            found.append(score(FEW, f, y, 4) > score(FEW, noise, y, 4))
        ahead.append(sum(found))
    assert ahead[0] <= 9
    assert ahead[1] >= 11
    f, y = draw(0, 199, 32, 4)
    with pytest.raises(Unfit, match="199 rows: among fewer than 200"):
        score(Clusterability(), f, y, 4)
    assert score(Clusterability(least=199), f, y, 4) > 0
