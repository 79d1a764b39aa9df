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
from headstart.testing.ranking_estimators import draw, score

RAW = Clusterability(draws=0)


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
    assert score(Clusterability(), f, y) > 0.3


@pytest.mark.parametrize("width", [1, 3, 30, 500])
def test_a_cloud_of_any_form_is_at_0(width: int) -> None:
    form = 0.7 ** np.arange(width)
    found = [score(Clusterability(), np.random.default_rng(s).standard_normal((90, width)) * form, np.arange(90) % 3)
             for s in range(10)]  # fmt: skip
    assert np.mean(found) == pytest.approx(0.0, abs=0.03)
    raw = score(RAW, np.random.default_rng(0).standard_normal((90, width)) * form, np.arange(90) % 3)
    assert raw > 0.2, "what the cuts of a cloud of few directions look like"


def test_groups_need_not_be_the_classes() -> None:
    f, y = draw(1, 90, 5, 3, apart=100.0)
    shuffled = np.random.default_rng(0).permutation(y)
    assert score(Clusterability(), f, shuffled) == score(Clusterability(), f, y)


def test_of_many_rows_a_part_is_grouped_whatever_their_order() -> None:
    f, y = draw(2, 600, 6, 3, apart=3.0)
    order = np.random.default_rng(0).permutation(600)
    part = Clusterability(rows=150)
    assert score(part, f, y) == pytest.approx(score(Clusterability(), f, y), abs=0.1)
    assert score(part, f[order], y[order]) == pytest.approx(score(part, f, y), rel=1e-9)
    with pytest.raises(Unfit, match="rows 2"):
        Clusterability(rows=2)
