"""NCE and LEEP: entropies by scikit-learn, hand values, and how the two meet."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from headstart.core import Unfit
from headstart.numerics.information import expected_predictions, four_rows_a_class
from headstart.ranking.estimators.leep import LEEP
from headstart.ranking.estimators.nce import NCE
from headstart.testing.ranking_estimators import draw, heard, score

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
    """Two kinds of rows, two labels, a source that says 0.75 and 0.25: P(y|z) = 0.75 and 0.25 again."""
    f = np.log(np.array([[0.75, 0.25], [0.25, 0.75]]))
    assert score(LEEP(), np.tile(f, (3, 1)), np.arange(6) % 2, 2) == pytest.approx(np.log(0.75**2 + 0.25**2))


def test_a_class_split_in_two_changes_nothing() -> None:
    chance = np.random.default_rng(0)
    p, y = chance.dirichlet(np.ones(4), 80), np.arange(80) % 3
    split = np.hstack([p[:, :3], 0.3 * p[:, 3:], 0.7 * p[:, 3:]])
    assert score(LEEP(), np.log(split), y) == pytest.approx(score(LEEP(), np.log(p), y), rel=1e-9)


def test_many_source_classes_would_know_rows_by_heart() -> None:
    """Sure noise over as many classes as it takes is ahead of a good source; so few rows a class are refused."""
    chance, y = np.random.default_rng(0), np.arange(100) % 3
    for method in (NCE(), NCE(correction="miller_madow"), LEEP()):
        for classes in (64, 512, 4096):
            with pytest.raises(Unfit, match=r"100 rows in \d+ of the source's classes"):
                score(method, 20 * chance.standard_normal((100, classes)), y)
    each = logits(np.arange(100), 100)
    assert expected_predictions(np.eye(100), y, 3).min() == 1.0
    with pytest.raises(Unfit, match="100 rows in 100 of"):
        score(LEEP(), each, y)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [100, 300, 1000])
def test_where_they_answer_sure_noise_is_behind(rows: int, seed: int) -> None:
    f, y = draw(seed, rows, 32, 4, apart=0.7)
    answered = 0
    for classes, method in itertools.product((16, 64, 128, 512), (NCE(), LEEP())):
        noise = np.random.default_rng((seed, classes)).standard_normal((rows, classes))
        told, known = (heard(method, 10 * g, y, classes=4) for g in (noise, f))
        answered += told is not None and known is not None
        assert told is None or known is None or told < known
    assert answered >= (0 if rows == 100 else 2)


def test_what_it_takes_to_be_in_use() -> None:
    four_rows_a_class(np.full((4, 1000), 1e-3), "here")  # no row is in one class more than another
    four_rows_a_class(np.repeat(np.eye(5), 4, axis=0), "here")
    with pytest.raises(Unfit, match="19 rows in 5 of"):
        four_rows_a_class(np.repeat(np.eye(5), 4, axis=0)[1:], "here")


def test_chance_is_taken_off() -> None:
    chance = np.random.default_rng(1)
    some, y = logits(chance.integers(12, size=60), 12), chance.integers(3, size=60)
    assert score(NCE(correction="miller_madow"), some, y) < score(NCE(), some, y)
