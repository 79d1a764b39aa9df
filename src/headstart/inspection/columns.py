"""Which column is the label, and which are the input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.core import Columns, Modality, Unfit
from headstart.io.images import SUFFIXES
from headstart.io.tables import Read

LABEL_NAMES = ("label", "labels", "target", "class", "intent", "category", "sentiment", "gold", "ner_tags")
WEAK_LABEL_NAMES = ("y", "tag", "tags", "topic", "score", "rating")  # taken where none of the others is there
TEXT_NAMES = ("text", "sentence", "content", "message", "body", "utterance", "review", "tweet", "document", "comment",
              "post", "question", "query", "description", "subject", "title", "headline", "abstract")  # fmt: skip
PAIRS = (("text", "text_pair"), ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("premise", "hypothesis"),
         ("question1", "question2"), ("text_a", "text_b"), ("text1", "text2"), ("sentence_a", "sentence_b"),
         ("question", "sentence"))  # fmt: skip
ID_NAME = re.compile(
    r"(|.*[_\- ])(id|idx|index|uuid|guid|key|nr|no)|unnamed.*|column 1|.*(?-i:[a-z]I[Dd])", re.IGNORECASE
)
DATE = re.compile(r"\s*\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}")
BLANKS = ("", "na", "n/a", "nan", "null", "none", "?", "-", "#n/a", "<na>")  # in a column of numbers
SAMPLE = 2000  # rows that a column is judged by
LONG_WORDS, LONG_CHARACTERS = 6, 40  # means from which a column is text beyond doubt
DISTINCT = 0.3  # distinct values a row, from which long values are text and not classes
UNIQUE = 0.9  # distinct values a row, from which a category says nothing
FEW = 20  # rows or values below which counts of distinct values mean little


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How the table is read. kind: what the input is made of."""

    columns: Columns
    modality: Modality
    kind: str  # "text", "pair", "image", "tokens" or "table"
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def as_numbers(column: pa.ChunkedArray) -> np.ndarray[Any, Any] | None:
    """float64 with NaN for blanks, or None where a value is not a number or all are blank."""
    kind = column.type
    if pa.types.is_string(kind):
        trimmed = pc.utf8_trim_whitespace(column)
        blank = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(BLANKS))
        column = pc.if_else(blank, None, trimmed)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    try:
        numbers = np.asarray(pc.cast(column, pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        return None
    return numbers if np.isfinite(numbers).any() else None


def as_words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Strings, with whole numbers written as such and nulls kept."""
    if pa.types.is_string(column.type):
        return column
    if pa.types.is_boolean(column.type):
        return pc.if_else(column, "True", "False")
    if pa.types.is_floating(column.type):
        numbers = column.to_pylist()
        words = [None if v is None or v != v else str(int(v)) if v.is_integer() else repr(v) for v in numbers]
        return pa.chunked_array([pa.array(words, pa.string())])
    return column.cast(pa.string())


def split_names(given: str | Sequence[str] | None, columns: Sequence[str]) -> tuple[str, ...]:
    """Column names as people give them: a name, names joined by commas, or a list."""
    if given is None:
        return ()
    if isinstance(given, str):
        return (given,) if given in columns else tuple(part.strip() for part in given.split(",") if part.strip())
    return tuple(given)


def listed(names: Iterable[str]) -> str:
    """Names as a message shows them."""
    held = list(names)
    more = f" and {len(held) - 12} more" if len(held) > 12 else ""
    return ", ".join(f"`{name}`" for name in held[:12]) + more


def known(name: str, columns: Sequence[str], flag: str, where: str) -> str:
    """The name, or `Unfit` with the nearest column names."""
    if name in columns:
        return name
    near = get_close_matches(name, columns, n=2, cutoff=0.5) or [c for c in columns if c.lower() == name.lower()]
    hint = f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"name one of: {listed(columns)}"
    raise Unfit(f"`{name}` is not a column; the columns are {listed(columns)}", where=f"{where}, --{flag}", fix=hint)


def find_label(found: Read, named: str | None, taken: Sequence[str]) -> str:
    """The label column: as named, or the one whose name leaves no doubt."""
    columns: list[str] = found.table.column_names
    if named is not None:
        return known(named, columns, "label", found.where)
    if found.kind != "table":
        name = next((n for n in ("label", "tags") if n in columns), None)
        if name is None:
            raise Unfit("the rows have no labels", where=f"`{found.where}`", fix=_how_to_label(found.kind))
        return name
    for names in (LABEL_NAMES, WEAK_LABEL_NAMES):
        fitting = [c for c in columns if c.strip().lower() in names and c not in taken]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise Unfit(
                f"{len(fitting)} columns may be the label: {listed(fitting)}; the columns are {listed(columns)}",
                where=f"`{found.where}`",
                fix=f"name it, such as --label {fitting[0]}",
            )
    raise Unfit(
        f"no column is clearly the label; the columns are {listed(columns)}",
        where=f"`{found.where}`",
        fix=f"name it, such as --label {columns[-1] if columns else 'NAME'}",
    )


def _how_to_label(kind: str) -> str:
    if kind == "images":
        return "put the images into one folder for each class, or give a table with a path and a label column"
    return "give a table with a label column, or a pair (inputs, labels)"


def find_layout(
    found: Read,
    *,
    label: str | None = None,
    text: str | Sequence[str] | None = None,
    pair: str | Sequence[str] | None = None,
    image: str | None = None,
    group: str | None = None,
    time: str | None = None,
) -> Layout:
    """The columns of a target, from what the user named and from the values of the rest."""
    where = found.where
    names = found.table.column_names
    named_text, named_pair = _named(found, text, pair, image)
    held = {"image": image, "group": group, "time": time}
    for flag, name in held.items():
        if name is not None:
            known(name, names, flag, where)
    taken = [*named_text, *named_pair, *(name for name in held.values() if name)]
    chosen = find_label(found, label, taken)
    if chosen in taken:
        raise Unfit(f"`{chosen}` is named as label and as input", where=f"{where}, --label", fix="name another column")
    free = [n for n in names if n not in (chosen, group, time)]
    kind, columns, notes = _inputs(found, free, named_text, named_pair, image)
    used = {*columns.text, *(columns.pair or ()), columns.image, *(name for name, _ in columns.features)}
    unused = tuple(n for n in free if n not in used)
    modality: Modality = "image" if kind == "image" else "table" if kind == "table" else "text"
    shown = Columns(label=chosen, text=columns.text, pair=columns.pair, image=columns.image, features=columns.features,
                    group=group, time=time)  # fmt: skip
    return Layout(columns=shown, modality=modality, kind=kind, unused=unused, notes=tuple(notes))


def find_inputs(
    found: Read,
    *,
    text: str | Sequence[str] | None = None,
    pair: str | Sequence[str] | None = None,
    image: str | None = None,
) -> Layout:
    """The input columns of rows that need no label; a column that has the name of one is not among them."""
    named_text, named_pair = _named(found, text, pair, image)
    if image is not None:
        known(image, found.table.column_names, "image", found.where)
    free = [n for n in found.table.column_names if n.strip().lower() not in LABEL_NAMES]
    kind, columns, notes = _inputs(found, free, named_text, named_pair, image)
    modality: Modality = "image" if kind == "image" else "table" if kind == "table" else "text"
    return Layout(columns=columns, modality=modality, kind=kind, notes=tuple(notes))


def _named(
    found: Read, text: str | Sequence[str] | None, pair: str | Sequence[str] | None, image: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The text columns and the pair that the user named; at most one of them and an image column."""
    names, where = found.table.column_names, found.where
    named_text = tuple(known(n, names, "text", where) for n in split_names(text, names))
    named_pair = tuple(known(n, names, "pair", where) for n in split_names(pair, names))
    if named_pair and len(named_pair) != 2:
        raise Unfit(f"a pair has two columns, and {len(named_pair)} are named", where="--pair", fix="use --pair a,b")
    if sum(map(bool, (named_text, named_pair, image))) > 1:
        raise Unfit("more than one input is named", where=where, fix="name one of --text, --pair and --image")
    return named_text, named_pair


def _inputs(
    found: Read, free: list[str], text: tuple[str, ...], pair: tuple[str, ...], image: str | None
) -> tuple[str, Columns, list[str]]:
    table = found.table
    lists = [n for n in free if pa.types.is_list(table[n].type)]
    if text:
        if len(text) == 1 and text[0] in lists:
            return "tokens", Columns(text=text), []
        return "text", Columns(text=text), []
    if pair:
        return "pair", Columns(pair=(pair[0], pair[1])), []
    if image:
        return "image", Columns(image=image), []
    tokens = [n for n in lists if pa.types.is_string(table[n].type.value_type)]
    if len(tokens) == 1 or "tokens" in tokens:
        return "tokens", Columns(text=("tokens" if "tokens" in tokens else tokens[0],)), []
    pictures = [n for n in free if _holds_images(table[n])]
    if len(pictures) == 1:
        return "image", Columns(image=pictures[0]), []
    if pictures:
        raise Unfit(
            f"{len(pictures)} columns hold images: {listed(pictures)}",
            where=f"`{found.where}`",
            fix="name one: --image",
        )
    lowered = {n.strip().lower(): n for n in free if pa.types.is_string(table[n].type)}
    for first, second in PAIRS:
        if first in lowered and second in lowered:
            return "pair", Columns(pair=(lowered[first], lowered[second])), []
    if "text" in lowered:
        return "text", Columns(text=(lowered["text"],)), []
    return _text_or_table(found, free)


def _holds_images(column: pa.ChunkedArray) -> bool:
    if pa.types.is_binary(column.type) or pa.types.is_struct(column.type):
        return True
    if not pa.types.is_string(column.type):
        return False
    values = [v for v in column.slice(0, SAMPLE).to_pylist() if v and v.strip()]
    fitting = sum(v.lower().endswith(SUFFIXES) and len(v) < 1024 for v in values)
    return bool(values) and fitting >= 0.9 * len(values)


def _text_or_table(found: Read, free: list[str]) -> tuple[str, Columns, list[str]]:
    table = found.table
    notes: list[str] = []
    numbers = {n: v for n in free if (v := as_numbers(table[n])) is not None}
    strings = [n for n in free if n not in numbers and pa.types.is_string(table[n].type)]
    how = {n: _wordiness(n, table[n]) for n in strings}
    useful = [n for n, v in numbers.items() if not _names_rows(n, v.tolist())]
    if "long" in how.values():
        text = tuple(n for n in strings if how[n] in ("long", "short"))
        return "text", Columns(text=text), notes
    if "short" in how.values() and not useful:
        return "text", Columns(text=tuple(n for n in strings if how[n] == "short")), notes
    if not useful and len(strings) == 1 and how[strings[0]] in ("word", "class"):
        values = table[strings[0]].to_pylist()
        if how[strings[0]] == "word" or len(set(values)) > FEW:
            return "text", Columns(text=(strings[0],)), notes
    features: list[tuple[str, Any]] = []
    for name in free:
        if name in numbers:
            if _names_rows(name, numbers[name].tolist()):
                notes.append(f"column `{name}` has another value in each row and the name of an identifier: not used")
            else:
                features.append((name, "number"))
        elif how.get(name) == "class":
            features.append((name, "category"))
        elif name in how and how[name] != "blank":
            notes.append(f"column `{name}` has another value in almost each row: not used as a category")
    if not features:
        raise Unfit(
            f"no column can be the input; besides the label there are {listed(free) or 'none'}",
            where=f"`{found.where}`",
            fix="name it with --text, --pair or --image",
        )
    return "table", Columns(features=tuple(features)), notes


def _names_rows(name: str, values: Sequence[Any]) -> bool:
    return bool(ID_NAME.fullmatch(name.strip())) and len(values) >= FEW and len(set(values)) == len(values)


def _wordiness(name: str, column: pa.ChunkedArray) -> str:
    """What strings are: `long` texts, `short` ones, a `word` of its own in each row, a `class`, or `blank`."""
    values = [v for v in column.slice(0, SAMPLE).to_pylist() if v and v.strip()]
    if not values:
        return "blank"
    distinct = len(set(values)) / len(values)
    words = sum(len(v.split()) for v in values) / len(values)
    characters = sum(len(v) for v in values) / len(values)
    spoken = words >= 2 or sum(not v.isascii() for v in values) >= 0.5 * len(values)
    dates = sum(bool(DATE.match(v)) for v in values) >= 0.9 * len(values)
    if distinct >= DISTINCT and spoken and not dates:
        if words >= LONG_WORDS or characters >= LONG_CHARACTERS or name.strip().lower() in TEXT_NAMES:
            return "long"
        if distinct >= 0.5:
            return "short"
    return "word" if distinct >= UNIQUE and len(values) >= FEW else "class"
