"""No two estimators of the catalogue are one under two names."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from headstart import catalogue
from headstart.ranking.estimators.nce import NCE
from headstart.ranking.estimators.parc import PARC
from headstart.testing.ranking_estimators import draw, heard

Array = np.ndarray[Any, Any]
# rows, width, classes and how far apart, as the laws draw them, and a few beside
SHAPES = [(60, 8, 3, 2.0), (60, 8, 3, 0.5), (120, 32, 4, 0.7), (30, 16, 3, 1.0), (12, 16, 3, 2.0), (40, 90, 5, 0.4)]


def answers(method: Any) -> list[float | None]:
    """On each input, with a reference that is right and unsure, as an out-of-fold table is."""
    found = []
    for seed, (rows, width, classes, apart) in enumerate(SHAPES * 2):
        features, labels = draw(seed, rows, width, classes, apart)
        told = np.eye(classes)[labels] + 0.4 * np.random.default_rng(seed).standard_normal((rows, classes))
        found.append(heard(method, features, labels, classes=classes, told=told))
    return found


def same(one: list[float | None], other: list[float | None]) -> bool:
    """Refusals of the same inputs, and scores that are equal but for a unit and a starting point."""
    if [a is None for a in one] != [a is None for a in other]:
        return False
    a, b = (np.array([v for v in s if v is not None]) for s in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return bool(abs(a @ b) >= (1 - 1e-9) * np.linalg.norm(a) * np.linalg.norm(b))


@pytest.fixture(scope="module")
def scores() -> dict[str, list[float | None]]:
    known = catalogue.entries("ranking.estimators")
    return {n: answers(e.load()()) for n, e in known.items() if "single_label" in e.needs.tasks}


def test_no_two_estimators_give_the_same_scores(scores: dict[str, list[float | None]]) -> None:
    twins = [f"{a} and {b}" for a, b in itertools.combinations(scores, 2) if same(scores[a], scores[b])]
    assert not twins, ", ".join(twins)


def test_a_copy_would_be_noticed(scores: dict[str, list[float | None]]) -> None:
    assert same(scores["parc"], answers(PARC(rows=400)))
    assert same(scores["parc"], [None if s is None else 3 - s / 100 for s in scores["parc"]])
    assert not same(scores["nce"], answers(NCE(correction="miller_madow")))
