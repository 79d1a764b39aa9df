"""Rows that a source was trained on: found through its ancestors, and marked by the rule of the design."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.inventory import Inventory
from headstart.inventory.contamination import Trained, marks

from .shelves import a_source

TEST = [f"row {n}" for n in range(200)]


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Inventory]:
    with Inventory(tmp_path / "bank.db") as opened:
        yield opened


def trained(**rows: int) -> dict[str, Trained]:
    """Sources that have seen this many of the first test rows."""
    return {name: Trained(frozenset(TEST[:count]), "known") for name, count in rows.items()}


def test_up_to_a_twentieth_of_the_test_is_left_out_for_all() -> None:
    found = marks(trained(clean=0, some=10), TEST)
    assert found.left_out == tuple(range(10))
    assert {name: (m.status, m.can_win) for name, m in found.of.items()} == {
        "clean": ("clean", True),
        "some": ("rows-left-out", True),
    }


def test_beyond_a_twentieth_a_source_cannot_win_and_its_rows_stay() -> None:
    found = marks(trained(clean=0, much=11), TEST)
    assert found.left_out == ()
    assert (found.of["much"].status, found.of["much"].can_win, found.of["much"].shared) == ("contaminated", False, 11)
    assert found.of["clean"].can_win
    assert "11 of 200 test rows (5.5%)" in found.of["much"].sentence


def test_what_is_left_out_for_several_sources_stays_within_a_twentieth() -> None:
    seen = {name: Trained(frozenset(TEST[at : at + 6]), "known") for name, at in (("a", 0), ("b", 50), ("c", 3))}
    found = marks(seen, TEST)
    assert found.left_out == tuple(range(9))  # a, then c, which adds three; b would make fifteen
    assert [found.of[name].can_win for name in "abc"] == [True, False, True]


def test_a_row_that_stands_twice_in_the_test_counts_twice() -> None:
    doubled = ["x"] * 6 + [f"row {n}" for n in range(94)]
    assert marks({"a": Trained(frozenset({"x"}), "known")}, doubled).of["a"].status == "contaminated"


def test_under_outer_cross_validation_a_hundred_rows_must_remain() -> None:
    found = marks(trained(clean=0, half=100, more=101), TEST, outer=True)
    assert found.left_out == tuple(range(100))
    assert {name: m.can_win for name, m in found.of.items()} == {"clean": True, "half": True, "more": False}
    small = marks(
        {"a": Trained(frozenset({"row 0"}), "known"), "b": Trained(frozenset(), "known")}, TEST[:60], outer=True
    )
    assert [small.of[name].can_win for name in "ab"] == [False, True]


def test_unknown_training_rows_are_not_clean() -> None:
    found = marks({"a": Trained(frozenset(), "unknown"), "b": Trained(frozenset({"z"}), "partly")}, TEST)
    assert [found.of[name].status for name in "ab"] == ["unknown", "unknown"]
    assert found.of["a"].can_win


def test_an_empty_test_marks_nobody() -> None:
    assert marks(trained(a=5), []).of["a"].status == "clean"


@given(st.lists(st.sets(st.integers(0, 59)), max_size=5), st.booleans())
def test_the_rule_holds_for_any_shelf(seen: list[set[int]], outer: bool) -> None:
    test = [str(n) for n in range(120)]
    shelf = {f"s{i}": Trained(frozenset(map(str, rows)), "known") for i, rows in enumerate(seen)}
    found = marks(shelf, test, outer=outer)
    left = set(found.left_out)
    assert len(test) - len(left) >= 100 if outer else len(left) <= 6
    for name, rows in zip(shelf, seen, strict=True):
        assert found.of[name].can_win == (rows <= left)
        assert list(found.of) == list(shelf)


def test_a_source_inherits_the_rows_of_its_base_and_its_parents(bank: Inventory) -> None:
    base = a_source("base", trained_on=frozenset({"b"}))
    child = a_source("child", base=base.weights, trained_on=frozenset({"c"}))
    other = a_source("other", trained_on=frozenset({"o"}))
    soup = a_source("soup", lineage=(child.identity, other.id), trained_on=frozenset())
    for source in (base, child, other):
        bank.add_source(source)
    learned = bank.trained_rows([soup])[soup.id]
    assert (learned.rows, learned.history) == (frozenset("bco"), "known")
    assert bank.contamination([soup, base], ["b", "o", "x"]) == {soup.id: 2, base.id: 1}


def test_an_ancestor_that_nobody_knows_makes_the_history_partly_known(bank: Inventory) -> None:
    orphan = a_source("orphan", base="f" * 64, trained_on=frozenset({"c"}))
    stranger = a_source("stranger")
    learned = bank.trained_rows([orphan, stranger])
    assert (learned[orphan.id].rows, learned[orphan.id].history) == (frozenset("c"), "partly")
    assert learned[stranger.id].history == "unknown"


def test_a_copy_with_another_pooling_has_learned_the_same_rows(bank: Inventory) -> None:
    mean = a_source("mean", weights="w" * 64, trained_on=frozenset({"r"}))
    bank.add_source(mean)
    first_token = a_source("cls", weights="w" * 64, trained_on=None)
    assert bank.contamination([first_token], ["r"]) == {first_token.id: 1}


def test_lineage_in_a_circle_ends(bank: Inventory) -> None:
    one, two = a_source("one"), a_source("two")
    bank.add_source(a_source("one", lineage=(two.identity,), trained_on=frozenset({"1"})))
    bank.add_source(a_source("two", lineage=(one.identity,), trained_on=frozenset({"2"})))
    assert bank.trained_rows([one])[one.id].rows == frozenset("12")
