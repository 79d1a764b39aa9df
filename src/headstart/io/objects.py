"""Rows from objects in memory: DataFrames, Arrow tables, `datasets` objects, arrays, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import Unfit

from .delimited import arrow_column, table_of_rows
from .folders import SPLITS
from .images import IMAGE, stored
from .tables import Read, class_names

WHERE = "the data given"


def read_object(data: Any) -> Read:
    """Rows from one object; paths in it are the caller's own and may lead anywhere."""
    if isinstance(data, tuple) and len(data) == 2 and not any(isinstance(part, str) for part in data):
        return _labelled(*data)
    if isinstance(data, Mapping):
        return _mapping(data)
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    if isinstance(data, pa.Table):
        return _of(data)
    kind = type(data)
    family = kind.__module__.split(".")[0]
    if family == "datasets":
        return _dataset(data)
    if family == "pandas" and hasattr(data, "columns"):
        return _of(pa.table({str(name): _frame_column(data, i) for i, name in enumerate(data.columns)}))
    if hasattr(data, "to_arrow") and hasattr(data, "columns"):
        return _of(data.to_arrow())
    if isinstance(data, np.ndarray):
        return _array(data)
    if family in ("pandas", "polars") and hasattr(data, "to_list"):  # a Series
        data = data.to_list()
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _sequence(list(data))
    if hasattr(data, "convert") and hasattr(data, "size"):  # one Pillow image
        return _sequence([data])
    raise Unfit(
        f"a {kind.__name__} is not read",
        where=WHERE,
        fix="give a path, a DataFrame, a datasets object, an Arrow table, a list of texts, or arrays (X, y)",
    )


def _of(table: pa.Table) -> Read:
    return Read(name="data", where=WHERE, table=table, classes=class_names(table.schema))


def _frame_column(frame: Any, at: int) -> pa.Array:
    column = frame.iloc[:, at]
    return arrow_column(column.tolist()) if column.dtype == object else pa.array(column, from_pandas=True)


def _dataset(data: Any) -> Read:
    if isinstance(data, Mapping):
        return _mapping(data)
    if not hasattr(data, "with_format") or not hasattr(data, "__len__"):
        raise Unfit(f"a {type(data).__name__} has no fixed rows", where=WHERE, fix="load it without streaming=True")
    table = data.with_format("arrow")[:]
    found = {}
    for name, feature in data.features.items():
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names:
            found[name] = tuple(str(n) for n in names)
    return replace(_of(table), classes=found)


def _mapping(data: Mapping[Any, Any]) -> Read:
    names = {str(name).lower(): name for name in data}
    parts = {SPLITS[name]: data[key] for name, key in names.items() if name in SPLITS}
    if "train" in parts and all(not isinstance(p, (str, int, float)) for p in parts.values()):
        return _split(parts)
    if {"data", "target"} <= set(names) and np.ndim(data[names["data"]]) >= 2:  # as scikit-learn's loaders give it
        titles = data.get("feature_names")
        found = _labelled(data[names["data"]], data[names["target"]])
        if titles is not None and len(titles) == len(found.table.column_names) - 1:
            found = replace(found, table=found.table.rename_columns([*map(str, titles), "label"]))
        return found
    lengths = {str(name): len(value) for name, value in data.items() if hasattr(value, "__len__")}
    if len(lengths) != len(data) or len(set(lengths.values())) > 1:
        raise Unfit(
            f"the columns have different lengths: {', '.join(f'`{n}` {c}' for n, c in lengths.items())}",
            where=WHERE,
            fix="give columns of one length",
        )
    return _of(pa.table({str(name): _column(value) for name, value in data.items()}))


def _split(parts: Mapping[str, Any]) -> Read:
    read = {side: read_object(part) for side, part in parts.items()}
    first = read["train"]
    tables = [read[side].table for side in ("train", "valid") if side in read]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise Unfit(
            f"the splits have different columns: {str(error).splitlines()[0]}", where=WHERE, fix="give the same columns"
        ) from error
    notes = first.notes
    if "valid" in read:
        count = read["valid"].table.num_rows
        notes = (*notes, f"{count} rows for validation joined the training rows; folds are made here")
    return replace(first, table=table, test=read["test"].table if "test" in read else None, notes=notes)


def _column(values: Any) -> pa.Array:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biuf":
        return pa.array(values)
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if any(_is_image(value) for value in values[:3]):
        return pa.array([stored(value) for value in values], IMAGE)
    return arrow_column(values)


def _is_image(value: Any) -> bool:
    return (hasattr(value, "convert") and hasattr(value, "size")) or (isinstance(value, np.ndarray) and value.ndim >= 2)


def _labelled(inputs: Any, labels: Any) -> Read:
    found = read_object(inputs)
    column = labels
    if isinstance(labels, np.ndarray) and labels.ndim == 2:  # an indicator matrix of several labels
        column = [np.flatnonzero(row).tolist() for row in labels]
    if len(column) != found.table.num_rows:
        raise Unfit(
            f"there are {found.table.num_rows} inputs and {len(column)} labels",
            where=WHERE,
            fix="give one label for each input",
        )
    if "label" in found.table.column_names:
        raise Unfit("the inputs have a column `label` already", where=WHERE, fix="give the table alone")
    return replace(found, table=found.table.append_column("label", _column(column)))


def _array(data: np.ndarray[Any, Any]) -> Read:
    if data.dtype == object or data.dtype.kind in "US":
        return _sequence(data.tolist())
    if data.ndim == 2:
        return _of(pa.table({f"x{i}": pa.array(np.ascontiguousarray(data[:, i])) for i in range(data.shape[1])}))
    if data.ndim == 3 or (data.ndim == 4 and data.shape[3] in (1, 3, 4)):
        return _images(list(data))
    if data.ndim == 4 and data.shape[1] in (1, 3, 4):
        return _images(list(np.moveaxis(data, 1, 3)))
    raise Unfit(
        f"an array of shape {data.shape} is neither a table nor images",
        where=WHERE,
        fix="give (rows, columns), (rows, height, width) or (rows, height, width, 3)",
    )


def _images(values: Sequence[Any]) -> Read:
    return Read(
        name="data", where=WHERE, table=pa.table({"image": pa.array([stored(v) for v in values], IMAGE)}), kind="images"
    )


def _sequence(values: list[Any]) -> Read:
    if values and all(isinstance(value, Mapping) for value in values):
        return _of(table_of_rows([{str(k): v for k, v in value.items()} for value in values]))
    if values and any(_is_image(value) or isinstance(value, bytes) for value in values):
        return _images(values)
    if values and all(isinstance(value, (list, tuple)) and len(value) == len(values[0]) for value in values):
        if all(isinstance(cell, str) for value in values for cell in value) and len(values[0]) == 2:
            first, second = (arrow_column([value[i] for value in values]) for i in range(2))
            return Read(name="data", where=WHERE, table=pa.table({"text": first, "text_pair": second}), kind="texts")
        if all(isinstance(cell, (int, float)) for value in values for cell in value):
            return _array(np.array(values, dtype=np.float64))
    if all(isinstance(value, str) or value is None for value in values):
        return Read(name="data", where=WHERE, table=pa.table({"text": arrow_column(values)}), kind="texts")
    lists = values and all(isinstance(value, (list, tuple)) for value in values)
    if lists and all(isinstance(cell, str) for value in values for cell in value):
        table = pa.table({"tokens": pa.array([list(value) for value in values], pa.list_(pa.string()))})
        return Read(name="data", where=WHERE, table=table, kind="tokens")
    other = next((type(value).__name__ for value in values if not isinstance(value, str)), "nothing")
    raise Unfit(
        f"a list that holds {other} is not read", where=WHERE, fix="give texts, images, or rows with named values"
    )
