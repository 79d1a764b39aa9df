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


def direct(f: Array, y: Array, spherical: bool, taken_off: bool = True) -> float:
    """Bhattacharyya's formula for full covariance matrices, which are diagonal here."""
    rows, classes = len(f), np.unique(y)
    least = 1e-4 * f.var(0).mean()
    inside = sum(f[y == c].var(0) * (y == c).sum() for c in classes) / max(rows - len(classes), 1)

    def variances(part: Array) -> Array:
        v = part.var(0) if not taken_off else part.var(0, ddof=1) if len(part) > 1 else inside
        return np.maximum(np.full(f.shape[1], v.mean()) if spherical else v, least)

    total = 0.0
    for a, b in ((f[y == i], f[y == j]) for i in classes for j in classes if i != j):
        sa, sb = np.diag(variances(a)), np.diag(variances(b))
        s, d = (sa + sb) / 2, a.mean(0) - b.mean(0)
        chance = np.diag(np.full(f.shape[1], inside.mean()) if spherical else inside) * (1 / len(a) + 1 / len(b))
        logs = [np.linalg.slogdet(m)[1] for m in (s, sa, sb)]
        apart = d @ np.linalg.solve(s, d) - taken_off * np.trace(np.linalg.solve(s, chance))
        total += np.exp(-(apart / 8 + (logs[0] - (logs[1] + logs[2]) / 2) / 2))
    return float(-np.log(total))


@pytest.mark.parametrize("chance", ["taken_off", "kept"])
@given(
    seed=st.integers(0, 999), width=st.integers(1, 20), classes=st.integers(2, 8), scale=st.sampled_from([1e-6, 1, 1e6])
)
def test_equals_the_formula_written_out(chance: Any, seed: int, width: int, classes: int, scale: float) -> None:
    f, y = draw(seed, 70, width, classes, apart=0.6)
    f[y == 0] *= 3
    for form in ("spherical", "diagonal"):
        want = direct(scale * f, y, form == "spherical", chance == "taken_off")
        given = score(GBC(covariance=form, chance=chance), scale * f, y, classes)
        assert given == pytest.approx(want, rel=1e-8, abs=1e-8)


def test_hand_values() -> None:
    f, y = np.array([[-1.0], [1.0], [1.0], [3.0]]), np.array([0, 0, 1, 1])  # means 0 and 2, variances 1
    assert score(GBC(chance="kept"), f, y, 2) == pytest.approx(-np.log(1.2131), abs=1e-4)
    # variances of 2, and of the squared distance of 4 chance gives 2: B = 2 / 16
    assert score(GBC(), f, y, 2) == pytest.approx(0.125 - np.log(2))
    same = np.tile(np.array([[-1.0], [1.0]]), (3, 1))
    found = score(GBC(chance="kept"), same, np.repeat(np.arange(3), 2), 3)
    assert found == pytest.approx(-np.log(6)), "the paper's -C(C - 1)"


def test_a_class_with_one_row() -> None:
    f, y = draw(0, 41, 4, 2)
    y = np.where(np.arange(41) == 40, 2, y)
    for form in ("spherical", "diagonal"):
        for chance in ("taken_off", "kept"):
            want = direct(f, y, form == "spherical", chance == "taken_off")
            assert score(GBC(covariance=form, chance=chance), f, y, 3) == pytest.approx(want, rel=1e-8)


def test_far_features_lose_no_digits() -> None:
    f, y = draw(1, 60, 5)
    assert score(GBC(), f + 1e6, y) == pytest.approx(score(GBC(), f, y), rel=1e-6)


def test_noise_of_any_width_and_uneven_classes_is_no_distance() -> None:
    """As published, each dimension of noise adds to it."""
    noise = np.random.default_rng(0).standard_normal((100, 4096))
    for y in (np.arange(100) % 4, np.repeat(np.arange(4), [1, 2, 7, 90])):
        assert score(GBC(), noise, y, 4) < 0 < 20 < score(GBC(chance="kept"), noise, y, 4)
