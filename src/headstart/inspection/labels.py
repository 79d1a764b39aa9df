"""What kind of task a label column sets, and the labels of each row."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import METRICS, TASK_TYPES, Task, TaskType, Unfit

from .columns import as_numbers, as_words, listed

BLANK_LABELS = ("", "nan", "<na>", "#n/a", "null")  # other words, such as none or na, may be classes
SEPARATORS = ("|", ";", ",")
CODES = 20  # whole numbers with at most so many values are classes
ROWS_PER_CODE = 4  # rows a value, from which more values than that may still be classes
FRACTIONS = 6  # values, some with a fraction, from which numbers are amounts
JOINED = 0.05  # rows that hold a separator, from which labels may be joined by it
_WHOLE = re.compile(r"(-?\d+)\.0+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How labels are read: the task type, and what joins several labels in one cell (None for lists)."""

    type: TaskType
    separator: str | None = None
    note: str | None = None


def how_to_read(
    column: pa.ChunkedArray, names: Sequence[str] | None, tokens: bool, task: str | None, metric: str | None, where: str
) -> Reading:
    """The task type of a label column, from its values, unless it is given; the metric can decide for numbers."""
    if task is not None:
        wanted = task.lower().replace("-", "_").replace(" ", "_")
        if wanted not in TASK_TYPES:
            raise Unfit(f"no task type is called `{task}`", where="--task", fix=f"use one of: {', '.join(TASK_TYPES)}")
        task = wanted
    guess = _guess(column, names, tokens, task, metric)
    if task is None or task == guess.type:
        return guess
    is_list = pa.types.is_list(column.type)
    if task == "single_label" and not is_list:
        return Reading(type="single_label")
    if task == "regression" and as_numbers(column) is not None and not is_list:
        return Reading(type="regression")
    if task == "multi_label" and not tokens:
        return Reading(type="multi_label", separator=guess.separator or (None if is_list else _most_used(column)))
    raise Unfit(
        f"the labels look like a {guess.type.replace('_', '-')} task, and cannot be read as {task.replace('_', '-')}",
        where=f"{where}, --task",
        fix="name another label column with --label, or leave the task out",
    )


def _most_used(column: pa.ChunkedArray) -> str:
    values = [str(v) for v in column.to_pylist() if v is not None]
    return max(SEPARATORS, key=lambda s: sum(s in value for value in values))


def _guess(
    column: pa.ChunkedArray, names: Sequence[str] | None, tokens: bool, task: str | None, metric: str | None
) -> Reading:
    if pa.types.is_list(column.type):
        return Reading(type="tagging" if tokens and task != "multi_label" else "multi_label")
    if names:
        return Reading(type="single_label")
    numbers = as_numbers(column)
    if numbers is not None and not pa.types.is_boolean(column.type):
        return _numeric(numbers, metric)
    if not pa.types.is_string(column.type):
        return Reading(type="single_label")
    values = [v.strip() for v in column.to_pylist() if v is not None and v.strip()]
    if values and all(v.startswith("[") and v.endswith("]") for v in values):
        return Reading(type="multi_label", separator="[")
    separator = _joined_by(values)
    if separator:
        note = f"labels are read as several, joined by `{separator}`; name the task (single-label) if they are one each"
        return Reading(type="multi_label", separator=separator, note=note)
    return Reading(type="single_label")


def _numeric(numbers: np.ndarray[Any, Any], metric: str | None) -> Reading:
    wanted = METRICS[metric].tasks if metric in METRICS else ()
    if "regression" in wanted:
        return Reading(type="regression")
    held = numbers[np.isfinite(numbers)]
    values = np.unique(held)
    whole = bool((values == np.round(values)).all())
    dense = whole and values[0] in (0, 1) and len(values) >= 0.9 * (values[-1] - values[0] + 1)
    amounts = len(values) >= FRACTIONS if not whole else len(values) > CODES and not (
        dense and len(held) >= ROWS_PER_CODE * len(values)
    )  # fmt: skip
    if amounts and "single_label" not in wanted:
        return Reading(type="regression")
    note = None
    if len(values) > 2 and whole and not dense:
        note = f"the {len(values)} whole numbers in the label column are read as classes; name the task (regression)"
        note += " if they are amounts"
    return Reading(type="single_label", note=note)


def _joined_by(values: Sequence[str]) -> str | None:
    """What joins labels: splitting leaves fewer labels than values, and most parts stand in several values."""
    counts = Counter(values)
    for separator in SEPARATORS:
        with_it = sum(n for value, n in counts.items() if separator in value)
        if with_it < JOINED * len(values) or with_it == 0:
            continue
        parts: Counter[str] = Counter()
        for value in counts:
            parts.update({part.strip() for part in value.split(separator)} - {""})
        several = sum(n > 1 for n in parts.values())
        if len(parts) < len(counts) and several >= 0.5 * len(parts):
            return separator
    return None


def read_labels(
    column: pa.ChunkedArray, how: Reading, names: Sequence[str] | None, where: str
) -> tuple[list[Any], list[str]]:
    """The label of each row, None where it is blank, and notes.

    A string for single-label, a float for regression, a tuple of strings for multi-label, a list for tagging.
    """
    if how.type == "regression":
        return _amounts(column, where)
    values = column.to_pylist() if pa.types.is_list(column.type) else as_words(column).to_pylist()
    if how.type == "tagging":
        return [None if v is None or not v else [_named(tag, names) or "O" for tag in v] for v in values], []
    if how.type == "multi_label":
        split = [_several(v, how.separator) for v in values]
        return [None if v is None else tuple(sorted({_named(x, names) or "" for x in v} - {""})) for v in split], []
    read = {v: _named(v, names) for v in set(values)}
    found = [read[v] for v in values]
    words = Counter(v.strip() for v, label in zip(values, found, strict=True) if v and v.strip() and label is None)
    notes = []
    if words and not names:
        notes.append(f"{sum(words.values())} labels are {listed(words)} and were read as blank")
    return found, notes


def _named(value: Any, names: Sequence[str] | None) -> str | None:
    if value is None:
        return None
    if names is not None and re.fullmatch(r"-?\d+", str(value)):
        number = int(value)
        return names[number] if 0 <= number < len(names) else None  # `datasets` writes -1 where there is no label
    word = str(value)
    if word.strip().lower() in BLANK_LABELS:
        return None
    whole = _WHOLE.fullmatch(word.strip())
    return whole[1] if whole else word


def _several(value: Any, separator: str | None) -> Sequence[Any] | None:
    if value is None:
        return None
    if isinstance(value, list):
        return value
    if not value.strip():
        return None
    if separator == "[":
        return _parsed(value)
    return [part.strip() for part in value.split(separator)] if separator else [value]


def _parsed(value: str) -> list[Any]:
    for parse in (json.loads, ast.literal_eval):
        try:
            made = parse(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(made, list):
            return [str(part) for part in made]
    return [part.strip().strip("'\"") for part in value.strip()[1:-1].split(",") if part.strip()]


def _amounts(column: pa.ChunkedArray, where: str) -> tuple[list[Any], list[str]]:
    numbers = as_numbers(column)
    if numbers is None:
        bad = _first_word(column)
        if bad is None:
            return [None] * len(column), []
        raise Unfit(
            f"the label of row {bad[0]} is `{bad[1]}`, and the labels are numbers",
            where=where,
            fix="mend it or leave it blank, or name the task (single-label) if labels are classes",
        )
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise Unfit(f"the label of row {infinite[0] + 1} is infinite", where=where, fix="mend it, or leave it blank")
    return [None if v != v else float(v) for v in numbers], []


def lenient_amounts(column: pa.ChunkedArray) -> list[float | None]:
    """Numbers of new rows; what is not one is None, as a class that the task does not know would be."""
    words = as_words(column).to_pylist()
    known: dict[str | None, float | None] = {}
    for word in set(words):
        number = as_numbers(pa.chunked_array([pa.array([word], pa.string())]))
        known[word] = None if number is None else float(number[0])
    return [known[word] for word in words]


def _first_word(column: pa.ChunkedArray) -> tuple[int, str] | None:
    for row, value in enumerate(column.to_pylist(), 1):
        one = pa.chunked_array([pa.array([value])])
        if value is not None and str(value).strip() and as_numbers(one) is None:
            return row, str(value)[:60]
    return None


def classes_of(values: Sequence[Any], task_type: TaskType) -> tuple[str, ...]:
    """Names of the classes in sorted order; empty for regression."""
    if task_type == "regression":
        return ()
    if task_type == "single_label":
        return tuple(sorted({v for v in values if v is not None}))
    return tuple(sorted({name for v in values if v is not None for name in v}))


def as_array(values: Sequence[Any], task: Task) -> np.ndarray[Any, Any]:
    """Labels as in `Rows.labels`. Unknown names and blanks: -1 for single-label, NaN, no label, or as they are."""
    if task.type == "regression":
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    if task.type == "tagging":
        made = np.empty(len(values), dtype=object)
        for row, tags in enumerate(values):
            made[row] = list(tags or ())
        return made
    number = {name: i for i, name in enumerate(task.classes)}
    if task.type == "single_label":
        return np.array([number.get(v, -1) for v in values], dtype=np.int64)
    several = np.zeros((len(values), len(task.classes)), dtype=np.int8)
    for row, names in enumerate(values):
        for name in names or ():
            if name in number:
                several[row, number[name]] = 1
    return several
