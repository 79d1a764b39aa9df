"""NCE and LEEP: entropies by scikit-learn, hand values, and how the two meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from headstart.ranking.estimators.leep import LEEP
from headstart.ranking.estimators.nce import NCE
from headstart.testing.ranking_estimators import score

Array = np.ndarray[Any, Any]


def logits(said: Array, classes: int, sure: float = 400.0) -> Array:
    """What a view's softmax turns into one-hot probabilities."""
    return np.asarray(sure * np.eye(classes)[said])


def entropy(y: Array) -> float:
    p = np.unique(y, return_counts=True)[1] / len(y)
    return float(-(p * np.log(p)).sum())


@given(seed=st.integers(0, 999), classes=st.integers(2, 6), known=st.integers(1, 9))
def test_nce_is_information_less_entropy(seed: int, classes: int, known: int) -> None:
    chance = np.random.default_rng(seed)
    y, z = chance.integers(classes, size=50), chance.integers(known, size=50)
    want = mutual_info_score(y, z) - entropy(y)
    assert score(NCE(), logits(z, known), y, classes) == pytest.approx(want, abs=1e-9)
    assert score(LEEP(), logits(z, known), y, classes) == pytest.approx(want, abs=1e-9), "sure sources: LEEP is NCE"


def test_limits() -> None:
    y = np.arange(60) % 3
    renamed = np.array([2, 0, 1])[y]
    assert score(NCE(), logits(renamed, 3), y) == score(LEEP(), logits(renamed, 3), y) == pytest.approx(0.0)
    assert score(NCE(), logits(np.zeros(60, dtype=int), 3), y) == pytest.approx(-np.log(3))
    assert score(LEEP(), np.zeros((60, 7)), y) == pytest.approx(-np.log(3)), "a source that does not know"


def test_leep_by_hand() -> None:
    """Two rows, two labels, a source that says 0.75 and 0.25: P(y|z) = 0.75 and 0.25 again."""
    f = np.log(np.array([[0.75, 0.25], [0.25, 0.75]]))
    assert score(LEEP(), f, np.array([0, 1]), 2) == pytest.approx(np.log(0.75**2 + 0.25**2))


def test_a_class_split_in_two_changes_nothing() -> None:
    chance = np.random.default_rng(0)
    p, y = chance.dirichlet(np.ones(4), 80), np.arange(80) % 3
    split = np.hstack([p[:, :3], 0.3 * p[:, 3:], 0.7 * p[:, 3:]])
    assert score(LEEP(), np.log(split), y) == pytest.approx(score(LEEP(), np.log(p), y), rel=1e-9)


def test_many_source_classes_know_rows_by_heart() -> None:
    y = np.random.default_rng(0).integers(3, size=60)
    each = logits(np.arange(60), 60)
    assert score(NCE(), each, y) == pytest.approx(0.0, abs=1e-12)
    assert score(NCE(correction="miller_madow"), each, y) == pytest.approx(0.0, abs=1e-12)
    some = logits(np.random.default_rng(1).integers(20, size=60), 20)
    assert score(NCE(correction="miller_madow"), some, y) < score(NCE(), some, y), "chance is taken off"
