"""Keyed hashes of row contents: equal inputs have equal names, on every machine.

The key is part of the format, so that hashes of one bank can be compared with those of another.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

KEY = b"headstart row hashes, version 1"
PAIR = "\x1f"  # between the two texts of a pair; no normalised text contains it
_SURROGATE = re.compile("[\ud800-\udfff]")


def row_key(content: str | bytes, key: bytes = KEY) -> str:
    """32 hexadecimal characters that name a content.

    >>> row_key("a") == row_key(b"a"), len(row_key(""))
    (True, 32)
    """
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return blake2b(data, key=key, digest_size=16).hexdigest()


def unit(key: str, salt: str) -> float:
    """A number in [0, 1) that depends on the key and the salt alone.

    >>> unit("row", "a") == unit("row", "a") != unit("row", "b")
    True
    """
    digest = blake2b(key.encode("utf-8", "surrogatepass"), key=_salted(salt), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


@lru_cache(maxsize=64)
def _salted(salt: str) -> bytes:
    return blake2b(salt.encode()).digest()[:32]


def whole_text(text: str) -> str:
    """The text with lone halves of surrogate pairs, which no file can hold, replaced.

    >>> whole_text("a\\ud800")
    'a\\ufffd'
    """
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def content_text(text: str) -> str:
    """What is compared of a text: compatible forms, case and runs of white space are made one.

    >>> content_text("  Where IS\\n my ｃａｒｄ?")
    'where is my card?'
    """
    if text.isascii():
        return " ".join(text.lower().split())
    before = whole_text(text)
    for _ in range(4):  # normal forms and case folding undo each other for a few letters: until nothing moves
        after = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", before).casefold())
        if after == before:
            break
        before = after
    return " ".join(before.split())


def content_pair(text: str, other: str) -> str:
    """What is compared of a text pair; the order matters.

    >>> content_pair("A", "b") == content_pair("a ", "B") != content_pair("b", "a")
    True
    """
    return content_text(text) + PAIR + content_text(other)


def content_tokens(tokens: Sequence[str]) -> str:
    """What is compared of a token list: the text that it makes.

    >>> content_tokens(["To", "Paris"])
    'to paris'
    """
    return content_text(" ".join(tokens))


def content_pixels(width: int, height: int, pixels: bytes) -> bytes:
    """What is compared of an upright RGB image.

    >>> content_pixels(1, 1, b"abc")
    b'1x1 RGB\\nabc'
    """
    return f"{width}x{height} RGB\n".encode() + pixels


def content_row(row: Mapping[str, Any]) -> str:
    """What is compared of a table row: column names in order, numbers as numbers, blanks as null.

    >>> content_row({"b": 1, "a": "x"}) == content_row({"a": "x", "b": 1.0})
    True
    """
    return json.dumps({k: _plain(row[k]) for k in sorted(row)}, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    number = float(value)
    return None if number != number else number + 0.0  # NaN is a blank, and -0.0 is 0.0
