"""The `columns` and `trees` steps: feature columns as numbers, and boosted trees on them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.core import Raw, Unfit

from .artifacts import Array, Step
from .steps import Matrix


def fit_columns(columns: pa.Table, *, filled: bool, most_levels: int = 100) -> Step:
    """How each column becomes numbers.

    Numbers: filled with the median, centred and scaled, and beside them a column that says where one was missing; or,
    without `filled`, as they are, with NaN for what is missing. Categories: one column for each of the most frequent
    levels; any other level, and a missing one, is all zeros.

    >>> step = fit_columns(pa.table({"n": [1.0, 3.0], "c": ["a", "b"]}), filled=True)
    >>> [(c["name"], c.get("levels")) for c in step.settings["columns"]]
    [('n', None), ('c', ['a', 'b'])]
    """
    described: list[dict[str, Any]] = []
    middle, scale = [], []
    for name in columns.column_names:
        column = columns.column(name)
        if not is_number(column.type):
            described.append({"name": name, "levels": levels(column, most_levels)})
            continue
        numbers = as_numbers(column, name)
        known = numbers[~np.isnan(numbers)]
        described.append({"name": name, "marked": bool(filled and len(known) < len(numbers))})
        middle.append(float(np.median(known)) if len(known) else 0.0)
        scale.append((float(known.std()) if len(known) else 0.0) or 1.0)
    arrays = {"middle": np.array(middle), "scale": np.array(scale)}
    return Step(kind="columns", settings={"filled": filled, "columns": described}, arrays=arrays)


def run_columns(step: Step, raw: Raw) -> Matrix:
    table, parts, at = raw.columns, [np.zeros((len(raw), 0))], 0
    for column in step.settings["columns"]:
        name = column["name"]
        if name not in table.column_names:
            raise Unfit(
                f"the column `{name}` is missing",
                where=f"new rows with the columns {', '.join(f'`{c}`' for c in table.column_names[:20])}",
                fix=f"add `{name}`; leave its cells empty where the value is not known",
            )
        if "levels" in column:
            texts = table.column(name).cast(pa.string())
            place = pc.index_in(texts, pa.array(column["levels"], pa.string()))
            found = np.asarray(pc.fill_null(place, -1).to_numpy(), dtype=np.int64)
            parts.append((found[:, None] == np.arange(len(column["levels"]))).astype(np.float64))
            continue
        numbers = as_numbers(table.column(name), name)
        missing = np.isnan(numbers)
        if step.settings["filled"]:
            middle, scale = step.arrays["middle"][at], step.arrays["scale"][at]
            numbers = (np.where(missing, middle, numbers) - middle) / scale
        parts.append(numbers[:, None])
        if column["marked"]:
            parts.append(missing[:, None].astype(np.float64))
        at += 1
    return np.concatenate(parts, axis=1)


def trees(booster: lightgbm.Booster) -> Step:
    """LightGBM's own text of the model."""
    return Step(kind="trees", texts={"model": booster.model_to_string()})


def run_trees(step: Step, x: Matrix) -> Matrix:
    rows = np.asarray(x, dtype=np.float64)
    booster = _booster(step.texts["model"])
    if not len(rows):
        return np.zeros((0, max(booster.num_model_per_iteration(), 1)))
    out = np.asarray(booster.predict(rows, num_threads=1), dtype=np.float64)
    if out.ndim == 2:
        return out
    return np.stack([1 - out, out], axis=1) if "objective=binary" in step.texts["model"] else out[:, None]


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def as_numbers(column: pa.ChunkedArray, name: str) -> Array:
    """float64, NaN where a cell is missing or infinite."""
    try:
        numbers = np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowInvalid as e:
        raise Unfit(
            f"the column `{name}` held numbers, and now has {str(e).splitlines()[0]!r}",
            where=f"column `{name}` of the new rows",
            fix="write plain numbers, and leave a cell empty where the value is not known",
        ) from e
    return np.where(np.isfinite(numbers), numbers, np.nan)


def levels(column: pa.ChunkedArray, most: int) -> list[str]:
    """The most frequent values; equal counts in alphabetical order."""
    counts: dict[str, int] = {}
    for value in column.cast(pa.string()).to_pylist():
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    return sorted(counts, key=lambda v: (-counts[v], v))[:most]


@lru_cache(maxsize=8)
def _booster(model: str) -> lightgbm.Booster:
    return lightgbm.Booster(model_str=model)
