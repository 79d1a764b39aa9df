"""Jensen-Shannon and Rényi divergences against scipy, their limit cases, and numbers done by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from headstart.core import Unfit
from headstart.numerics.words import word_shares
from headstart.ranking.divergences.jensen_shannon import JensenShannon
from headstart.ranking.divergences.renyi import Renyi
from headstart.testing.ranking_divergences import SeenSample

WORDS = st.lists(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=6)


def between(method: Any, source: list[str], target: list[str]) -> float:
    a, b = (SeenSample(needs=method.needs, given=np.zeros((len(t), 1)), known=None, said=t) for t in (source, target))
    value: float = method(a, b)
    return value


def shares(texts: list[str]) -> np.ndarray[Any, Any]:
    """Counted letter by letter, apart from the code under test."""
    whole = " ".join(texts).split()
    return np.array([whole.count(word) for word in "abcdefg"]) / len(whole)


@given(source=WORDS, target=WORDS)
def test_jensen_shannon_is_the_square_of_scipys_distance(source: list[str], target: list[str]) -> None:
    want = jensenshannon(shares(source), shares(target), base=2) ** 2
    assert between(JensenShannon(), source, target) == pytest.approx(want, abs=1e-12)


def test_jensen_shannon_by_hand() -> None:
    assert between(JensenShannon(), ["a b"], ["c d"]) == 1.0, "no word in common"
    # shares (1, 0) and (1/2, 1/2), mean (3/4, 1/4)
    want = (np.log2(4 / 3) + 0.5 * np.log2(2 / 3) + 0.5 * np.log2(2)) / 2
    assert between(JensenShannon(), ["a a"], ["A b"]) == pytest.approx(want)


@given(source=WORDS, target=WORDS, alpha=st.sampled_from([0.3, 0.99, 2.0]))
def test_renyi_equals_the_formula(source: list[str], target: list[str], alpha: float) -> None:
    q, p = shares(source), shares(target)
    seen = (p + q) > 0
    q, p = (0.9 * s[seen] + 0.05 * (p + q)[seen] for s in (q, p))
    want = np.log(np.sum(p**alpha / q ** (alpha - 1))) / (alpha - 1)
    assert between(Renyi(alpha=alpha), source, target) == pytest.approx(max(want, 0), abs=1e-10)


def test_renyi_near_one_is_kullback_and_leiblers_and_near_nought_sees_support_alone() -> None:
    q, p = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    mixed_q, mixed_p = 0.9 * q + 0.05, 0.9 * p + 0.05
    source, target = ["a a a b"], ["a b b b"]
    assert between(Renyi(alpha=1 + 1e-7), source, target) == pytest.approx(entropy(mixed_p, mixed_q), rel=1e-5)
    assert between(Renyi(alpha=1e-9), source, target) == pytest.approx(0, abs=1e-8)


def test_renyi_is_smaller_to_a_source_that_has_all_words_and_more() -> None:
    wide, narrow = ["a b c d"], ["a b"]
    assert between(Renyi(), wide, narrow) < between(Renyi(), narrow, wide)
    assert between(Renyi(), ["a"], ["b"]) <= np.log(2 / 0.1 - 1) + 1e-12, "the bound of the docstring"


def test_only_the_commonest_words_of_both_count() -> None:
    assert word_shares(["a a a x"], ["b b b y"], most=2)[0].tolist() == [1.0, 0.0]
    assert word_shares(["", "?"], [""], most=2)[0].tolist() == []


def test_settings_that_mean_nothing_are_unfit() -> None:
    for made in (lambda: Renyi(alpha=1), lambda: Renyi(smoothing=0), lambda: JensenShannon(words=0)):
        with pytest.raises(Unfit):
            made()
