"""Held-out NCE by a loop, and beside NCE where that one knows rows by heart."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.ranking.estimators.nce import NCE
from headstart.ranking.estimators.nce_cv import NCECv
from headstart.testing.ranking_estimators import dealt, score


def test_equals_a_loop() -> None:
    chance = np.random.default_rng(0)
    y, z = chance.integers(3, size=80), chance.integers(5, size=80)
    z = np.where(chance.random(80) < 0.5, y, z)
    folds, nats = dealt(y), []
    for i in range(80):
        train = np.flatnonzero(folds != folds[i])
        share = (np.sum(y[train] == y[i]) + 1 / 3) / (len(train) + 1)
        alike = train[z[train] == z[i]]
        nats.append(-np.log((np.sum(y[alike] == y[i]) + share) / (len(alike) + 1)))
    assert score(NCECv(), 9.0 * np.eye(5)[z], y, folds=folds) == pytest.approx(-np.mean(nats), rel=1e-9)


def test_with_many_rows_a_class_it_comes_near_to_nce() -> None:
    chance = np.random.default_rng(1)
    y = np.arange(6000) % 3
    z = np.where(chance.random(6000) < 0.6, y, chance.integers(4, size=6000))
    logits = 9.0 * np.eye(4)[z]
    assert score(NCECv(), logits, y) == pytest.approx(score(NCE(), logits, y), abs=0.01)


def test_a_class_for_each_row_tells_nothing_of_other_rows() -> None:
    y, each = np.arange(60) % 3, 9.0 * np.eye(60)
    with pytest.raises(Unfit, match="60 rows in 60 of the source's classes"):
        score(NCE(), each, y)
    assert score(NCECv(), each, y) == pytest.approx(-np.log(3), abs=1e-9)
