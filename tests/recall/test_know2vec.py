"""Know2Vec on banks whose figures are planted in what the models decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.core import Known, Unfit
from headstart.numerics.decisions import decision_vector
from headstart.numerics.records import Records, mean_by_source, tabulated
from headstart.recall.sources.know2vec import Know2Vec

Array = np.ndarray[Any, Any]
MODELS, TARGETS = 60, 15


def bank(seed: int, noise: float = 0.5) -> tuple[Records, Array, Array]:
    """Models whose classes follow some of six traits of the probes, and targets that ask for some: (T, S) figures,
    decision vectors, and the similarities of targets by what they ask for."""
    chance = np.random.default_rng(seed)
    probes, traits = chance.standard_normal((150, 6)), chance.standard_normal((MODELS, 6)) ** 3
    asks = chance.standard_normal((TARGETS, 6)) ** 3
    traits /= np.linalg.norm(traits, axis=1, keepdims=True)
    asks /= np.linalg.norm(asks, axis=1, keepdims=True)
    vectors = []
    for own in traits:
        logits = 3 * probes @ np.outer(own, chance.standard_normal(4)) + 0.3 * chance.standard_normal((150, 4))
        vectors.append(decision_vector(logits.argmax(axis=1)))
    figures = asks**2 @ (traits**2).T  # the sign of a trait is a name of a class
    figures = figures + noise * figures.std() * chance.standard_normal(figures.shape)
    runs = [(f"t{t:02}", f"s{s:02}", None, float(figures[t, s])) for t in range(TARGETS) for s in range(MODELS)]
    squares = asks**2 / np.linalg.norm(asks**2, axis=1, keepdims=True)
    return tabulated(runs), np.vstack(vectors), squares @ squares.T


def correlations(seed: int) -> tuple[float, float]:
    """Of the guess, and of source means, with the figures of each target that was left out; means over targets."""
    table, vectors, alike = bank(seed)
    by_vectors, by_means = [], []
    for t, name in enumerate(table.targets):
        rest, own = table.without(name)
        others = np.arange(TARGETS) != t
        known = Known(alike[t, others], None, alike[np.ix_(others, others)], vectors)
        by_vectors.append(np.corrcoef(Know2Vec()(rest, known).values, own)[0, 1])
        by_means.append(np.corrcoef(mean_by_source(rest.standardised()), own)[0, 1])
    return float(np.mean(by_vectors)), float(np.mean(by_means))


def test_a_planted_bank_is_recovered_better_than_by_the_mean_of_each_source() -> None:
    found = np.array([correlations(seed) for seed in range(3)])
    assert (found[:, 0] > found[:, 1] + 0.1).all()


def test_vectors_that_say_nothing_are_found_to_say_nothing() -> None:
    table, vectors, alike = bank(0)
    known = Known(alike[0, 1:], None, alike[1:, 1:], vectors)
    rest = table.without(table.targets[0])[0]
    told = Know2Vec()(rest, known)
    shuffled = Know2Vec()(rest, replace(known, vectors=np.random.default_rng(0).permutation(vectors)))
    assert told.facts["explained"] > 0.1 > shuffled.facts["explained"]
    assert told.errors is not None
    assert shuffled.errors is not None
    assert told.errors[0] < shuffled.errors[0]


def test_a_source_without_a_vector_gets_its_own_mean() -> None:
    table, vectors, alike = bank(1)
    rest = table.without(table.targets[0])[0]
    vectors[7] = np.nan
    guess = Know2Vec()(rest, Known(alike[0, 1:], None, alike[1:, 1:], vectors))
    assert guess.values[7] == pytest.approx(mean_by_source(rest.standardised())[7])
    assert guess.facts["models"] == MODELS - 1


def test_a_source_that_was_never_tried_is_placed_by_its_vector() -> None:
    table, vectors, alike = bank(4)
    hidden = np.arange(MODELS) % 4 == 0
    rest, own = table.without(table.targets[0])
    rest = replace(rest, values=np.where(hidden, np.nan, rest.values))
    guess = Know2Vec()(rest, Known(alike[0, 1:], None, alike[1:, 1:], vectors))
    assert np.corrcoef(guess.values[hidden], own[hidden])[0, 1] > 0.5
    assert guess.facts["models"] == MODELS * 3 // 4


def test_without_similarities_the_guess_is_one_for_all_targets() -> None:
    table, vectors, _ = bank(2)
    guess = Know2Vec()(table, Known(None, None, None, vectors))
    assert np.isfinite(guess.values).all()
    means = mean_by_source(table.standardised())
    assert np.corrcoef(guess.values, means)[0, 1] > 0.3  # a regression of these on the vectors


def test_few_models_few_targets_and_no_vectors_are_refused_with_the_numbers() -> None:
    table, vectors, alike = bank(3)
    few = np.where(np.arange(MODELS)[:, None] < 29, vectors, np.nan)
    with pytest.raises(Unfit, match="29 of 60 sources have a vector") as refused:
        Know2Vec()(table, Known(None, None, alike, few))
    assert "bring 30 such sources and 5 targets" in refused.value.fix
    with pytest.raises(Unfit, match="0 of 60 sources"):
        Know2Vec()(table, Known())
    short = replace(table, targets=table.targets[:4], values=table.values[:4])
    with pytest.raises(Unfit, match="records of 4 targets"):
        Know2Vec()(short, Known(vectors=vectors))


@pytest.mark.parametrize("settings", [{"dimensions": 0}, {"least_models": 1}, {"penalties": ()}, {"penalties": (0.0,)}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Unfit, match="cannot be"):
        Know2Vec(**settings)
