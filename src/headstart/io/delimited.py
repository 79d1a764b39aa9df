"""Text files of rows: CSV and its kin in any sane delimiter and encoding, JSON lines, token columns."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa

from headstart.core import Unreadable
from headstart.numerics.hashing import whole_text

DELIMITERS = (",", "\t", ";", "|")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOWHERE = "\x1f"  # a delimiter that no text file holds: the whole line is one field
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+(,\d+)?\s*")


def decoded(data: bytes, where: str) -> tuple[str, list[str]]:
    """The text of a file, and a note where its encoding had to be guessed.

    UTF-8, or what the byte order mark says; else Windows-1252, and Latin-1 for what that does not hold.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data, encoding, where), []
    guess = _wide(data)
    if guess:
        return _strictly(data, guess, where), [f"`{where}` has no byte order mark and was read as {guess}"]
    if b"\0" in data:
        raise Unreadable(
            "the file holds null bytes: it is not text",
            where=f"`{where}`",
            fix="save it as CSV in UTF-8, or give it the file name ending of its true format",
        )
    try:
        return data.decode("utf-8"), []
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        for encoding in ("cp1252", "latin-1"):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            seen = f"byte 0x{data[error.start]:02x} in line {line}"
            return text, [f"`{where}` is not UTF-8 ({seen}) and was read as {encoding}: look at its accents"]
        raise  # Latin-1 holds every byte


def _strictly(data: bytes, encoding: str, where: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"the file begins like {encoding}, and byte {error.start} does not fit that",
            where=f"`{where}`",
            fix="save it as CSV in UTF-8",
        ) from error


def _wide(data: bytes) -> str | None:
    head = data[:4096]
    if len(head) < 4 or b"\0" not in head:
        return None
    if head[1::2].count(0) > 0.6 * len(head[1::2]) and 0 not in head[0::2]:
        return "utf-16-le"
    return "utf-16-be" if head[0::2].count(0) > 0.6 * len(head[0::2]) and 0 not in head[1::2] else None


def read_delimited(path: Path) -> tuple[pa.Table, list[str]]:
    """A table of strings from a file with a header line; blank cells are empty strings.

    Raises `Unreadable` with the line of the first row that has more or fewer fields than the header.
    """
    text, notes = decoded(path.read_bytes(), path.name)
    chosen = re.match(r"sep=(.)\r?\n", text)
    if chosen:
        text = text[chosen.end() :]
    delimiter = chosen[1] if chosen else sniff(text, path.suffix.lower())
    offset = 1 if chosen else 0
    quoting = True
    try:
        header, columns = _columns(text, delimiter, True, path.name, offset)
    except Unreadable:
        if delimiter != "\t" or '"' not in text:
            raise
        header, columns = _columns(text, delimiter, False, path.name, offset)
        quoting = False
    if not quoting:
        notes.append(f"`{path.name}` has quotation marks that do not pair up; they were read as they stand")
    if delimiter == ";":
        columns = [_with_points(column) for column in columns]
    kept = [i for i, name in enumerate(header) if name or any(columns[i])]
    names = [header[i] or f"column {i + 1}" for i in kept]
    unique(names, path.name)
    return pa.table({name: pa.array(columns[i], pa.string()) for name, i in zip(names, kept, strict=True)}), notes


def unique(names: Sequence[str], where: str) -> None:
    """Raises `Unreadable` when two columns have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise Unreadable(f"two columns are called `{twice[0]}`", where=f"`{where}`", fix="rename one of them")


def sniff(text: str, suffix: str = ".csv") -> str:
    r"""The delimiter that splits the header, and the most of the first rows into as many fields as the header.

    >>> sniff("text;label\na, b;x\n"), sniff("text\nHello, world\n") == chr(31)
    (';', True)
    """
    head = text[:262144]
    best: tuple[float, int, int] | None = None
    found = _NOWHERE
    for rank, delimiter in enumerate(("\t", ",", ";", "|") if suffix in (".tsv", ".tab") else DELIMITERS):
        counts = []
        for _, record in _records(head, delimiter, quoting=True):
            counts.append(len(record))
            if len(counts) == 200:
                break
        else:
            counts = counts[:-1] if len(text) > len(head) and len(counts) > 1 else counts
        if not counts or counts[0] < 2:
            continue
        fit = sum(count == counts[0] for count in counts) / len(counts)
        score = (fit, counts[0], -rank)
        if best is None or score > best:
            best, found = score, delimiter
    return found


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _reader(text: str, delimiter: str, quoting: bool) -> Any:
    held = StringIO(text, newline="")
    if quoting:
        return csv.reader(held, delimiter=delimiter)
    return csv.reader(held, delimiter=delimiter, quoting=csv.QUOTE_NONE)


def _records(text: str, delimiter: str, quoting: bool) -> Iterator[tuple[int, list[str]]]:
    """(first line, fields) of each record that is not blank."""
    reader = _reader(text, delimiter, quoting)
    before = 0
    with _long_fields():
        for record in reader:
            if record:
                yield before + 1, record
            before = reader.line_num


def _columns(text: str, delimiter: str, quoting: bool, where: str, offset: int) -> tuple[list[str], list[list[str]]]:
    with _long_fields():
        rows = [record for record in _reader(text, delimiter, quoting) if record]
    if not rows:
        raise Unreadable("the file is empty", where=f"`{where}`", fix="give a file with a header line and rows")
    header = [name.strip() for name in rows.pop(0)]
    width = len(header)
    if {*map(len, rows)} - {width}:
        rows = _mended(text, delimiter, quoting, where, offset)
    last = rows[-1][-1] if rows else ""
    if quoting and "\n" in last and not text.rstrip().endswith('"'):
        line = text.count("\n") - last.count("\n") + 1 + offset
        raise Unreadable(
            "a quotation mark opens a value and none closes it", where=f"`{where}`, near line {line}", fix="close it"
        )
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in header]
    return header, columns


def _mended(text: str, delimiter: str, quoting: bool, where: str, offset: int) -> list[list[str]]:
    """Rows without blank lines and blank fields at the end; raises `Unreadable` for the first that still differs."""
    records = _records(text, delimiter, quoting)
    width = len(next(records)[1])
    rows = []
    for line, record in records:
        if len(record) > width and not any(record[width:]):
            record = record[:width]
        if len(record) == width:
            rows.append(record)
        elif any(cell.strip() for cell in record):
            shown = {"\t": "tab", _NOWHERE: "field"}.get(delimiter, delimiter)
            raise Unreadable(
                f"line {line + offset} has {len(record)} fields, and the header has {width}",
                where=f"`{where}`, line {line + offset}",
                fix=f'put double quotes (") around values that hold the delimiter `{shown}`, or mend the line',
            )
    return rows


def _with_points(column: list[str]) -> list[str]:
    """Numbers with a decimal comma, as files delimited by semicolons have them, with a point."""
    held = [cell for cell in column if cell.strip()]
    if any("," in cell for cell in held[:1000]) and all(_DECIMAL_COMMA.fullmatch(cell) for cell in held):
        return [cell.replace(",", ".") for cell in column]
    return column


def read_json(path: Path) -> tuple[pa.Table, list[str]]:
    """A table from JSON lines, or from one JSON array of objects."""
    text, notes = decoded(path.read_bytes(), path.name)
    rows: list[Any] = []
    start = text.lstrip()[:1]
    if start == "[":
        rows = _parsed(text, path.name, "the file")
    else:
        lines = text.split("\n")
        try:
            whole = json.loads(text) if len(lines) > 1 and lines[0].strip() == "{" else None
        except (ValueError, RecursionError):
            whole = None
        if isinstance(whole, dict):  # one object over several lines: columns, or rows under one name
            lists = {name: value for name, value in whole.items() if isinstance(value, list)}
            if len(lists) == 1 and all(isinstance(row, dict) for row in next(iter(lists.values()))):
                rows = next(iter(lists.values()))
            elif lists and len({len(value) for value in lists.values()}) == 1:
                return pa.table({name: arrow_column(value) for name, value in lists.items()}), notes
            else:
                rows = [whole]
        else:
            rows = [_parsed(line, path.name, f"line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise Unreadable(
                f"row {number} is a {type(row).__name__}, not an object with named values",
                where=f"`{path.name}`, row {number}",
                fix='write each row like {"text": "…", "label": "…"}',
            )
    return table_of_rows(rows), notes


def _parsed(text: str, where: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(
            f"{place} is not JSON: {str(error).splitlines()[0]}",
            where=f"`{where}`, {place}",
            fix="write one JSON object a line, or one array of objects",
        ) from error


def table_of_rows(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """A table from rows with named values; a name that a row lacks is null there."""
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    return pa.table({name: arrow_column([row.get(name) for row in rows]) for name in names})


def arrow_column(values: Sequence[Any]) -> pa.Array:
    """An Arrow array; values of mixed kinds become text."""
    try:
        made = pa.array(values, from_pandas=True)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, ValueError):
        made = pa.array([None if value is None else whole_text(_worded(value)) for value in values], pa.string())
    return made.cast(pa.string()) if pa.types.is_null(made.type) else made


def _worded(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value)


def read_tokens(path: Path) -> tuple[pa.Table, list[str]]:
    """Sentences from a file with one token a line: columns `tokens` and `tags`.

    The token is the first column and the tag the last (CoNLL-U: the second and the fourth); a blank line ends a
    sentence; `-DOCSTART-` lines and comments before a sentence are left out.
    """
    text, notes = decoded(path.read_bytes(), path.name)
    universal = path.suffix.lower() == ".conllu"
    sentences: list[tuple[list[str], list[str]]] = []
    tokens: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*_lines(text), ""], 1):
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or cells[0] == "-DOCSTART-":
            if tokens:
                sentences.append((tokens, tags))
                tokens, tags = [], []
            continue
        if line.startswith("#") and (universal or (not tokens and len(cells) != 2)):
            continue
        if len(cells) < (4 if universal else 2):
            raise Unreadable(
                f"line {number} has no tag: `{line[:60]}`",
                where=f"`{path.name}`, line {number}",
                fix="write one token a line, its tag in the last column, and a blank line between sentences",
            )
        if universal and not cells[0].isdigit():
            continue  # ranges and empty nodes
        tokens.append(cells[1] if universal else cells[0])
        tags.append(cells[3] if universal else cells[-1])
    strings = pa.list_(pa.string())
    table = pa.table(
        {"tokens": pa.array([s[0] for s in sentences], strings), "tags": pa.array([s[1] for s in sentences], strings)}
    )
    return table, notes


def looks_like_tokens(path: Path) -> bool:
    """Whether a text file has at least two columns in every line, as many everywhere, and blank lines between."""
    text, _ = decoded(path.read_bytes()[:65536], path.name)
    lines = _lines(text)[: -1 if len(text) > 60000 else None]
    widths = {len(line.split("\t") if "\t" in line else line.split()) for line in lines if line.strip()}
    return len(widths) == 1 and min(widths) >= 2 and any(not line.strip() for line in lines)


def _lines(text: str) -> list[str]:
    """Lines as files have them; `str.splitlines` also cuts at characters that stand inside texts."""
    return re.split(r"\r\n|\n|\r", text)


def read_lines(path: Path) -> tuple[pa.Table, list[str]]:
    """One text a line, without a header."""
    text, notes = decoded(path.read_bytes(), path.name)
    return pa.table({"text": pa.array([line for line in _lines(text) if line.strip()], pa.string())}), notes
