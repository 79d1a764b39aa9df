"""No two methods that rank, compare, choose, recall or expect are one under two names, on what the laws draw."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart import catalogue
from headstart.core import Unfit
from headstart.ranking.divergences.frechet import Frechet
from headstart.ranking.estimators.nce import NCE
from headstart.ranking.estimators.parc import PARC
from headstart.ranking.fusion.isotonic import Isotonic
from headstart.ranking.sets.ensemble_selection import EnsembleSelection
from headstart.testing import (
    ranking_divergences,
    ranking_fusion,
    ranking_sets,
    ranking_similarity,
    recall_sources,
)
from headstart.testing.ranking_estimators import draw, heard

Array = np.ndarray[Any, Any]
Answers = list[float | None]
# rows, width, classes and how far apart, as the laws draw them, and a few beside
SHAPES = [
    (60, 8, 3, 2.0), (60, 8, 3, 0.5), (120, 32, 4, 0.7), (30, 16, 3, 1.0), (12, 16, 3, 2.0), (40, 90, 5, 0.4),
    (240, 8, 3, 1.0),
]  # fmt: skip


def answers(method: Any) -> Answers:
    """On each input, with a reference that is right and unsure, as an out-of-fold table is."""
    found = []
    for seed, (rows, width, classes, apart) in enumerate(SHAPES * 2):
        features, labels = draw(seed, rows, width, classes, apart)
        told = np.eye(classes)[labels] + 0.4 * np.random.default_rng(seed).standard_normal((rows, classes))
        found.append(heard(method, features, labels, classes=classes, told=told))
    return found


def distances(method: Any) -> Answers:
    """Of sets that lie further and further apart, in few dimensions and in more than rows."""
    found: Answers = []
    for seed, width in itertools.product(range(4), (5, 80)):
        a = ranking_divergences.draw(method, seed, 60, width)
        found += [method(a, ranking_divergences.draw(method, seed, 45, width, m, among=1)) for m in (0.0, 0.5, 2.0)]
    return found


def likenesses(method: Any) -> Answers:
    """Of tasks to the same rows with some labels shuffled, and, where it is answered, to other rows and other tasks."""
    found: Answers = []
    for seed, share in itertools.product(range(4), (0.2, 0.5, 1.0)):
        a, chance = ranking_similarity.draw(method, seed), np.random.default_rng(seed)
        labels = np.array(a.known)
        labels[: round(30 * share)] = chance.permutation(labels[: round(30 * share)])
        found.append(ranking_similarity.between(method, a, replace(a, known=labels)))
        for rule in (0, 1):
            try:
                found.append(
                    ranking_similarity.between(method, a, ranking_similarity.draw(method, seed, among=1, rule=rule))
                )
            except Unfit:
                found.append(None)
    return found


def worths(method: Any) -> Answers:
    """Of every set of a shelf."""
    shelves = [method(ranking_sets.draw(method, seed)) for seed in range(3)]
    return [worth(members) for worth in shelves for members in ranking_sets.subsets()]


def guesses(method: Any) -> Answers:
    """Before anything was tried, and after."""
    shown = [pair for seed in range(3) for pair in recall_sources.moments(method, seed)]
    return [float(v) if np.isfinite(v) else None for table, known in shown for v in method(table, known).values]


def expectations(method: Any) -> Answers:
    return [float(v) for s in range(3) for v in method(ranking_fusion.draw(s))(ranking_fusion.draw(s + 9).features)]


def same(one: Answers, other: Answers) -> bool:
    """Refusals of the same inputs, and scores that are equal but for a unit and a starting point."""
    if [a is None for a in one] != [a is None for a in other]:
        return False
    a, b = (np.array([v for v in s if v is not None]) for s in (one, other))
    a, b = a - a.mean(), b - b.mean()
    return bool(abs(a @ b) >= (1 - 1e-9) * np.linalg.norm(a) * np.linalg.norm(b))


KINDS: dict[str, Callable[[Any], Answers]] = {
    "ranking.divergences": distances,
    "ranking.similarity": likenesses,
    "ranking.sets": worths,
    "ranking.fusion": expectations,
    "recall.sources": guesses,
}


@pytest.fixture(scope="module")
def scores() -> dict[str, Answers]:
    known = catalogue.entries("ranking.estimators")
    return {n: answers(e.load()()) for n, e in known.items() if "single_label" in e.needs.tasks}


def test_no_two_estimators_give_the_same_scores(scores: dict[str, Answers]) -> None:
    twins = [f"{a} and {b}" for a, b in itertools.combinations(scores, 2) if same(scores[a], scores[b])]
    assert not twins, ", ".join(twins)


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_methods_of_a_kind_give_the_same(kind: str) -> None:
    found = {n: KINDS[kind](e.load()()) for n, e in catalogue.entries(kind).items() if not catalogue.missing(e)}
    assert len(found) >= 3
    twins = [f"{a} and {b}" for a, b in itertools.combinations(found, 2) if same(found[a], found[b])]
    assert not twins, ", ".join(twins)


def test_a_copy_would_be_noticed(scores: dict[str, Answers]) -> None:
    assert same(scores["parc"], answers(PARC(rows=400)))
    assert same(scores["parc"], [None if s is None else 3 - s / 100 for s in scores["parc"]])
    assert not same(scores["nce"], answers(NCE(correction="miller_madow")))
    for told, method in ((worths, EnsembleSelection()), (distances, Frechet()), (expectations, Isotonic())):
        first = told(method)
        assert same(first, told(method))
        assert same(first, [None if v is None else 2 * v + 1 for v in first])
