"""E-LEEP and MS-LEEP against loops over the papers' sums, and against LEEP for one source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.ranking.estimators.leep import LEEP
from headstart.ranking.sets.e_leep import ELEEP
from headstart.ranking.sets.ms_leep import MSLEEP
from headstart.testing.ranking_estimators import score, seen
from headstart.testing.ranking_sets import SOURCES, draw, subsets

Array = np.ndarray[Any, Any]


def expected(theta: Array, y: Array, row: int) -> float:
    """P(label of the row), as the paper writes it: a sum over source classes."""
    total = 0.0
    for z in range(theta.shape[1]):
        joint = sum(theta[i, z] for i in range(len(y)) if y[i] == y[row]) / len(y)
        total += joint / (sum(theta[:, z]) / len(y)) * theta[row, z]
    return float(total)


def entropy(y: Array) -> float:
    shares = [float(np.mean(y == c)) for c in set(y.tolist())]
    return -sum(p * log(p) for p in shares)


def ensemble(thetas: Sequence[Array], y: Array) -> float:
    rows = range(len(y))
    return sum(log(sum(expected(t, y, i) for t in thetas) / len(thetas)) for i in rows) / len(y)


@settings(max_examples=30)
@given(seed=st.integers(0, 999))
def test_one_source_is_leep(seed: int) -> None:
    drawn = draw(ELEEP(), seed)
    together, added = ELEEP()(drawn), MSLEEP()([replace(c, needs=MSLEEP.needs) for c in drawn])
    for i, c in enumerate(drawn):
        leep = score(LEEP(), np.log(c.said), c.known)
        assert together([i]) == pytest.approx(leep + entropy(c.known), abs=1e-9)
        assert added([i]) == pytest.approx(leep + entropy(c.known), abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sets_are_as_in_the_paper(seed: int) -> None:
    drawn = draw(ELEEP(), seed, rows=15)
    y, together = drawn[0].known, ELEEP()(drawn)
    added = MSLEEP()(drawn)
    for s in subsets()[1::3]:
        thetas = [drawn[i].said for i in s]
        assert together(s) == pytest.approx(ensemble(thetas, y) + entropy(y), abs=1e-9)
        assert added(s) == pytest.approx(sum(ensemble([t], y) + entropy(y) for t in thetas), abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_several_labels_are_the_mean_over_those_that_vary(seed: int) -> None:
    """By the sums above, label by label; what a head with several labels says does not add up to 1."""
    drawn = draw(ELEEP(), seed, rows=15, task="multi_label")
    chance = np.random.default_rng(seed)
    hot = np.column_stack([drawn[0].known, np.ones(15, dtype=np.int8)])
    drawn = [replace(c, known=hot, classes=4, said=chance.random(c.said.shape)) for c in drawn]
    thetas = [c.said / c.said.sum(axis=1, keepdims=True) for c in drawn]
    together, added = ELEEP()(drawn), MSLEEP()([replace(c, needs=MSLEEP.needs) for c in drawn])
    assert set(hot[:, 0]) == set(hot[:, 1]) == set(hot[:, 2]) == {0, 1}
    for s in subsets()[1::3]:
        some = [thetas[i] for i in s]
        each = [ensemble(some, hot[:, c]) + entropy(hot[:, c]) for c in range(3)]
        alone = [sum(ensemble([t], hot[:, c]) + entropy(hot[:, c]) for t in some) for c in range(3)]
        assert together(s) == pytest.approx(np.mean(each), abs=1e-9)
        assert added(s) == pytest.approx(np.mean(alone), abs=1e-9)
    leep = LEEP()(seen(LEEP(), np.log(drawn[2].said), hot, 4, "multi_label")).value
    assert together([2]) == pytest.approx(leep + np.mean([entropy(hot[:, c]) for c in range(3)]), abs=1e-9)


def test_labels_that_never_vary_and_heads_that_say_nothing() -> None:
    drawn = draw(ELEEP(), 0, task="multi_label")
    same = [replace(c, known=np.ones((40, 3), dtype=np.int8)) for c in drawn]
    mute = [replace(c, said=np.zeros((40, 5))) for c in drawn]
    for method in (ELEEP(), MSLEEP()):
        for candidates in (same, mute):
            assert method([replace(c, needs=method.needs) for c in candidates])([0, 1]) == pytest.approx(0, abs=1e-12)


def test_two_sources_that_know_a_half_each() -> None:
    """One tells the first class from the rest, the other the last: together each class has 0.75, 0.5, 0.75."""
    y = np.arange(60) % 3
    first, last = (np.eye(2)[(y == c).astype(int)] for c in (0, 2))
    drawn = [replace(c, known=y, said=p) for c, p in zip(draw(ELEEP(), 0, rows=60), (first, last), strict=False)]
    value = ELEEP()(drawn)
    assert value([0]) == value([1]) == pytest.approx(2 / 3 * log(1 / 2) + log(3))
    assert value([0, 1]) == pytest.approx((2 * log(0.75) + log(0.5)) / 3 + log(3))
    assert value([0, 1]) > value([0])


def test_an_ignorant_source_adds_nothing_to_the_sum_and_takes_from_the_average() -> None:
    drawn = draw(ELEEP(), 3)
    drawn = [*drawn, replace(drawn[0], said=np.full((40, 7), 1 / 7))]
    together, added = ELEEP()(drawn), MSLEEP()(drawn)
    assert together([SOURCES]) == pytest.approx(0, abs=1e-12)
    assert added([0, SOURCES]) == pytest.approx(added([0]), abs=1e-12)
    assert together([0, SOURCES]) < together([0])
