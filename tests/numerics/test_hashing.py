"""Laws of the row hashes, and values done by hand."""

from __future__ import annotations

from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.numerics.hashing import (
    KEY,
    content_pair,
    content_pixels,
    content_row,
    content_text,
    content_tokens,
    row_key,
    unit,
    whole_text,
)

ANY_TEXT = st.text(st.characters(), max_size=30)


@given(ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert content_text(content_text(text)) == content_text(text)


@given(ANY_TEXT)
@settings(max_examples=100, deadline=None)
def test_white_space_around_and_doubled_inside_does_not_matter(text: str) -> None:
    assert content_text(f" \t{text}\r\n") == content_text(text.replace(" ", "  "))


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_short_way_for_plain_letters_equals_the_long_way(text: str) -> None:
    assert content_text(text) == content_text(text + " é")[:-1].rstrip()


@pytest.mark.parametrize(("one", "other"), [("STRASSE", "straße"), ("ﬁne", "FINE"), ("e\u0301", "É"), ("１２", "12")])
def test_compatible_forms_are_one(one: str, other: str) -> None:
    assert content_text(one) == content_text(other)


@given(ANY_TEXT, st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_a_unit_lies_below_one(key: str, salt: int) -> None:
    assert 0 <= unit(key, str(salt)) < 1


def test_units_are_spread_evenly() -> None:
    low = sum(unit(str(i), "salt") < 0.2 for i in range(5000)) / 5000
    assert abs(low - 0.2) < 0.02  # 3.5 standard errors of a fifth of 5,000


def test_the_published_key_names_a_content() -> None:
    assert row_key("abc") == blake2b(b"abc", key=KEY, digest_size=16).hexdigest()
    assert row_key("abc", b"private") != row_key("abc")


def test_lone_surrogates_are_named_and_made_storable() -> None:
    assert len(row_key("a\ud800")) == 32
    whole_text("a\ud800").encode()


def test_a_pair_is_not_the_two_texts_in_one() -> None:
    assert content_pair("a b", "c") != content_pair("a", "b c")
    assert content_pair("a", "") != content_text("a")


def test_tokens_are_compared_as_the_text_they_make() -> None:
    assert content_tokens(["A", "b"]) == content_text("a B")


def test_pixels_of_another_shape_are_another_image() -> None:
    assert content_pixels(1, 2, b"aaabbb") != content_pixels(2, 1, b"aaabbb")


def test_a_table_row_is_compared_by_its_values() -> None:
    assert content_row({"a": 1, "b": float("nan")}) == content_row({"b": None, "a": 1.0})
    assert content_row({"a": "1"}) != content_row({"a": 1})
    assert content_row({"a": -0.0}) == content_row({"a": 0})
