"""McNemar's exact test on the textbook case: 8 rows one way and 1 the other give p = 0.0391."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.evidence.checks.mcnemar import McNemar


def systems(b: int, c: int, both: int = 5):
    labels = np.zeros(b + c + both, dtype=np.int64)
    mine = np.array([0] * b + [1] * c + [0] * both)
    theirs = np.array([1] * b + [0] * c + [0] * both)
    return np.eye(2)[mine], np.eye(2)[theirs], labels


def test_by_hand() -> None:
    a, b, labels = systems(8, 1)
    found = McNemar()(a, b, labels, [str(i) for i in range(len(labels))], "accuracy")
    assert (found.figures["only_chosen"], found.figures["only_opponent"]) == (8, 1)
    assert found.figures["p"] == pytest.approx(2 * (1 + 9) / 2**9)  # 0.0391
    assert "8 rows" in found.sentence


def test_groups_are_pointed_out() -> None:
    a, b, labels = systems(8, 1)
    assert McNemar()(a, b, labels, ["one"] * len(labels), "accuracy").figures["grouped"]


def test_p_is_no_smaller_than_it_says_when_systems_are_equal() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros(40, dtype=np.int64)
    groups = [str(i) for i in range(40)]
    ps = [
        McNemar()(np.eye(2)[rng.integers(0, 2, 40)], np.eye(2)[rng.integers(0, 2, 40)], labels, groups, "accuracy")
        for _ in range(300)
    ]
    assert np.mean([f.figures["p"] <= 0.05 for f in ps]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
