"""How anything reaches the screen: data on stdout, all else on stderr, one JSON document for machines."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from headstart.numerics.plain_text import plain

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

PIPED_WIDTH = 100  # columns where there is no terminal
PLAIN_SIGNS = str.maketrans(
    {"█": "#", "…": "...", "×": "x", "−": "-", "–": "-", "·": ",", "“": '"', "”": '"'} | dict.fromkeys("▏▎▍▌▋▊▉")
)
CYAN, GREEN, YELLOW, RED = "36", "32", "33", "31"


def emit(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout; numbers that JSON has no word for become null."""
    value = _finite(document)
    text = json.dumps(value, ensure_ascii=False, indent=1)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, or a locale without these letters
        text = json.dumps(value, indent=1)
    print(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def write(text: str) -> None:
    """Text on stdout, in the letters that its encoding has."""
    sys.stdout.write(_spelt(text, sys.stdout))


def _spelt(text: str, stream: TextIO) -> str:
    """Our own signs in plain ones, and other letters as Python would write them out, where the encoding lacks them."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN_SIGNS).encode(encoding, errors="backslashreplace").decode(encoding)
    return text


def line(text: object, *, colour: str = "", first: bool = False) -> None:
    """One line of data. colour: of the whole line, or of its first word alone."""
    shown = plain(text)
    head, gap, rest = shown.partition(" ") if first else (shown, "", "")
    write(_painted(head, colour, sys.stdout) + gap + rest + "\n")


def saved(text: str) -> None:
    """The last line of a command: what was made and where."""
    line(text, colour=GREEN, first=True)


def note(text: str) -> None:
    """A line on stderr that is no warning."""
    _aside(plain(text))


def warn(text: str) -> None:
    """Something that a person must know, on stderr."""
    _aside(f"{_painted('warning:', YELLOW, sys.stderr)} {plain(text)}")


def tell(problem: Mapping[str, str], *, machine: bool) -> None:
    """An error in its three lines; for machines as one JSON document on stdout."""
    if machine:
        emit({"error": dict(problem)})
        return
    _aside(f"{_painted('error:', RED, sys.stderr)} {plain(problem['what'])}")
    _aside(f"   in: {plain(problem['where'])}")
    _aside(f" {_painted('hint:', CYAN, sys.stderr)} {plain(problem['fix'])}")


def _aside(text: str) -> None:
    print(_spelt(text, sys.stderr), file=sys.stderr)


def _painted(text: str, colour: str, stream: TextIO) -> str:
    bright = colour and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{colour}m{text}\x1b[0m" if bright else text


def table(*columns: str, rows: Iterable[Sequence[object]] = ()) -> Table:
    """A table with a rule under its heads; a head that begins with `>` aligns right. Cells are text, never markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        head = Text(name.lstrip(">"))
        if name.startswith(">"):
            made.add_column(head, justify="right", no_wrap=True)
        else:
            made.add_column(head, overflow="fold")
    for row in rows:
        made.add_row(*map(cell, row))
    return made


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Names and what is known of them, in two columns without rules."""
    from rich.table import Table

    made = Table.grid(padding=(0, 3, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(cell(name), cell(value))
    return made


def cell(value: object) -> Text:
    """Text that Rich shows letter by letter; a list becomes lines."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    return Text("\n".join(map(plain, value)) if isinstance(value, (list, tuple)) else plain(value))


def draw(*things: Table | str) -> None:
    """Tables and paragraphs on stdout, as wide as the terminal; without one, 100 columns or $COLUMNS."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or PIPED_WIDTH)
    held, here = io.StringIO(), sys.stdout.isatty()  # Rich would end the process where the reader of a pipe went away
    console = Console(file=held, force_terminal=here, highlight=False, markup=False, emoji=False, width=wide)
    for thing in things:
        console.print(cell(thing) if isinstance(thing, str) else thing)
    write("".join(f"{one.rstrip()}\n" for one in held.getvalue().splitlines()))


def number(value: Any) -> str:
    """A score with the digits that mean something.

    >>> number(0.51234), number(-12.3456), number(13955.2), number(None)
    ('0.512', '-12.35', '13,955', '')
    """
    if value is None or value != value:
        return ""
    if 0 < abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def interval(score: Mapping[str, Any]) -> str:
    """
    >>> interval({"value": 0.5, "low": 0.25, "high": 0.75})
    '0.250 to 0.750'
    """
    if score.get("low") is None or score.get("high") is None:
        return ""
    return f"{number(score['low'])} to {number(score['high'])}"
