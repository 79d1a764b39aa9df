"""Text from outside made safe to show: what would steer a terminal or a reader's eye becomes visible."""

from __future__ import annotations

import unicodedata

KEPT = "\u200c\u200d"  # joiners that scripts and emoji are written with
STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats (bidi overrides, zero width), surrogates, separators


def plain(text: object, *, lines: bool = False, limit: int | None = None) -> str:
    """The text with control, escape, zero-width and direction characters written out, as Python would.

    lines: keep line breaks and tabs. limit: the most characters kept; the rest is counted at the end. A marker that
    is written out is not counted twice: a limit is on what was given.

    >>> plain("red\\x1b[31m\\u202etxt.exe")
    'red\\\\x1b[31m\\\\u202etxt.exe'
    >>> plain("a" * 50, limit=5)
    'aaaaa… (50 characters)'
    """
    given = text if isinstance(text, str) else str(text)
    short = given if limit is None or len(given) <= limit else given[:limit]
    if not (short.isascii() and short.isprintable()):
        short = "".join(_shown(c, lines) for c in (short.replace("\r\n", "\n") if lines else short))
    return short if len(given) == len(given[:limit]) else f"{short}… ({len(given):,} characters)"


def _shown(character: str, lines: bool) -> str:
    if character in KEPT or (lines and character in "\n\t"):
        return character
    if unicodedata.category(character) not in STEERING:
        return character
    return character.encode("unicode_escape").decode("ascii")
