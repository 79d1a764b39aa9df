"""Text from outside never steers what shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.numerics.plain_text import plain


@given(st.text())
def test_nothing_that_steers_is_left(text: str) -> None:
    shown = plain(text)
    assert not set(shown) & {*map(chr, range(32)), "\x7f", *map(chr, range(0x80, 0xA0)), "‮", "⁦", "\u2028"}
    shown.encode("utf-8")  # no lone surrogates


@pytest.mark.parametrize("text", ["hello", "naïve café", "日本語", "می‌خواهم", "👩‍👧", "a\\b", "<b>&", ""])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert plain(text) == text


def test_what_steers_is_written_out() -> None:
    assert plain("\x1b]0;x\x07\n\u202e\x9b\ufeff\ud800") == r"\x1b]0;x\x07\n\u202e\x9b\ufeff\ud800"
    assert plain("a\r\nb\tc", lines=True) == "a\nb\tc"
    assert plain(3) == "3"


def test_long_texts_are_cut_and_counted() -> None:
    assert plain("ab" * 500_000, limit=4) == "abab… (1,000,000 characters)"
    assert plain("abcd", limit=4) == "abcd"
