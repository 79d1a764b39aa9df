"""Cross-fitting: no label reaches the prediction of its own fold, and a member that memorised cannot win by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.combination.fusion.greedy_ensemble import GreedyEnsemble
from headstart.numerics.crossfit import crossfit

Array = np.ndarray[Any, Any]


def best_member(tables: Sequence[Array], labels: Array) -> Array:
    errors = [((t[:, 0] - labels) ** 2).mean() for t in tables]
    return np.eye(len(tables))[int(np.argmin(errors))]


def made(seed: int = 0, repeats: int = 2, members: int = 4) -> tuple[Array, Array, Array]:
    g = np.random.default_rng(seed)
    labels = g.normal(size=30)
    tables = labels[:, None] + g.normal(size=(members, repeats, 30, 1))
    folds = np.stack([g.permutation(np.arange(30) % 5) for _ in range(repeats)])
    return tables, labels, folds


def test_labels_of_a_fold_never_reach_its_own_predictions() -> None:
    tables, labels, folds = made()
    before, _ = crossfit(tables, labels, folds, best_member)
    for repeat in range(2):
        for fold in range(5):
            rows = folds[repeat] == fold
            changed = labels.copy()
            changed[rows] = 100 * np.random.default_rng(1).normal(size=rows.sum())
            after, _ = crossfit(tables, changed, folds, best_member)
            assert np.array_equal(before[repeat, rows], after[repeat, rows])


def test_weights_of_a_cell_are_fitted_on_all_other_rows_and_no_more() -> None:
    tables, labels, folds = made()
    seen: list[int] = []

    def fuse(parts: Sequence[Array], truth: Array) -> Array:
        seen.append(len(truth))
        return np.full(len(parts), 1 / len(parts))

    crossfit(tables, labels, folds, fuse)
    assert seen == [2 * 24] * 10 + [60]


def test_only_cells_that_all_members_have_are_blended() -> None:
    tables, labels, folds = made()
    tables[1, 1] = np.nan  # a route that ran repeat 0 alone
    tables[2, 0, folds[0] > 2] = np.nan  # and only three of its folds
    blended, weights = crossfit(tables, labels, folds, best_member)
    assert np.isnan(blended[1]).all()
    assert np.array_equal(np.isnan(blended[0, :, 0]), folds[0] > 2)
    assert weights.sum() == 1


def test_a_validation_split_is_dealt_into_parts() -> None:
    tables, labels, _ = made(repeats=1)
    folds = np.where(np.arange(30) < 12, 0, -1)[None]
    tables[:, :, 12:] = np.nan
    before, _ = crossfit(tables, labels, folds, best_member)
    assert np.array_equal(np.isnan(before[0, :, 0]), np.arange(30) >= 12)
    part = np.flatnonzero(folds[0] == 0)[np.argsort(labels[:12])][::5]
    changed = labels.copy()
    changed[part] += 1e-9  # the same order of labels, other labels
    seen: list[Array] = []
    crossfit(tables, changed, folds, lambda t, y: (seen.append(y), best_member(t, y))[1])
    assert all(np.isin(y, labels).all() for y in seen[:1]), "the part's own labels were read"


def test_a_member_of_pure_noise_gets_no_credit_for_the_rows_it_was_chosen_on() -> None:
    g = np.random.default_rng(5)
    labels = np.arange(60) % 2
    noise = g.dirichlet([1, 1], size=(40, 1, 60))
    folds = (np.arange(60) // 2 % 5)[None]
    method = GreedyEnsemble()
    blended, weights = crossfit(noise, labels, folds, lambda t, y: method(t, y, "accuracy"))
    seen = (np.tensordot(weights, noise, axes=1)[0].argmax(1) == labels).mean()
    honest = (blended[0].argmax(1) == labels).mean()
    assert seen > 0.75  # what the blend says of the rows that chose it
    assert abs(honest - 0.5) < 0.2  # three standard errors of a coin over 60 rows
