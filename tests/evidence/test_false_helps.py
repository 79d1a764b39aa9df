"""How often verify says `helps` where, by construction, nothing helps: pooled outer cross-validation, and one test.

Every system sees the same labels through features of its own, all drawn from one distribution; so no system is better
than another, and any `helps` is false. As in the journey, the chosen system and the opponent are each the better of
two on inner folds of the same training rows, in each outer fold anew. The systems are linear (shrunken discriminants).
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from headstart.evidence import verify
from headstart.numerics.bootstrap import outer_factor

CLASSES = 3
WIDTH = 12


def dealt(labels, k: int, rng):
    """A fold for each row, stratified by class."""
    fold = np.empty(len(labels), dtype=int)
    for c in range(CLASSES):
        rows = rng.permutation(np.flatnonzero(labels == c))
        fold[rows] = (np.arange(len(rows)) + rng.integers(k)) % k
    return fold


def fitted(x, y, new):
    """Probabilities on new rows of a linear discriminant with a ridge of half the mean variance."""
    means = np.stack([x[y == c].mean(axis=0) if (y == c).any() else x.mean(axis=0) for c in range(CLASSES)])
    centred = x - means[y]
    covariance = centred.T @ centred / max(len(x) - CLASSES, 1)
    covariance += 0.5 * np.trace(covariance) / WIDTH * np.eye(WIDTH)
    weights = np.linalg.solve(covariance, means.T)
    logits = new @ weights - 0.5 * (means.T * weights).sum(axis=0)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def better_of_two(systems, y, rows, inner):
    """The one that is right on more of the inner folds' rows."""

    def right(x) -> int:
        return sum(
            int(
                (
                    fitted(x[rows[inner != f]], y[rows[inner != f]], x[rows[inner == f]]).argmax(1)
                    == y[rows[inner == f]]
                ).sum()
            )
            for f in range(3)
        )

    return max(systems, key=right)


def world(rng, rows: int, signal: float = 0.35):
    """Labels, and four systems' features: the same class means seen with independent noise."""
    y = rng.integers(0, CLASSES, rows)
    y[: 2 * CLASSES] = np.tile(np.arange(CLASSES), 2)
    centres = signal * rng.normal(size=(CLASSES, WIDTH)) * 2
    return y, [centres[y][:, rng.permutation(WIDTH)] + rng.normal(size=(rows, WIDTH)) for _ in range(4)]


def pooled(rng, rows: int, opened: int = 5):
    """Labels and the pooled predictions of the chosen system and its opponent, of the first outer folds."""
    y, systems = world(rng, rows)
    outer = dealt(y, 5, rng)
    tables = [np.zeros((rows, CLASSES)) for _ in range(2)]
    for f in range(opened):
        train, test = np.flatnonzero(outer != f), np.flatnonzero(outer == f)
        inner = dealt(y[train], 3, rng)
        for table, pair in zip(tables, (systems[:2], systems[2:]), strict=True):
            x = better_of_two(pair, y, train, inner)
            table[test] = fitted(x[train], y[train], x[test])
    seen = outer < opened
    return y[seen], *(table[seen] for table in tables)


def held_out(rng, rows: int):
    """The same with one fixed test of a fifth."""
    y, systems = world(rng, rows)
    test = np.flatnonzero(dealt(y, 5, rng) == 0)
    train = np.setdiff1d(np.arange(rows), test)
    inner = dealt(y[train], 3, rng)
    picked = [better_of_two(pair, y, train, inner) for pair in (systems[:2], systems[2:])]
    return y[test], *(fitted(x[train], y[train], x[test]) for x in picked)


def false_helps_rate(rows: int, runs: int, *, protocol=pooled, factor: float = outer_factor(5), seed: int = 0) -> float:
    """The share of runs in which the verdict is `helps`, though no system is better than another."""
    helps = 0
    for run in range(runs):
        y, chosen, opponent = protocol(np.random.default_rng([seed, rows, run]), rows)
        groups = [str(i) for i in range(len(y))]
        helps += verify(chosen, ("plain", opponent), None, y, groups, "macro_f1", factor=factor).verdict == "helps"
    return helps / runs


def test_false_helps_are_rare_small() -> None:
    assert false_helps_rate(50, 25) <= 0.2  # 5 of 25: 99.9 % quantile at a true rate of 5 %


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "runs"), [(50, 2000), (100, 1000), (300, 1000)])
def test_false_helps_of_pooled_outer_folds_are_at_most_5_percent(rows: int, runs: int) -> None:
    assert false_helps_rate(rows, runs) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "opened"), [(50, 1), (50, 3), (200, 2)])
def test_false_helps_are_no_more_where_the_clock_allowed_fewer_folds(rows: int, opened: int) -> None:
    assert false_helps_rate(rows, 1000, protocol=partial(pooled, opened=opened)) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "runs"), [(1000, 1000), (3000, 400)])
def test_false_helps_of_one_test_are_at_most_5_percent(rows: int, runs: int) -> None:
    assert false_helps_rate(rows, runs, protocol=held_out, factor=1.0) <= 0.05
