"""H-score by the pseudo-inverse, by canonical correlations, and where it says nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import Unfit
from headstart.ranking.estimators.h_score import HScore
from headstart.testing.ranking_estimators import draw, score

Array = np.ndarray[Any, Any]


def direct(f: Array, y: Array) -> float:
    f = f - f.mean(0)
    means = np.stack([f[y == c].mean(0) for c in y])
    return float(np.trace(np.linalg.pinv(f.T @ f) @ means.T @ means))


@given(seed=st.integers(0, 999), width=st.integers(1, 25), classes=st.integers(2, 9))
def test_equals_the_pseudo_inverse(seed: int, width: int, classes: int) -> None:
    f, y = draw(seed, 60, width, classes, apart=0.5)
    assert score(HScore(), f, y, classes) == pytest.approx(direct(f, y), rel=1e-8)


def test_duplicated_and_constant_columns_change_nothing() -> None:
    f, y = draw(0, 80, 6)
    more = np.hstack([f, f[:, :2], np.ones((80, 1)), 3 * f])
    assert score(HScore(), more, y) == pytest.approx(score(HScore(), f, y), rel=1e-9)


def test_is_the_sum_of_squared_canonical_correlations() -> None:
    f, y = draw(1, 200, 5, 4, apart=0.7)
    hot = np.eye(4)[y]
    q, _ = np.linalg.qr(f - f.mean(0))
    u, s, _ = np.linalg.svd(hot - hot.mean(0), full_matrices=False)
    r = np.linalg.svd(q.T @ u[:, s > 1e-9], compute_uv=False)
    assert score(HScore(), f, y, 4) == pytest.approx(float((r**2).sum()), rel=1e-9)


def test_limits() -> None:
    y = np.arange(90) % 3
    assert score(HScore(), np.eye(3)[y], y) == pytest.approx(2.0)
    paired = np.repeat(np.random.default_rng(0).standard_normal((30, 4)), 3, axis=0)
    assert score(HScore(), paired, y) == pytest.approx(0.0, abs=1e-9), "all class means are equal"


def test_refuses_what_gives_the_same_for_noise() -> None:
    noise = np.random.default_rng(0).standard_normal((40, 39))
    assert direct(noise, np.arange(40) % 4) == pytest.approx(3.0)
    with pytest.raises(Unfit, match="rank 39"):
        score(HScore(), noise, np.arange(40) % 4, 4)
