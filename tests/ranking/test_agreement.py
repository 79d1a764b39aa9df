"""Agreement by a loop, and its limits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from headstart.ranking.estimators.agreement import Agreement
from headstart.testing.ranking_estimators import dealt, score


def test_equals_a_loop() -> None:
    chance = np.random.default_rng(0)
    y, z = chance.integers(3, size=80), chance.integers(5, size=80)
    z = np.where(chance.random(80) < 0.5, y, z)
    folds, right = dealt(y), []
    for i in range(80):
        train = [j for j in range(80) if folds[j] != folds[i]]
        commonest = Counter(int(y[j]) for j in train)
        beside = Counter(int(y[j]) for j in train if z[j] == z[i])
        weight = [beside[c] + 0.5 * commonest[c] / len(train) for c in range(3)]
        meant = [c for c in range(3) if weight[c] == max(weight)]
        right.append((int(y[i]) in meant) / len(meant))
    found = score(Agreement(), 9.0 * np.eye(5)[z], y, 3, folds=folds)
    assert found == pytest.approx(np.mean(right))


def test_limits() -> None:
    y = np.arange(60) % 3
    assert score(Agreement(), 9.0 * np.eye(3)[(y + 1) % 3], y) == 1, "renamed classes"
    each = 9.0 * np.eye(60)
    uneven = np.repeat([0, 1], (45, 15))
    assert score(Agreement(), each, uneven, 2) == 0.75, "a class for each row tells nothing of other rows"


def test_equals_share_a_source_class() -> None:
    """It has one class, and two labels are as common in training and as often beside it: half of each."""
    y = np.array([0, 1] * 10)
    assert score(Agreement(), np.zeros((20, 3)), y, 2, folds=np.repeat(np.arange(5), 4)) == 0.5
    assert score(Agreement(), np.zeros((20, 3)), np.where(y, 0, 2), 3, folds=np.repeat(np.arange(5), 4)) == 0.5
