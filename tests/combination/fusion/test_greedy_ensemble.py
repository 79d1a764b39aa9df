"""Greedy ensembles: against every choice of two members, and by hand."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest

from headstart.combination.fusion import fuse
from headstart.combination.fusion.greedy_ensemble import GreedyEnsemble
from headstart.core import Unfit
from headstart.numerics import metrics
from headstart.testing.combination_fusion import draw


def test_one_round_is_the_best_member() -> None:
    tables, labels = draw(0, "accuracy")
    scores = [metrics.value("log_loss", labels, t) for t in tables]
    assert GreedyEnsemble(rounds=1)(tables, labels, "log_loss").argmax() == int(np.argmin(scores))


def test_the_second_member_is_the_best_partner_of_the_first() -> None:
    tables, labels = draw(1, "log_loss")
    first = int(np.argmin([metrics.value("log_loss", labels, t) for t in tables]))
    pairs = [p for p in combinations_with_replacement(range(4), 2) if first in p]
    best = min(pairs, key=lambda p: metrics.value("log_loss", labels, (tables[p[0]] + tables[p[1]]) / 2))
    expected = np.bincount(best, minlength=4) / 2
    assert GreedyEnsemble(rounds=2)(tables, labels, "log_loss").tolist() == expected.tolist()


def test_members_that_complete_each_other_by_hand() -> None:
    labels = np.array([0, 1, 0, 1])
    left = np.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.6], [0.6, 0.4]])  # sure of the first two rows, wrong on the rest
    right = left[[2, 3, 0, 1]]
    assert GreedyEnsemble()([left, right], labels, "accuracy").tolist() == [0.5, 0.5]


def test_the_verb_blends_across_folds() -> None:
    tables, labels = draw(2, "accuracy", rows=30)
    folds = (np.arange(30) // 3 % 5)[None]
    blended, weights = fuse(np.stack(tables)[:, None], labels, folds, "macro_f1")
    assert blended.shape == (1, 30, 3)
    assert np.allclose(blended.sum(axis=-1), 1)
    assert weights.sum() == pytest.approx(1)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(Unfit, match="above 0"):
        GreedyEnsemble(rounds=0)
