"""Votes for collections: every one recalls its own, and size and names play no part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.numerics.votes import LEAST_OF_A_CENTRE, centres, votes

Array = np.ndarray[Any, Any]


def collections(count: int = 8, rows: int = 100, width: int = 12, seed: int = 0) -> list[Array]:
    """Each about a place of its own, all far from the origin, as features of one encoder are."""
    chance = np.random.default_rng(seed)
    places = 10 + 3 * chance.standard_normal((count, 1, width))
    return list(places + chance.standard_normal((count, rows, width)))


def test_every_collection_recalls_its_own() -> None:
    held = collections()
    for at, own in enumerate(held):
        assert votes(held, own[:32]).shares[at] == 1.0
        fresh = own[:32] + 0.3 * np.random.default_rng(at).standard_normal((32, 12))
        assert votes(held, fresh).shares.argmax() == at


def test_by_brute_force() -> None:
    held, chance = collections(4, 9, 3, seed=1), np.random.default_rng(2)
    inputs = 10 + 4 * chance.standard_normal((25, 3))
    middle = np.concatenate(held).mean(axis=0)
    wins = np.zeros(4)
    for one in inputs - middle:
        cosines = [max(one @ (i - middle) / np.linalg.norm(one) / np.linalg.norm(i - middle) for i in c) for c in held]
        wins[int(np.argmax(cosines))] += 1
    np.testing.assert_allclose(votes(held, inputs).shares, wins / 25)


def test_a_large_collection_gets_no_vote_for_its_size() -> None:
    chance = np.random.default_rng(3)
    small, large = chance.standard_normal((40, 6)), chance.standard_normal((4000, 6))
    shares = votes([small, large], chance.standard_normal((2000, 6))).shares
    assert shares[1] == pytest.approx(0.5, abs=0.1)
    assert votes([small, large[:40]], small[:9]).shares.tolist() == votes([small, large], small[:9]).shares.tolist()


def test_items_that_stand_in_two_collections_share_their_vote() -> None:
    held = collections(3)
    assert votes([held[0], held[1], held[0]], held[0][:10]).shares.tolist() == [0.5, 0.0, 0.5]


def test_an_unknown_domain_is_novel_and_a_known_one_is_not() -> None:
    held, fresh = collections(), collections(seed=0, rows=140)
    assert not votes(held, fresh[3][100:132]).novel
    far = 10 + 3 * np.random.default_rng(99).standard_normal((32, 12))  # all over the place
    assert votes(held, far).novel


def test_collections_that_are_empty_or_lone_are_refused() -> None:
    with pytest.raises(Unfit, match="the smallest of 1 items"):
        votes([np.ones((1, 3)), np.ones((5, 3))], np.ones((2, 3)))
    with pytest.raises(Unfit, match="0 collections"):
        votes([], np.ones((2, 3)))


def test_centres_stand_for_several_rows_and_vote_as_rows_do() -> None:
    held = collections()
    condensed = [centres(own, 100) for own in held]
    for at, own in enumerate(held):
        assert votes(condensed, own[:32]).shares.argmax() == at
        gaps = np.linalg.norm(own[:, None] - condensed[at][None], axis=2)
        assert gaps.min() > 1e-3  # no centre is a row
        assert (np.bincount(gaps.argmin(axis=1)) >= LEAST_OF_A_CENTRE).all()
    with pytest.raises(Unfit, match="no two clusters"):
        centres(np.arange(12.0)[:, None], 5)
