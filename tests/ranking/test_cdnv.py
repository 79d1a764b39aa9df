"""CDNV against pairs written out, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.ranking.estimators.cdnv import CDNV
from headstart.testing.ranking_estimators import draw, score


@given(seed=st.integers(0, 999), width=st.integers(1, 20), classes=st.integers(2, 8))
def test_equals_the_pairs_written_out(seed: int, width: int, classes: int) -> None:
    f, y = draw(seed, 50, width, classes, apart=0.4)
    parts = [f[y == c] for c in range(classes)]
    found = []
    for i in range(classes):
        for j in range(i + 1, classes):
            a, b = parts[i], parts[j]
            v = (a.var(0).sum() + b.var(0).sum()) / (2 * np.sum((a.mean(0) - b.mean(0)) ** 2))
            found.append(1 / (1 + 2 * v))
    assert score(CDNV(), f, y, classes) == pytest.approx(np.mean(found), rel=1e-8)


def test_limits() -> None:
    y = np.arange(60) % 3
    assert score(CDNV(), np.eye(3)[y], y) == pytest.approx(1.0), "collapsed"
    paired = np.repeat(np.random.default_rng(0).standard_normal((20, 4)), 3, axis=0)
    assert score(CDNV(), paired, y) == pytest.approx(0.0, abs=1e-12), "means coincide"


def test_of_noise_it_is_what_chance_gives() -> None:
    """Means of n rows lie 2 D / n apart, so the score of pure noise is 1 / (1 + n), whatever the width."""
    for width in (200, 2000):
        f = np.random.default_rng(width).standard_normal((80, width))
        assert score(CDNV(), f, np.arange(80) % 2, 2) == pytest.approx(1 / 41, rel=0.15)


def test_misleads_where_one_of_many_dimensions_tells() -> None:
    f, y = np.random.default_rng(0).standard_normal((90, 60)), np.arange(90) % 3
    f[:, 0] = 8 * y + f[:, 0]  # plain to see, and one of 60
    near = draw(1, 90, 2, 3, apart=1.0)[0]  # classes that overlap
    assert score(CDNV(), f, y) < 0.6 < 0.9
    assert np.isfinite(score(CDNV(), near, y))
