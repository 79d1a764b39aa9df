"""Whatever people hand in as data, as one Arrow table (or two, where it is split already): files, folders, objects.

Nothing here is chosen: which column means what is for `inspection`. Nothing that can run code is opened.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from headstart.core import Problem, Unfit, Unreadable

from .delimited import (
    arrow_column,
    looks_like_tokens,
    read_delimited,
    read_json,
    read_lines,
    read_tokens,
    unique,
)

Kind = Literal["table", "texts", "images", "tokens"]

TABLES = (".csv", ".tsv", ".tab", ".psv", ".xlsx", ".xlsm", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow",
          ".feather", ".npz", ".npy", ".conll", ".conllu", ".iob", ".iob2", ".bio", ".txt")  # fmt: skip
PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin")
MAX_SHEET_BYTES = 2 * 10**9  # of an unpacked spreadsheet


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Read:
    """Rows as they were found.

    kind: `table`; `texts`, `images`: rows without column names of their own; `tokens`: token and tag lists.
    where: what messages call it. root: the folder that image paths are relative to and may not leave; None for
    objects, whose paths are the caller's own. classes: class names of columns that hold their numbers.
    """

    name: str
    where: str
    table: pa.Table
    test: pa.Table | None = None
    kind: Kind = "table"
    root: Path | None = None
    classes: Mapping[str, tuple[str, ...]] | None = None
    notes: tuple[str, ...] = ()


def read(data: Any) -> Read:
    """Rows from a path, or from an object: DataFrame, Arrow table, `datasets` object, arrays, lists, dictionaries."""
    if isinstance(data, (str, os.PathLike)):
        return read_path(Path(data))
    from .objects import read_object

    return canonical(read_object(data))


def read_path(path: Path) -> Read:
    """Rows from a file, by the ending of its name, or from a folder."""
    path = path.expanduser()
    with _readable(path):
        if path.is_dir():
            from .folders import read_folder

            return canonical(read_folder(path))
        if not path.is_file():
            raise _missing(path)
        return canonical(read_file(path))


def read_rows(path: Path) -> tuple[list[str], Iterator[dict[str, Any]]]:
    """The columns of a file, and its rows as dictionaries with all that they hold, nested values too."""
    path = path.expanduser()
    with _readable(path):
        if not path.is_file():
            raise _missing(path)
        found = read_file(path)
        unique(found.table.column_names, found.where)
        table = found.table
    return table.column_names, (row for batch in table.to_batches() for row in batch.to_pylist())


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What a damaged or forbidden file raises, as a sentence."""
    try:
        yield
    except Problem:
        raise
    except (OSError, pa.ArrowException, UnicodeError, zipfile.BadZipFile, MemoryError) as error:
        raise Unreadable(
            f"`{path}` cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}",
            where=f"`{path}`",
            fix="check the file and its permissions, or save it again",
        ) from error


def _missing(path: Path) -> Unreadable:
    if path.exists():
        return Unreadable(f"`{path}` is neither a file nor a folder", where=f"`{path}`", fix="give a file or a folder")
    near: list[str] = []
    if path.parent.is_dir():
        near = get_close_matches(path.name, sorted(os.listdir(path.parent)), n=2)
    hint = f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else "check the path"
    return Unreadable(f"there is no file or folder `{path}`", where=f"`{path}`", fix=hint)


def read_file(path: Path) -> Read:
    """Rows from one file."""
    suffix = path.suffix.lower()
    plain = Read(name=path.stem, where=path.name, table=pa.table({}), root=path.parent)
    if suffix in (".csv", ".tsv", ".tab", ".psv"):
        table, notes = read_delimited(path)
    elif suffix in (".jsonl", ".ndjson", ".json"):
        table, notes = read_json(path)
    elif suffix in (".xlsx", ".xlsm"):
        table, notes = _read_sheet(path)
    elif suffix == ".parquet":
        table, notes = _read_parquet(path), []
    elif suffix in (".arrow", ".feather"):
        table, notes = _read_arrow(path), []
    elif suffix in (".npz", ".npy"):
        return _read_arrays(path)
    elif suffix in (".conll", ".conllu", ".iob", ".iob2", ".bio") or (suffix == ".txt" and looks_like_tokens(path)):
        table, notes = read_tokens(path)
        return replace(plain, table=table, kind="tokens", notes=tuple(notes))
    elif suffix == ".txt":
        table, notes = read_lines(path)
        return replace(plain, table=table, kind="texts", notes=tuple(notes))
    elif suffix in PICKLES:
        raise Unreadable(
            f"`{path.name}` is a pickle, and opening one can run any code that its maker put in",
            where=f"`{path}`",
            fix="save the rows as CSV, JSONL or parquet",
        )
    else:
        from .images import SUFFIXES

        if suffix in SUFFIXES:
            return replace(plain, table=images_table([str(path.resolve())]), kind="images")
        raise Unreadable(
            f"`{path.name}` ends in `{suffix}`, which is not read" if suffix else f"`{path.name}` has no ending",
            where=f"`{path}`",
            fix=f"save it as one of: {', '.join(t[1:] for t in TABLES)}; or give a folder of images",
        )
    return replace(plain, table=table, notes=tuple(notes))


def images_table(paths: Sequence[str], labels: Sequence[str] | None = None) -> pa.Table:
    """A table with an `image` column of paths, and a `label` column where there are labels."""
    from .images import IMAGE

    columns = {"image": pa.array([{"bytes": None, "path": path} for path in paths], IMAGE)}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.string())
    return pa.table(columns)


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        return file.read()


def _read_arrow(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def _read_sheet(path: Path) -> tuple[pa.Table, list[str]]:
    import openpyxl

    with zipfile.ZipFile(path) as packed:
        size = sum(part.file_size for part in packed.infolist())
    if size > MAX_SHEET_BYTES:
        raise Unreadable(
            f"the spreadsheet unpacks to {size / 1e9:.1f} GB",
            where=f"`{path.name}`",
            fix="save the sheet as CSV or parquet",
        )
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    except (KeyError, ValueError, TypeError, SyntaxError) as error:
        raise Unreadable(
            f"`{path.name}` is not a spreadsheet that can be read: {error}", where=f"`{path}`", fix="save it again"
        ) from error
    try:
        sheets = book.worksheets
        rows = [list(row) for row in sheets[0].iter_rows(values_only=True)] if sheets else []
        names = [sheet.title for sheet in sheets]
    finally:
        book.close()
    rows = [row for row in rows if any(cell not in (None, "") for cell in row)]
    if not rows:
        raise Unreadable("the first sheet is empty", where=f"`{path.name}`", fix="put the table on the first sheet")
    width = max(len(row) for row in rows)
    columns = [[row[i] if i < len(row) else None for row in rows] for i in range(width)]
    columns = [column for column in columns if any(cell not in (None, "") for cell in column)]
    header = [str(column[0]).strip() if column[0] is not None else f"column {i}" for i, column in enumerate(columns, 1)]
    unique(header, path.name)
    others = f"only the sheet `{names[0]}` of `{path.name}` was read, of {len(names)}"
    table = pa.table({name: arrow_column(column[1:]) for name, column in zip(header, columns, strict=True)})
    return table, [others] if len(names) > 1 else []


def _read_arrays(path: Path) -> Read:
    import numpy as np

    from .objects import read_object

    try:
        held = np.load(path, allow_pickle=False)
        arrays = {name: held[name] for name in held.files} if isinstance(held, np.lib.npyio.NpzFile) else {"X": held}
    except (ValueError, EOFError) as error:
        raise Unreadable(
            f"`{path.name}` holds Python objects or is damaged: {str(error).splitlines()[0]}",
            where=f"`{path}`",
            fix="save plain arrays of numbers or text, with the inputs as X and the labels as y",
        ) from error
    lowered = {name.lower(): array for name, array in arrays.items()}
    inputs = next((lowered[n] for n in ("x", "data", "images", "features") if n in lowered), None)
    labels = next((lowered[n] for n in ("y", "target", "labels", "label") if n in lowered), None)
    if inputs is None:
        raise Unfit(
            f"the arrays are called {', '.join(f'`{n}`' for n in arrays)}",
            where=f"`{path.name}`",
            fix="call the inputs X and the labels y",
        )
    found = read_object(inputs if labels is None else (inputs, labels))
    return replace(found, name=path.stem, where=path.name)


def image_column(column: pa.ChunkedArray, root: Path | None, where: str) -> pa.ChunkedArray:
    """The `image` column from bytes, from structs of bytes and path, or from paths.

    Paths are taken relative to the root, and `Unreadable` is raised for one that leaves it.
    """
    from .folders import inside
    from .images import IMAGE

    values = column.to_pylist()
    if pa.types.is_struct(column.type):
        pairs = [(v.get("bytes"), v.get("path")) if v else (None, None) for v in values]
    else:
        binary = pa.types.is_binary(column.type)
        pairs = [(v, None) if binary else (None, v) for v in values]
    made = []
    for row, (data, path) in enumerate(pairs, 1):
        if data is not None:
            made.append({"bytes": data, "path": None})
        elif not path:
            made.append({"bytes": b"", "path": None})
        elif root is None:
            made.append({"bytes": None, "path": os.path.abspath(path)})
        else:
            inner = os.path.join(root, path)
            made.append({"bytes": None, "path": inside(Path(inner), root, f"{where}, row {row}: `{path}`")})
    return pa.chunked_array([pa.array(made, IMAGE)])


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Names of the numbers in class columns, as `datasets` notes them in Arrow and parquet files."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    found = {}
    for name, feature in features.items() if isinstance(features, dict) else ():
        inner = feature[0] if isinstance(feature, list) and feature else feature
        inner = inner.get("feature", inner) if isinstance(inner, dict) else {}
        names = inner.get("names") if isinstance(inner, dict) else None
        if isinstance(names, list) and names:
            found[name] = tuple(str(n) for n in names)
    return found


def canonical(found: Read) -> Read:
    """The same rows with few Arrow types: text, numbers, truth values, lists of those, bytes, image structs."""
    left_out: list[str] = []
    named = {**class_names(found.table.schema), **(found.classes or {})}
    table = _canonical(found.table, found.where, left_out)
    test = None if found.test is None else _canonical(found.test, found.where, left_out)
    dropped = tuple(f"column `{name}` holds nested values and is not used" for name in dict.fromkeys(left_out))
    return replace(found, table=table, test=test, classes=named, notes=found.notes + dropped)


def _canonical(table: pa.Table, where: str, left_out: list[str]) -> pa.Table:
    unique(table.column_names, where)
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        raise Unreadable(
            f"the table is damaged: {str(error).splitlines()[0]}", where=f"`{where}`", fix="save it again"
        ) from error
    columns = {}
    for name in table.column_names:
        column = _plain_column(table[name])
        if column is None:
            left_out.append(name)
        else:
            columns[name] = column
    return pa.table(columns)


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    kind, t = column.type, pa.types
    if t.is_dictionary(kind):
        return _plain_column(column.cast(kind.value_type))
    if t.is_string(kind) or t.is_boolean(kind) or t.is_integer(kind) or t.is_binary(kind):
        return column
    if t.is_floating(kind):
        return column if t.is_float64(kind) or t.is_float32(kind) else column.cast(pa.float32())
    if t.is_large_string(kind) or t.is_string_view(kind) or t.is_null(kind) or t.is_temporal(kind):
        return column.cast(pa.string())
    if t.is_decimal(kind):
        return column.cast(pa.float64())
    if t.is_large_binary(kind) or t.is_fixed_size_binary(kind) or t.is_binary_view(kind):
        return column.cast(pa.binary())
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        inner = kind.value_type
        inner = inner.value_type if t.is_dictionary(inner) else inner
        plain = t.is_integer(inner) or t.is_string(inner) or t.is_large_string(inner) or t.is_null(inner)
        word = pa.string() if not t.is_integer(inner) else pa.int64()
        return column.cast(pa.list_(word)) if plain else None
    if t.is_struct(kind) and {f.name for f in kind} >= {"bytes", "path"}:
        return column
    return None
