"""TMI against entropies in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.ranking.estimators.tmi import TMI
from headstart.testing.ranking_estimators import score


def test_the_entropy_of_a_gaussian_and_of_a_box() -> None:
    chance = np.random.default_rng(0)
    f = chance.standard_normal((4000, 2))
    assert TMI()._entropy(f) == pytest.approx(np.log(2 * np.pi * np.e), abs=0.05)
    assert TMI()._entropy(3 * chance.random((4000, 1))) == pytest.approx(np.log(3), abs=0.05)


def test_neighbours_by_brute_force() -> None:
    from scipy.special import digamma

    f = np.random.default_rng(1).standard_normal((30, 4))
    apart = np.sort(np.abs(f[:, None] - f[None]).max(axis=2), axis=1)[:, 2]  # the second beside oneself
    want = digamma(30) - digamma(2) + 4 * np.log(2 * apart).mean()
    assert TMI(neighbours=2)._entropy(f) == pytest.approx(want, rel=1e-9)


def test_classes_count_by_their_rows_and_the_width_does_not() -> None:
    chance = np.random.default_rng(2)
    y = np.repeat([0, 1], (300, 100))
    narrow = chance.standard_normal((400, 3))
    wide = chance.standard_normal((400, 30))
    assert score(TMI(), narrow, y, 2) == pytest.approx(0.5 * np.log(2 * np.pi * np.e), abs=0.15)
    assert abs(score(TMI(), wide, y, 2) - score(TMI(), narrow, y, 2)) < 0.6, "the published sum is ten times as large"


def test_collapsed_classes_score_lowest() -> None:
    y = np.arange(60) % 3
    collapsed = np.eye(3)[y] + 1e-3 * np.random.default_rng(3).standard_normal((60, 3))
    assert score(TMI(), collapsed, y) < score(TMI(), np.random.default_rng(4).standard_normal((60, 3)), y)


def test_few_rows_are_refused() -> None:
    """The distance to the nearest of few neighbours grows with the width, and does so unless there are exponentially
    many; noise stays above classes that can be told apart at any number of rows."""
    with pytest.raises(Unfit, match="rank 31"):
        score(TMI(), np.random.default_rng(5).standard_normal((60, 31)), np.arange(60) % 3)


def test_single_rows_are_refused() -> None:
    with pytest.raises(Unfit, match="two rows"):
        score(TMI(), np.eye(3), np.arange(3))
