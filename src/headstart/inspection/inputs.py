"""The inputs of rows in canonical columns, and the hash of each row's content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.core import Columns, Unfit, Unreadable
from headstart.io.images import decode, in_parallel, name_of
from headstart.io.tables import image_column
from headstart.numerics.hashing import content_pair, content_pixels, content_row, content_text, content_tokens, row_key

from .columns import as_numbers, as_words, listed


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Inputs:
    """Inputs of rows. content: keyed hash of each row, None where an image cannot be read.

    broken: row and reason of each such image. sizes: (rows, 2) width and height, for images alone. empty: rows
    without any text.
    """

    table: pa.Table
    content: tuple[str | None, ...]
    broken: tuple[tuple[int, str], ...] = ()
    sizes: np.ndarray[Any, Any] | None = None
    empty: int = 0


def read_inputs(table: pa.Table, columns: Columns, kind: str, root: Path | None, where: str) -> Inputs:
    """The canonical inputs of a table that has these columns. Raises `Unfit` naming the columns that it lacks."""
    if kind == "tokens":
        return _tokens(table, require(table, columns.text, where)[0])
    if kind == "text":
        return _texts(table, require(table, columns.text, where))
    if kind == "pair":
        return _pairs(table, require(table, columns.pair or (), where))
    if kind == "image":
        return _images(table[require(table, [columns.image or "image"], where)[0]], root, where)
    require(table, [name for name, _ in columns.features], where)
    return _features(table, columns.features, where)


def require(table: pa.Table, names: Sequence[str], where: str) -> list[str]:
    """The names, all of which the table has."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise Unfit(
            f"the table lacks {listed(missing)}; its columns are {listed(table.column_names)}",
            where=f"`{where}`",
            fix="name the columns as in the table that was trained on",
        )
    return list(names)


def _words(table: pa.Table, name: str) -> pa.ChunkedArray:
    column = table[name]
    if pa.types.is_list(column.type) or pa.types.is_binary(column.type) or pa.types.is_struct(column.type):
        raise Unfit(
            f"column `{name}` holds {column.type}, not text", where=f"column `{name}`", fix="name another column"
        )
    return pc.fill_null(as_words(column), "")


def _other(name: str, column: pa.ChunkedArray, wanted: str) -> Unfit:
    return Unfit(
        f"column `{name}` holds {column.type}, not {wanted}", where=f"column `{name}`", fix="name another column"
    )


def _texts(table: pa.Table, names: Sequence[str]) -> Inputs:
    parts = [_words(table, name) for name in names]
    text = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "\n")
    values = text.to_pylist()
    keys: dict[str, str] = {}
    content = tuple(keys.get(v) or keys.setdefault(v, row_key(content_text(v))) for v in values)
    empty = sum(not v or v.isspace() for v in values)
    return Inputs(table=pa.table({"text": text}), content=content, empty=empty)


def _pairs(table: pa.Table, names: Sequence[str]) -> Inputs:
    first, second = (_words(table, name) for name in names)
    values = list(zip(first.to_pylist(), second.to_pylist(), strict=True))
    content = tuple(row_key(content_pair(a, b)) for a, b in values)
    empty = sum(not a.strip() and not b.strip() for a, b in values)
    return Inputs(table=pa.table({"text": first, "text_pair": second}), content=content, empty=empty)


def _tokens(table: pa.Table, name: str) -> Inputs:
    column = table[name]
    if not pa.types.is_list(column.type):
        raise Unfit(
            f"column `{name}` holds {column.type}, not token lists", where=f"column `{name}`", fix="name another"
        )
    values = [[str(t) if t is not None else "" for t in tokens or []] for tokens in column.to_pylist()]
    content = tuple(row_key(content_tokens(tokens)) for tokens in values)
    made = pa.table({"tokens": pa.array(values, pa.list_(pa.string()))})
    return Inputs(table=made, content=content, empty=sum(not tokens for tokens in values))


def _images(column: pa.ChunkedArray, root: Path | None, where: str) -> Inputs:
    held = image_column(column, root, where)
    seen = in_parallel(_look, held.to_pylist())
    broken = tuple((row, str(found)) for row, found in enumerate(seen) if isinstance(found, str))
    sizes = np.array([(0, 0) if isinstance(found, str) else found[1:] for found in seen], dtype=np.int64).reshape(-1, 2)
    content = tuple(None if isinstance(found, str) else found[0] for found in seen)
    return Inputs(table=pa.table({"image": held}), content=content, broken=broken, sizes=sizes)


def _look(image: Mapping[str, Any]) -> tuple[str, int, int] | str:
    try:
        if image["bytes"] == b"":
            raise Unreadable("the cell is blank", where=name_of(image), fix="give an image")
        seen = decode(image)
    except Unreadable as problem:
        return problem.what
    return row_key(content_pixels(*seen.size, seen.tobytes())), *seen.size


def _features(table: pa.Table, features: Sequence[tuple[str, str]], where: str) -> Inputs:
    columns: dict[str, pa.Array] = {}
    for name, kind in features:
        if kind == "number":
            columns[name] = _numbers(table[name], name, where)
        else:
            words = as_words(table[name])
            columns[name] = pc.if_else(pc.equal(pc.utf8_trim_whitespace(words), ""), None, words).combine_chunks()
    made = pa.table(columns)
    names = made.column_names
    rows = zip(*(made[name].to_pylist() for name in names), strict=True)
    content = tuple(row_key(content_row(dict(zip(names, row, strict=True)))) for row in rows)
    return Inputs(table=made, content=content)


def _numbers(column: pa.ChunkedArray, name: str, where: str) -> pa.Array:
    numbers = as_numbers(column)
    if numbers is None:
        for row, value in enumerate(as_words(column).to_pylist(), 1):
            one = pa.chunked_array([pa.array([value], pa.string())])
            if value is not None and as_numbers(one) is None and as_numbers(pa.chunked_array([["0", value]])) is None:
                raise Unfit(
                    f"`{name}` is `{value[:60]}` in row {row}, and a number in the rows that were trained on",
                    where=f"`{where}`, row {row}, column `{name}`",
                    fix="give a number, or leave the cell blank",
                )
        numbers = np.full(len(column), np.nan)
    return pa.array(np.where(np.isfinite(numbers), numbers, np.nan), pa.float64(), from_pandas=True)
