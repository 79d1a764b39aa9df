"""From data as people have it to a `Target`: columns, task, hashes, splits, folds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import Columns, Folds, Metric, Rows, Seal, Target, Task, Unfit, Unreadable, metric_for
from headstart.core.target import Protocol
from headstart.io.tables import Read, read
from headstart.numerics.folds import FOLDS, folds_for, outer_folds
from headstart.numerics.hashing import row_key

from .columns import Layout, as_words, find_inputs, find_layout, listed
from .findings import leaks_of, variants_of
from .inputs import Inputs, read_inputs, require
from .labels import Reading, as_array, classes_of, how_to_read, lenient_amounts, read_labels
from .splits import Divided, Part, as_rows, divide, read_times

SHOWN = 20  # broken images named in the facts


def target_from(
    data: Any,
    *,
    label: str | None,
    text: str | Sequence[str] | None,
    pair: str | Sequence[str] | None,
    image: str | None,
    group: str | None,
    time: str | None,
    test: Any,
    metric: str | None,
    task: str | None,
    seed: int,
    name: str | None,
    labels: int | None,
) -> Target:
    """A target, and all that was inferred on the way, in its notes and facts."""
    if labels is not None and labels < 1:
        raise Unfit(f"labels is {labels}", where="--labels", fix="give the most labelled rows to use, 1 or more")
    found = read(data)
    if not found.table.num_rows:
        raise Unfit("there are no rows", where=f"`{found.where}`", fix="give a table with a header and rows")
    layout = find_layout(found, label=label, text=text, pair=pair, image=image, group=group, time=time)
    notes = [*found.notes, *layout.notes]
    tested = _test_of(found, test, notes)
    column = found.table[layout.columns.label]
    names = (found.classes or {}).get(str(layout.columns.label))
    wanted = metric.lower().replace("-", "_").replace(" ", "_") if metric else None
    how = how_to_read(column, names, layout.kind == "tokens", task, wanted, found.where)
    measured = metric_for(how.type, metric)
    notes += [how.note] if how.note else []
    facts: dict[str, Any] = {"where": found.where, "unused_columns": list(layout.unused)}
    part = _part(found, layout, how, names, notes, facts, "train")
    test_part = None if tested is None else _part(tested, layout, how, names, notes, facts, "test")
    every = [*part.values, *(test_part.values if test_part else ())]
    shape = Task(type=how.type, classes=classes_of(every, how.type), pair=layout.kind == "pair")
    divided = divide(part, test_part, shape, seed, labels)
    _check(divided, shape, found.where, str(layout.columns.label))
    notes += divided.notes
    if layout.unused:
        notes.append(f"columns that are not used: {listed(layout.unused)}")
    return _assembled(divided, shape, layout, measured, seed, name or found.name, notes, facts)


def _test_of(found: Read, test: Any, notes: list[str]) -> Read | None:
    if test is not None:
        if found.test is not None:
            notes.append(f"the test part of `{found.where}` is not used: another test was given")
        tested = read(test)
        tested = replace(tested, where=f"{tested.where} (test)")
    elif found.test is not None:
        tested = replace(found, table=found.test, test=None, where=f"{found.where} (test)", notes=())
    else:
        return None
    notes += tested.notes
    if not tested.table.num_rows:
        raise Unfit("the test has no rows", where=f"`{tested.where}`", fix="give a test with rows, or none")
    return tested


def _part(
    found: Read,
    layout: Layout,
    how: Reading,
    names: Sequence[str] | None,
    notes: list[str],
    facts: dict[str, Any],
    side: str,
) -> Part:
    columns, where, table = layout.columns, found.where, found.table
    if not table.num_rows:
        raise Unfit("there are no rows to train on", where=f"`{where}`", fix="give a table with rows")
    require(table, [n for n in (columns.label, columns.group) if n], where)
    held = read_inputs(table, columns, layout.kind, found.root, where)
    values, said = read_labels(table[columns.label], how, names, where)
    notes += said
    if how.type == "tagging":
        _check_tags(held.table, values, where)
    keep = list(range(table.num_rows))
    if held.broken:
        keep = _whole(held, where, notes, facts, side)
    if held.empty:
        notes.append(f"{held.empty} rows of `{where}` have no text; they are kept")
    if held.sizes is not None:
        facts[f"{side}_sizes"] = _quantiles_of_sizes(held.sizes[keep])
    content = [held.content[r] or "" for r in keep]
    groups = None
    if columns.group:
        words = as_words(table[columns.group]).to_pylist()
        named = [words[r] for r in keep]
        groups = tuple(row_key(f"group {w}") if w and w.strip() else key for w, key in zip(named, content, strict=True))
    chosen = [values[r] for r in keep]
    times = None
    if columns.time and side == "train":
        require(table, [columns.time], where)
        times = read_times(table[columns.time], [r for r in keep if values[r] is not None], where)[keep]
    inputs = held.table if len(keep) == table.num_rows else held.table.take(pa.array(keep, pa.int64()))
    facts.setdefault("rows_read", {})[side] = table.num_rows
    return Part(inputs=inputs, content=tuple(content), values=tuple(chosen), groups=groups, times=times)


def _whole(held: Inputs, where: str, notes: list[str], facts: dict[str, Any], side: str) -> list[int]:
    """The rows whose image can be read; the others are listed, and `Unreadable` is raised where there are none."""
    first = held.broken[0]
    if len(held.broken) == len(held.content):
        raise Unreadable(
            f"none of {len(held.broken)} images can be read: {first[1]}",
            where=f"`{where}`, row {first[0] + 1}",
            fix="look at the files; PNG, JPEG, GIF, BMP, TIFF, WEBP and PPM are read",
        )
    listing = [{"row": row + 1, "what": what} for row, what in held.broken[:SHOWN]]
    facts.setdefault("unreadable", {})[side] = {"rows": len(held.broken), "first": listing}
    many = f"{len(held.broken)} images" if len(held.broken) > 1 else "1 image"
    notes.append(f"left out, as it cannot be read: {many} of `{where}`; the first: {first[1]}")
    broken = {row for row, _ in held.broken}
    return [row for row in range(len(held.content)) if row not in broken]


def _check_tags(inputs: pa.Table, values: Sequence[Any], where: str) -> None:
    for row, (tokens, tags) in enumerate(zip(inputs["tokens"].to_pylist(), values, strict=True), 1):
        if tags is not None and len(tokens) != len(tags):
            raise Unfit(
                f"row {row} has {len(tokens)} tokens and {len(tags)} tags",
                where=f"`{where}`, row {row}",
                fix="give one tag for each token",
            )


def _quantiles_of_sizes(sizes: np.ndarray[Any, Any]) -> dict[str, list[int]]:
    levels = [0, 0.25, 0.5, 0.75, 1]
    return {n: [round(q) for q in np.quantile(sizes[:, i], levels)] for i, n in enumerate(("width", "height"))}


def _check(divided: Divided, task: Task, where: str, label: str) -> None:
    """Raises `Unfit` where there is nothing to learn or to compare."""
    values = divided.labelled.values
    if not values:
        lost = f": {divided.left_out} stand in the test too" if divided.left_out else ""
        fix = "give labelled rows that are not in the test" if lost else "give labelled rows"
        raise Unfit(f"no row with a label is left to train on{lost}", where=f"{where}, column `{label}`", fix=fix)
    if task.type == "regression":
        if len(set(values)) < 2:
            raise Unfit(
                f"all labels are {values[0]:g}", where=f"{where}, column `{label}`", fix="give labels that vary"
            )
        return
    seen = classes_of(values, task.type)
    if len(seen) < (1 if task.type == "multi_label" else 2):
        named = f"only the class `{seen[0]}`" if seen else "no class"
        raise Unfit(
            f"the rows to train on have {named}",
            where=f"{where}, column `{label}`",
            fix="give rows of at least two classes, or name another column with --label",
        )


def _assembled(
    divided: Divided,
    task: Task,
    layout: Layout,
    metric: Metric,
    seed: int,
    name: str,
    notes: list[str],
    facts: dict[str, Any],
) -> Target:
    taken: dict[str, int] = {}
    test = as_rows(divided.test, task, labelled=True, taken=taken)
    labelled = as_rows(divided.labelled, task, labelled=True, taken=taken)
    unlabelled = as_rows(divided.unlabelled, task, labelled=False, taken=taken)
    if task.type != "regression":
        new = sorted(set(task.classes) - set(classes_of(divided.labelled.values, task.type)))
        if new:
            notes.append(f"no row to train on has {listed(new)}, and a test row has")
    facts["rows_left_out"] = divided.left_out
    facts["label_variants"] = variants_of(task.classes)
    facts["leaks"] = leaks_of(labelled, task) if layout.modality == "table" else []
    notes += [leak["sentence"] for leak in facts["leaks"]]
    if facts["label_variants"]:
        shown = "; ".join(listed(names) for names in facts["label_variants"][:3])
        notes.append(f"labels that may be one and the same, and were not merged: {shown}")
    return sealed(
        labelled, unlabelled, test, task=task, layout=layout.columns, modality=layout.modality, metric=metric,
        protocol=divided.protocol, seed=seed, name=name, notes=tuple(notes), facts=facts,
    )  # fmt: skip


def sealed(
    labelled: Rows,
    unlabelled: Rows,
    test: Rows,
    *,
    task: Task,
    layout: Columns,
    modality: Any,
    metric: Metric,
    protocol: Protocol,
    seed: int,
    name: str,
    notes: tuple[str, ...],
    facts: dict[str, Any],
) -> Target:
    """The target of these rows, its folds made and its test behind the seal."""
    assert labelled.labels is not None
    folds = folds_for(labelled.labels, labelled.groups, seed)
    if folds.k == 0:
        raise Unfit(
            f"no fold can be scored: of {len(labelled)} labelled rows, no class has two that differ in input and group"
            if len(labelled) > 1
            else "there is 1 labelled row",
            where=f"the labelled rows of `{name}`",
            fix="label more rows: two of each class at least, in different groups"
            + (f"; or name another column than `{layout.label}` with --label" if layout.label else ""),
        )
    return Target(
        name=name,
        task=task,
        modality=modality,
        metric=metric,
        columns=layout,
        labelled=labelled,
        unlabelled=unlabelled,
        folds=folds,
        protocol=protocol,
        seal=Seal(partial(_same, test), ids=test.ids, content=test.content, groups=test.groups),
        fingerprint=_fingerprint(task, layout, labelled, unlabelled, test, folds, protocol, seed),
        seed=seed,
        notes=tuple(dict.fromkeys(notes)),
        facts={**facts, "test_fingerprint": hashlib.sha256("\n".join(sorted(test.ids)).encode()).hexdigest()},
    )


def _same(rows: Rows) -> Rows:
    return rows


def _fingerprint(
    task: Task, columns: Columns, labelled: Rows, unlabelled: Rows, test: Rows, folds: Folds, protocol: str, seed: int
) -> str:
    shown = [dataclasses.asdict(task), dataclasses.asdict(columns), protocol, seed, folds.kind, folds.k]
    made = hashlib.sha256(json.dumps(shown, sort_keys=True).encode("utf-8", "surrogatepass"))
    for rows in (labelled, test, unlabelled):
        made.update(("\n".join(rows.ids) + f"\n{len(rows)}\n").encode())
        if rows.labels is not None:
            plain = json.dumps(rows.labels.tolist()).encode() if rows.labels.dtype == object else rows.labels.tobytes()
            made.update(plain)
    return made.hexdigest()


def _these(rows: Rows, at: Sequence[int]) -> Rows:
    """`Rows.take`, also of no rows: Arrow does not know the type of an empty list of row numbers."""
    if at:
        return rows.take(at)
    return Rows((), (), (), rows.inputs.slice(0, 0), None if rows.labels is None else rows.labels[:0])


def split_outer(target: Target, k: int = FOLDS) -> tuple[Target, ...]:
    """One target for each outer fold of the labelled rows."""
    rows, rest = target.labelled, target.unlabelled
    assert rows.labels is not None
    of = outer_folds(rows.labels, rows.groups, target.seed, k)
    made = []
    for fold in range(max(of, default=-1) + 1):
        test = rows.take([r for r, f in enumerate(of) if f == fold])
        names = {*test.content, *test.groups}
        away = [r for r in range(len(rest)) if rest.content[r] not in names and rest.groups[r] not in names]
        made.append(
            sealed(
                rows.take([r for r, f in enumerate(of) if f != fold]), _these(rest, away), test, task=target.task,
                layout=target.columns, modality=target.modality, metric=target.metric, protocol="holdout",
                seed=target.seed, name=f"{target.name}/outer-{fold}", notes=target.notes,
                facts={**target.facts, "outer_fold": fold},
            )
        )  # fmt: skip
    return tuple(made)


def new_rows(data: Any, columns: Columns, modality: str, task: Task) -> Rows:
    """Rows to predict, read as the rows of the target were."""
    found = read(data)
    table = _renamed(found, columns, modality)
    kind = _kind(columns, modality, task)
    held = _unbroken(read_inputs(table, columns, kind, found.root, found.where), found)
    content = tuple(c or "" for c in held.content)
    values: tuple[Any, ...] = (None,) * len(content)
    known = columns.label in table.column_names
    if known:
        names = (found.classes or {}).get(str(columns.label))
        how = Reading(type=task.type, separator=_separator(table[columns.label], task))
        if task.type == "regression":
            values = tuple(lenient_amounts(table[columns.label]))
        else:
            values = tuple(read_labels(table[columns.label], how, names, found.where)[0])
    part = Part(inputs=held.table, content=content, values=values)
    rows = as_rows(part, task, labelled=False, taken={})
    return replace(rows, labels=as_array(values, task)) if known else rows


def unlabelled_rows(
    data: Any, *, text: str | Sequence[str] | None, pair: str | Sequence[str] | None, image: str | None
) -> Rows:
    """Rows that are read for their inputs alone."""
    found = read(data)
    if not found.table.num_rows:
        raise Unfit("there are no rows", where=f"`{found.where}`", fix="give a table with a header and rows")
    layout = find_inputs(found, text=text, pair=pair, image=image)
    if layout.modality == "table":
        raise Unfit(
            f"no column is clearly a text or an image; the columns are {listed(found.table.column_names)}",
            where=f"`{found.where}`",
            fix="name it with --text, --pair or --image",
        )
    held = _unbroken(read_inputs(found.table, layout.columns, layout.kind, found.root, found.where), found)
    content = tuple(c or "" for c in held.content)
    part = Part(inputs=held.table, content=content, values=(None,) * len(content))
    return as_rows(part, Task(type="single_label"), labelled=False, taken={})


def _unbroken(held: Inputs, found: Read) -> Inputs:
    """The inputs; `Unreadable` where an image among them is."""
    if held.broken:
        every = "; ".join(what for _, what in held.broken[:SHOWN])
        rest = f"; and {len(held.broken) - SHOWN} more" if len(held.broken) > SHOWN else ""
        raise Unreadable(
            f"{len(held.broken)} of {len(held.content)} images cannot be read: {every}{rest}",
            where=f"`{found.where}`, row {held.broken[0][0] + 1}",
            fix="mend or remove them; all other rows are fine",
        )
    return held


def _kind(columns: Columns, modality: str, task: Task) -> str:
    if modality in ("image", "table"):
        return modality
    if task.type == "tagging":
        return "tokens"
    return "pair" if columns.pair else "text"


def _renamed(found: Read, columns: Columns, modality: str) -> pa.Table:
    """Rows without column names of their own, such as a list of texts or an array, under the target's names."""
    table: pa.Table = found.table
    inputs = [n for n in table.column_names if n != "label"]
    wanted = [*columns.text, *(columns.pair or ()), *([columns.image] if columns.image else [])]
    wanted += [name for name, _ in columns.features]
    nameless = found.kind != "table" or (found.where == "the data given" and inputs == _numbered(len(inputs)))
    if nameless and len(wanted) > 1 and inputs == ["text"] and not columns.pair:
        return pa.table({wanted[0]: table["text"], **{name: pa.array([""] * table.num_rows) for name in wanted[1:]}})
    if nameless and len(inputs) == len(wanted) and not set(wanted) <= set(table.column_names):
        new = dict(zip(inputs, wanted, strict=True))
        if columns.label and "label" in table.column_names:
            new["label"] = columns.label
        return table.rename_columns([new.get(name, name) for name in table.column_names])
    if modality == "image" and columns.image not in table.column_names and "image" in table.column_names:
        return table.rename_columns([columns.image if n == "image" else n for n in table.column_names])
    return table


def _numbered(count: int) -> list[str]:
    return [f"x{i}" for i in range(count)]


def _separator(column: pa.ChunkedArray, task: Task) -> str | None:
    """What joins labels here: the separator that gives the most known classes."""
    if task.type != "multi_label" or pa.types.is_list(column.type):
        return None
    values = [v for v in as_words(column).to_pylist() if v]
    if values and all(v.strip().startswith("[") for v in values):
        return "["
    classes = set(task.classes)
    hits = {s: sum(part.strip() in classes for v in values for part in v.split(s)) for s in ("|", ";", ",")}
    return max(hits, key=lambda s: hits[s])
