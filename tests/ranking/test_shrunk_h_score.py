"""Shrunk H-score by scikit-learn's Ledoit-Wolf covariance and full inverses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from headstart.ranking.estimators.h_score import HScore
from headstart.ranking.estimators.shrunk_h_score import ShrunkHScore
from headstart.testing.ranking_estimators import draw, falling, score

Array = np.ndarray[Any, Any]


def direct(f: Array, y: Array, taken_off: bool = True) -> float:
    f = f[:, f.std(0) > 0]
    f = (f - f.mean(0)) / f.std(0)
    fitted = LedoitWolf().fit(f)
    means = np.stack([f[y == c].mean(0) for c in y])
    chance = (len(np.unique(y)) - 1) / (len(f) - 1) * f.T @ f / len(f)
    between = means.T @ means / len(f) - taken_off * chance
    return float((1 - fitted.shrinkage_) * np.trace(fitted.precision_ @ between))


def orders_of(rows: int) -> Iterator[tuple[int, ...]]:
    return itertools.permutations(range(rows))


def test_what_is_taken_off_is_the_mean_over_all_orders_of_the_labels() -> None:
    f, y = draw(3, 6, 4, 2)
    y = np.array([0, 0, 1, 1, 1, 2])
    orders = [score(ShrunkHScore(chance="kept"), f, y[list(o)], 3) for o in orders_of(6)]
    off = score(ShrunkHScore(chance="kept"), f, y, 3) - score(ShrunkHScore(), f, y, 3)
    assert off == pytest.approx(np.mean(orders), rel=1e-9)


@pytest.mark.parametrize(("rows", "width"), [(120, 12), (40, 90), (50, 50)])
def test_equals_the_full_inverse(rows: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.ranking.estimators.shrunk_h_score.STRIP_CELLS", 1)  # strips of 32 rows
    f, y = draw(0, rows, width, 4, apart=0.4)
    f[:, 1], f[:, 2] = 50 + 3 * f[:, 1], 0.0
    for chance in ("taken_off", "kept"):
        want = direct(f, y, chance == "taken_off")
        assert score(ShrunkHScore(chance=chance), f, y, 4) == pytest.approx(want, rel=1e-9)


def test_several_labels_are_the_sum_of_two_class_scores() -> None:
    f, y = draw(1)
    hot = np.eye(3, dtype=np.int8)[y]
    want = sum(direct(f, hot[:, c]) for c in range(3))
    assert score(ShrunkHScore(), f, hot, 3, task="multi_label") == pytest.approx(want, rel=1e-9)


def of_values(f: Array, y: Array, taken_off: bool = True) -> float:
    """tr(shrunk S⁻¹ cov(guess)): the guess is the least squares line of each feature over the value."""
    f = (f - f.mean(0)) / f.std(0)
    fitted = LedoitWolf().fit(f)
    guess = np.stack([np.polyval(np.polyfit(y, column, 1), y) for column in f.T], axis=1)
    between = np.cov(guess.T, bias=True) - taken_off * f.T @ f / len(f) / (len(f) - 1)
    return float((1 - fitted.shrinkage_) * np.trace(fitted.precision_ @ between))


@pytest.mark.parametrize(("rows", "width"), [(120, 12), (40, 90), (50, 50)])
def test_of_values_the_conditional_mean_is_a_line(rows: int, width: int) -> None:
    f, _ = draw(4, rows, width, 2, apart=0.0)
    y = 1e3 + f[:, 0] - 0.5 * f[:, 3] + np.random.default_rng(4).standard_normal(rows)
    for chance in ("taken_off", "kept"):
        given = score(ShrunkHScore(chance=chance), 3 * f + 7, y, 0, task="regression")
        assert given == pytest.approx(of_values(f, y, chance == "taken_off"), rel=1e-8)


def test_without_shrinkage_values_have_the_plain_score() -> None:
    """So many rows that nothing is shrunk: the sum of squared canonical correlations, which is R²."""
    f, _ = draw(5, 20000, 4, 2, apart=0.0)
    f = f @ np.random.default_rng(6).standard_normal((4, 4)) * [1.0, 50.0, 0.1, 1.0]
    y = f @ [1.0, 0.02, 0.0, 0.0] + np.random.default_rng(5).standard_normal(20000)
    kept = score(ShrunkHScore(chance="kept"), f, y, 0, task="regression")
    assert kept == pytest.approx(score(HScore(), f, y, 0, task="regression"), rel=2e-2)


def test_of_values_chance_is_the_mean_over_all_their_orders() -> None:
    f, _ = draw(3, 6, 4, 2)
    y = np.array([0.3, -1.0, 4.0, 2.0, 2.0, 9.0])
    kept = [score(ShrunkHScore(chance="kept"), f, y[list(o)], 0, task="regression") for o in orders_of(6)]
    off = score(ShrunkHScore(chance="kept"), f, y, 0, task="regression") - score(
        ShrunkHScore(), f, y, 0, task="regression"
    )
    assert off == pytest.approx(np.mean(kept), rel=1e-9)


def test_values_wide_noise_and_values_that_do_not_vary() -> None:
    f, chance = draw(0, 100, 32, 4, apart=0.0)[0], np.random.default_rng(0)
    y = f[:, :8].sum(axis=1) + 2 * chance.standard_normal(100)
    informed = score(ShrunkHScore(), f, y, 0, task="regression")
    for width in (64, 512, 4096):
        assert score(ShrunkHScore(), chance.standard_normal((100, width)), y, 0, task="regression") < informed / 2
    assert score(ShrunkHScore(), f, np.full(100, 1e6 / 3), 0, task="regression") == 0


def test_noise_does_not_saturate() -> None:
    """The plain H-score is 3 for any full-rank features here; 0.12 was measured for shrunk noise."""
    f, y = np.random.default_rng(0).standard_normal((120, 400)), np.arange(120) % 4
    assert score(ShrunkHScore(chance="kept"), f, y, 4) < 0.3
    assert abs(score(ShrunkHScore(), f, y, 4)) < 0.02


def test_two_far_classes_reach_the_ceiling() -> None:
    f, y = draw(2, 2000, 1, 2, apart=100.0)
    assert score(ShrunkHScore(), f, y, 2) == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("uneven", [False, True])
def test_the_papers_score_prefers_wide_noise(uneven: bool) -> None:
    """25 rows a class, and noise of width 4,096, or of variances that fall off; what chance gives is most of it."""
    f, y = draw(0, 100, 32, 4, apart=0.5)
    chance = np.random.default_rng(0)
    noise = falling(chance, 100, 384) if uneven else chance.standard_normal((100, 4096))
    assert score(ShrunkHScore(chance="kept"), noise, y, 4) > score(ShrunkHScore(chance="kept"), f, y, 4)
    assert score(ShrunkHScore(), noise, y, 4) < 0.1 < score(ShrunkHScore(), f, y, 4)
