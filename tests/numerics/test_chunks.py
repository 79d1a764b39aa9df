"""Errors from chunks against the same statistic taken again on the rows that are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.numerics.chunks import Chunks, grouped_error, jackknife, standard_error
from headstart.numerics.moments import Moments
from headstart.ranking.estimators.nmc import NMC
from headstart.testing.ranking_estimators import draw, seen

Array = np.ndarray[Any, Any]


def drawn(rows: int = 103, width: int = 5, seed: int = 0) -> tuple[Array, Array]:
    chance = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    return chance.standard_normal((rows, width)) + 3e5 + labels[:, None], labels


def between(moments: Moments) -> float:
    """Share of the variance that lies between classes."""
    centres = moments.class_means - moments.mean
    return float((moments.counts @ centres**2).sum() / (moments.rows * moments.variance.sum()))


def test_a_part_left_out_is_the_rest_of_the_rows() -> None:
    x, y = drawn()
    chunks = Chunks.of(x, y, 3, number=7, second=True, norms=True)
    assert [p.rows for p in chunks.parts] == [15, 15, 15, 15, 15, 15, 13]
    rest = np.r_[0:30, 45:103]
    left, fresh = chunks.without(2), Moments.of(x[rest], y[rest], 3, norms=True)
    assert between(left) == pytest.approx(between(fresh), rel=1e-12)
    assert left.shrinkage == pytest.approx(fresh.shrinkage, rel=1e-9)
    np.testing.assert_allclose(left.centred_gram, fresh.centred_gram, rtol=1e-9, atol=1e-7)


def test_the_jackknife_is_that_of_rows_left_out() -> None:
    x, y = drawn(100)
    told = Chunks.of(x, y, 3, number=10).jackknife(between)
    heard = [between(Moments.of(np.delete(x, s, 0), np.delete(y, s), 3)) for s in np.split(np.arange(100), 10)]
    assert told.value == pytest.approx(between(Moments.of(x, y, 3)), rel=1e-12)
    assert told.error == pytest.approx((9 / 10 * np.square(heard - np.mean(heard)).sum()) ** 0.5, rel=1e-7)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(3).standard_normal((50, 1))
    told = Chunks.of(x, np.zeros(50, dtype=int), 1, number=50).jackknife(lambda m: float(m.mean[0]))
    assert told.error == pytest.approx(x.std(ddof=1) / 50**0.5, rel=1e-9)


def test_groups_of_unequal_size_weigh_by_their_rows() -> None:
    """Over draws, the mean squared error that is told is the one that is there."""
    chance = np.random.default_rng(0)
    sizes = [5, 10, 20, 15, 30, 8, 12]
    ends = np.cumsum(sizes)
    told = []
    for _ in range(2000):
        x = chance.standard_normal(100)
        without = [(x.sum() - x[e - s : e].sum()) / (100 - s) for s, e in zip(sizes, ends, strict=True)]
        told.append(jackknife(float(x.mean()), without, sizes).error ** 2)
    assert np.mean(told) == pytest.approx(1 / 100, rel=0.06)


def test_groups_of_like_values_count_as_what_they_are() -> None:
    """Over draws, the mean squared error that is told of words in sentences is the one that is there."""
    chance = np.random.default_rng(0)
    of = np.repeat(np.arange(60), chance.integers(1, 9, 60))
    sizes, told, alone, heard = np.bincount(of), [], [], []
    for _ in range(1000):
        x = chance.standard_normal(60)[of] + 0.5 * chance.standard_normal(len(of))
        told.append((grouped_error(x, of) or 0.0) ** 2)
        alone.append((grouped_error(x, np.arange(len(of))) or 0.0) ** 2)
        heard.append(x.mean())
    there = (np.square(sizes).sum() + 0.25 * len(of)) / len(of) ** 2
    assert np.var(heard) == pytest.approx(there, rel=0.1)
    assert np.mean(told) == pytest.approx(there, rel=0.06)
    assert np.mean(alone) < there / 3
    assert grouped_error(np.arange(3.0), np.zeros(3)) is None


def test_an_error_from_losses_knows_their_groups() -> None:
    f, y = draw(0, 60)
    method, groups = NMC(), [str(row // 6) for row in range(60)]
    view = seen(method, f, y)
    score = method(view)
    assert score.losses is not None
    assert standard_error(method, view, score) == pytest.approx(score.losses.std(ddof=1) / 60**0.5)
    assert standard_error(method, view, score, groups) == grouped_error(score.losses, np.array(groups))


def test_the_bootstrap_covers_and_repeats() -> None:
    inside = 0
    for seed in range(60):
        x, y = drawn(200, seed=seed)
        chunks = Chunks.of(x, y, 3, number=20, gram=False)
        told = chunks.bootstrap(between, draws=100, seed=seed)
        assert told == chunks.bootstrap(between, draws=100, seed=seed)
        assert told.low is not None
        assert told.high is not None
        near = chunks.jackknife(between).error
        assert told.error == pytest.approx(near, rel=0.5)
        inside += told.low <= 0.4 <= told.high  # variance of the classes' means 2/3, within 1: 2/5
    assert inside >= 50


def test_one_part_has_no_spread() -> None:
    x, y = drawn(1)
    chunks = Chunks.of(x, y, 3)
    for spread in (chunks.jackknife, chunks.bootstrap):
        with pytest.raises(Unfit, match="no spread"):
            spread(between)
