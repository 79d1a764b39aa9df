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
        meaning = max(range(3), key=lambda c: (beside[c] + 0.5 * commonest[c] / len(train), -c))
        right.append(meaning == y[i])
    found = score(Agreement(), 9.0 * np.eye(5)[z], y, 3, folds=folds)
    assert found == pytest.approx(np.mean(right))


def test_limits() -> None:
    y = np.arange(60) % 3
    assert score(Agreement(), 9.0 * np.eye(3)[(y + 1) % 3], y) == 1, "renamed classes"
    each = 9.0 * np.eye(60)
    uneven = np.repeat([0, 1], (45, 15))
    assert score(Agreement(), each, uneven, 2) == 0.75, "a class for each row tells nothing of other rows"
