"""Which rows are sealed as the test, which are trained on, and which must be left out because they link the two."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import Rows, Task, Unfit
from headstart.core.target import Protocol
from headstart.numerics.folds import TEST_FRACTION, draw_order, group_names, held_out, strata_of

from .columns import as_numbers, as_words, listed
from .labels import as_array

HOLDOUT_FROM = 1000  # labelled rows from which a hashed fifth is the test


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Part:
    """Rows before they are split: values of labels, None where blank; groups as the user has them, or None."""

    inputs: pa.Table
    content: tuple[str, ...]
    values: tuple[Any, ...]
    groups: tuple[str, ...] | None = None
    times: np.ndarray[Any, Any] | None = None

    def __len__(self) -> int:
        return len(self.content)

    @property
    def keys(self) -> tuple[str, ...]:
        """What decides test membership: the user's group, else the content."""
        return self.content if self.groups is None else self.groups

    def take(self, rows: Sequence[int]) -> Part:
        return Part(
            inputs=self.inputs.take(pa.array(rows, pa.int64())),
            content=tuple(self.content[r] for r in rows),
            values=tuple(self.values[r] for r in rows),
            groups=None if self.groups is None else tuple(self.groups[r] for r in rows),
            times=None if self.times is None else self.times[list(rows)],
        )


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Divided:
    """Rows after the split. left_out: training rows whose content or group stands in the test."""

    protocol: Protocol
    labelled: Part
    unlabelled: Part
    test: Part
    left_out: int = 0
    notes: tuple[str, ...] = field(default=())


def divide(part: Part, test: Part | None, task: Task, seed: int, labels: int | None) -> Divided:
    """The protocol that follows from the rows: the user's test, the latest rows, a hashed fifth, or none."""
    has = [value is not None for value in part.values]
    labelled, unlabelled = _where(has, True), _where(has, False)
    notes: list[str] = []
    if labels is not None and len(labelled) > labels:
        array = as_array([part.values[r] for r in labelled], task)
        names = _numbered([part.content[r] for r in labelled], {})
        kept = {labelled[i] for i in draw_order(array, names, seed)[:labels]}
        notes.append(f"{labels} labels are used, as budgeted; {len(labelled) - labels} rows count as unlabelled")
        unlabelled = sorted({*unlabelled, *labelled} - kept)
        labelled = sorted(kept)
    rows, rest = part.take(labelled), part.take(unlabelled)
    if test is not None:
        return _user_test(rows, rest, test, notes)
    if rows.times is not None:
        return _latest(rows, rest, notes)
    if len(rows) >= HOLDOUT_FROM:
        done = _hashed(rows, rest, task, seed, notes)
        if done is not None:
            return done
        notes.append("the groups are so few that a hashed test would be empty; outer folds are used")
    return Divided(protocol="outer_cv", labelled=rows, unlabelled=rest, test=rows.take([]), notes=tuple(notes))


def _where(flags: Sequence[bool], wanted: bool) -> list[int]:
    return [row for row, flag in enumerate(flags) if bool(flag) is wanted]


def _numbered(content: Sequence[str], taken: dict[str, int]) -> list[str]:
    """Unique names: the content hash, and a counter where it repeats. taken: counts so far, which change."""
    names = []
    for name in content:
        count = taken[name] = taken.get(name, 0) + 1
        names.append(name if count == 1 else f"{name}-{count}")
    return names


def _user_test(rows: Part, rest: Part, test: Part, notes: list[str]) -> Divided:
    has = [value is not None for value in test.values]
    blank = has.count(False)
    if blank:
        notes.append(f"{blank} test rows have no label and are not scored")
    tested = test.take(_where(has, True)) if blank else test
    if not len(tested):
        raise Unfit("the test has no labelled rows", where="the test split", fix="give a test with rows and labels")
    done = Divided(protocol="user_test", labelled=rows, unlabelled=rest, test=tested, notes=tuple(notes))
    return _unlinked(done)


def _latest(rows: Part, rest: Part, notes: list[str]) -> Divided:
    times = rows.times
    assert times is not None
    ordered = np.sort(times)
    cut = ordered[min(len(ordered) - 1, round(len(ordered) * (1 - TEST_FRACTION)))]  # rows at the cut stay together
    tested = times >= cut
    if tested.all():
        tested = times > cut
    if not tested.any() or tested.all():
        raise Unfit(
            "all rows have the same time, so none are the latest",
            where="--time",
            fix="name another column, or leave --time out",
        )
    flags = tested.tolist()
    done = Divided(protocol="time", labelled=rows.take(_where(flags, False)), unlabelled=rest,
                   test=rows.take(_where(flags, True)), notes=tuple(notes))  # fmt: skip
    return _unlinked(done)


def _hashed(rows: Part, rest: Part, task: Task, seed: int, notes: list[str]) -> Divided | None:
    strata = None if task.type == "regression" else strata_of(as_array(rows.values, task)).tolist()
    tested, small = held_out(rows.keys, strata, seed)
    if not any(tested) or all(tested):
        return None
    if small and task.type == "single_label":
        names = listed(task.classes[s] for s in small)
        notes.append(
            f"all rows of {names} are trained on: the test would leave fewer than 2 groups of them to train on"
        )
    done = Divided(protocol="holdout", labelled=rows.take(_where(tested, False)), unlabelled=rest,
                   test=rows.take(_where(tested, True)), notes=tuple(notes))  # fmt: skip
    return _unlinked(done)


def _unlinked(done: Divided) -> Divided:
    """Without the training rows whose content or group also stands in the test; the test never changes."""
    labelled, left_out = _away_from(done.labelled, done.test)
    unlabelled, also = _away_from(done.unlabelled, done.test)
    notes = done.notes
    if left_out:
        notes = (*notes, f"{left_out} training rows whose content or group also stands in the test are left out")
    if also:
        notes = (*notes, f"{also} unlabelled rows whose content or group also stands in the test are left out")
    return replace(done, labelled=labelled, unlabelled=unlabelled, left_out=left_out + also, notes=notes)


def _away_from(part: Part, test: Part) -> tuple[Part, int]:
    content, groups = set(test.content), set(test.groups or ())
    named = part.groups or part.content
    keep = [r for r in range(len(part)) if part.content[r] not in content and named[r] not in groups]
    return (part, 0) if len(keep) == len(part) else (part.take(keep), len(part) - len(keep))


def as_rows(part: Part, task: Task, *, labelled: bool, taken: dict[str, int]) -> Rows:
    """Rows as the target holds them. taken: counts of contents so far, which change."""
    ids = _numbered(part.content, taken)
    labels = as_array(part.values, task) if labelled else None
    return Rows(tuple(ids), part.content, group_names(part.groups, part.content), part.inputs, labels)


def read_times(column: pa.ChunkedArray, rows: Sequence[int], where: str) -> np.ndarray[Any, Any]:
    """Seconds or numbers that order the rows; `Unfit` for a labelled row without one."""
    numbers = as_numbers(column)
    if numbers is None:
        numbers = np.array([_moment(v) for v in as_words(column).to_pylist()], dtype=np.float64)
    bad = next((r for r in rows if not np.isfinite(numbers[r])), None)
    if bad is not None:
        raise Unfit(
            f"the time of row {bad + 1} is `{str(column[bad].as_py())[:40]}`",
            where=f"{where}, --time",
            fix="write times as 2024-03-01, 2024-03-01T12:30:00, or as numbers",
        )
    return numbers


def _moment(value: str | None) -> float:
    try:
        moment = datetime.datetime.fromisoformat((value or "").strip().replace("/", "-"))
    except ValueError:
        return float("nan")
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
