"""GBC against pairs of Gaussians written out, hand values, and what misleads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.ranking.estimators.gbc import GBC
from headstart.testing.ranking_estimators import draw, score

Array = np.ndarray[Any, Any]


def direct(f: Array, y: Array, spherical: bool) -> float:
    """Bhattacharyya's formula for full covariance matrices, which are diagonal here."""
    total, floor = 0.0, 1e-4 * f.var(0).mean()
    for i in np.unique(y):
        for j in np.unique(y):
            if i != j:
                a, b = f[y == i], f[y == j]
                va, vb = (np.full(f.shape[1], x.var(0).mean()) if spherical else x.var(0) for x in (a, b))
                sa, sb = np.diag(np.maximum(va, floor)), np.diag(np.maximum(vb, floor))
                s, d = (sa + sb) / 2, a.mean(0) - b.mean(0)
                logs = [np.linalg.slogdet(m)[1] for m in (s, sa, sb)]
                total += np.exp(-(d @ np.linalg.solve(s, d) / 8 + (logs[0] - (logs[1] + logs[2]) / 2) / 2))
    return float(-np.log(total))


@given(
    seed=st.integers(0, 999), width=st.integers(1, 20), classes=st.integers(2, 8), scale=st.sampled_from([1e-6, 1, 1e6])
)
def test_equals_the_formula_written_out(seed: int, width: int, classes: int, scale: float) -> None:
    f, y = draw(seed, 70, width, classes, apart=0.6)
    f[y == 0] *= 3
    for form in ("spherical", "diagonal"):
        want = direct(scale * f, y, form == "spherical")
        assert score(GBC(covariance=form), scale * f, y, classes) == pytest.approx(want, rel=1e-8, abs=1e-8)


def test_hand_values() -> None:
    f, y = np.array([[-1.0], [1.0], [1.0], [3.0]]), np.array([0, 0, 1, 1])  # means 0 and 2, variances 1
    assert score(GBC(), f, y, 2) == pytest.approx(-np.log(1.2131), abs=1e-4)
    same = np.tile(np.array([[-1.0], [1.0]]), (3, 1))
    assert score(GBC(), same, np.repeat(np.arange(3), 2), 3) == pytest.approx(-np.log(6)), "the paper's -C(C - 1)"


def test_a_class_with_one_row_has_the_least_variance() -> None:
    f, y = draw(0, 41, 4, 2)
    y = np.where(np.arange(41) == 40, 2, y)
    for form in ("spherical", "diagonal"):
        want = direct(f, y, form == "spherical")
        assert score(GBC(covariance=form), f, y, 3) == pytest.approx(want, rel=1e-8)


def test_far_features_lose_no_digits() -> None:
    f, y = draw(1, 60, 5)
    assert score(GBC(), f + 1e6, y) == pytest.approx(score(GBC(), f, y), rel=1e-6)


def test_misleads_with_wide_noise() -> None:
    """What the docstring warns of: each dimension of noise adds to the distance."""
    y = np.arange(120) % 4
    f, _ = draw(0, 120, 32, 4, apart=0.5)
    assert score(GBC(), np.random.default_rng(0).standard_normal((120, 1024)), y, 4) > score(GBC(), f, y, 4)
