"""H-score by the pseudo-inverse, by canonical correlations, and where it says nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

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


def test_several_labels_and_values_are_squared_canonical_correlations() -> None:
    chance = np.random.default_rng(3)
    f = chance.standard_normal((200, 5))
    hot = (f[:, :3] + chance.standard_normal((200, 3)) > 0).astype(np.int8)
    hot = np.hstack([hot, hot[:, :1]])  # a label that stands twice counts once
    q, _ = np.linalg.qr(f - f.mean(0))
    u, s, _ = np.linalg.svd(hot - hot.mean(0), full_matrices=False)
    r = np.linalg.svd(q.T @ u[:, s > 1e-9], compute_uv=False)
    assert score(HScore(), f, hot, 4, task="multi_label") == pytest.approx(float((r**2).sum()), rel=1e-9)
    y = 1e6 + 1e-2 * (f[:, 0] + chance.standard_normal(200))
    fit = LinearRegression().fit(f, y)
    assert score(HScore(), 1e-6 * f, y, 0, task="regression") == pytest.approx(fit.score(f, y), rel=1e-5)
    assert score(HScore(), f, np.full(200, 0.1), 0, task="regression") == 0.0


def test_several_labels_with_few_rows_are_taken_over_the_rows() -> None:
    chance = np.random.default_rng(4)
    f = np.repeat(chance.standard_normal((20, 40)), 2, axis=0)[:39]  # rank 19, of 39 rows
    hot = (chance.random((39, 3)) < 0.5).astype(np.int8)
    wide = score(HScore(), f, hot, 3, task="multi_label")
    axes = np.linalg.svd(f - f.mean(0))[2][:20]
    assert wide == pytest.approx(score(HScore(), f @ axes.T, hot, 3, task="multi_label"), rel=1e-9)
