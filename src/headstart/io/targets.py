"""Targets and rows on disk, for workers: memory-mapped Arrow files, plain arrays and JSON. Never test labels.

Format 1 of a target's folder: `target.json`, `labelled/`, `unlabelled/` and `seal.arrow` (names and hashes of test
rows). Of a folder of rows: `rows.arrow` (ids, content, groups), `inputs.arrow`, and `labels.npy` or `labels.arrow`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import METRICS, Columns, Folds, Refused, Rows, Seal, Target, Task, Unfit, Unreadable

FORMAT = 1


def dump(target: Target, folder: Path) -> None:
    """Write a target without its test rows; the folder appears whole, and replaces an older one."""

    def write(inner: Path) -> None:
        _write_rows(target.labelled, inner / "labelled")
        _write_rows(target.unlabelled, inner / "unlabelled")
        seal = {"ids": target.seal.ids, "content": target.seal.content, "groups": target.seal.groups}
        _write_table(pa.table({n: pa.array(v, pa.string()) for n, v in seal.items()}), inner / "seal.arrow")
        described = {
            "format": FORMAT,
            "name": target.name,
            "task": dataclasses.asdict(target.task),
            "modality": target.modality,
            "metric": target.metric.name,
            "columns": dataclasses.asdict(target.columns),
            "folds": dataclasses.asdict(target.folds),
            "protocol": target.protocol,
            "fingerprint": target.fingerprint,
            "seed": target.seed,
            "notes": target.notes,
            "facts": target.facts,
        }
        (inner / "target.json").write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")

    _whole(Path(folder), write)


def load(folder: Path) -> Target:
    """The target that `dump` wrote; its seal refuses to open."""
    folder = Path(folder)
    try:
        held = json.loads((folder / "target.json").read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    _readable(held.get("format"), folder)
    seal = _read_table(folder / "seal.arrow").to_pydict()
    task, folds = held["task"], held["folds"]
    return Target(
        name=held["name"],
        task=Task(type=task["type"], classes=tuple(task["classes"]), pair=task["pair"]),
        modality=held["modality"],
        metric=METRICS[held["metric"]],
        columns=columns_from(held["columns"]),
        labelled=load_rows(folder / "labelled"),
        unlabelled=load_rows(folder / "unlabelled"),
        folds=Folds(kind=folds["kind"], k=folds["k"], of=tuple(tuple(of) for of in folds["of"])),
        protocol=held["protocol"],
        seal=Seal(_refuse, ids=tuple(seal["ids"]), content=tuple(seal["content"]), groups=tuple(seal["groups"])),
        fingerprint=held["fingerprint"],
        seed=held["seed"],
        notes=tuple(held["notes"]),
        facts=held["facts"],
    )


def columns_from(held: dict[str, Any]) -> Columns:
    """The inverse of `dataclasses.asdict` for `Columns`, from JSON values.

    >>> one = Columns(label="y", features=(("a", "number"),), pair=("b", "c"))
    >>> columns_from(json.loads(json.dumps(dataclasses.asdict(one)))) == one
    True
    """
    pair = held["pair"]
    return Columns(
        label=held["label"],
        text=tuple(held["text"]),
        pair=None if pair is None else (pair[0], pair[1]),
        image=held["image"],
        features=tuple((name, kind) for name, kind in held["features"]),
        group=held["group"],
        time=held["time"],
    )


def _refuse() -> Rows:
    raise Refused(
        "the test rows are not in this copy of the target",
        where="a target that was loaded from disk",
        fix="open the seal of the target that was read from the data",
    )


def dump_rows(rows: Rows, folder: Path) -> None:
    """Write rows with their labels; the folder appears whole, and replaces an older one."""
    _whole(Path(folder), lambda inner: _write_rows(rows, inner))


def load_rows(folder: Path) -> Rows:
    """The rows that `dump_rows` wrote, their inputs memory-mapped."""
    folder = Path(folder)
    names = _read_table(folder / "rows.arrow").to_pydict()
    inputs = _read_table(folder / "inputs.arrow")
    labels: np.ndarray[Any, Any] | None = None
    if (folder / "labels.npy").is_file():
        try:
            labels = np.load(folder / "labels.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(folder, error) from error
    elif (folder / "labels.arrow").is_file():
        tags = _read_table(folder / "labels.arrow")["tags"].to_pylist()
        labels = np.empty(len(tags), dtype=object)
        labels[:] = tags
    return Rows(tuple(names["ids"]), tuple(names["content"]), tuple(names["groups"]), inputs, labels)


def _write_rows(rows: Rows, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = {"ids": rows.ids, "content": rows.content, "groups": rows.groups}
    _write_table(pa.table({n: pa.array(v, pa.string()) for n, v in names.items()}), folder / "rows.arrow")
    _write_table(rows.inputs, folder / "inputs.arrow")
    if rows.labels is None:
        return
    if rows.labels.dtype == object:
        tags = pa.array([list(tags) for tags in rows.labels], pa.list_(pa.string()))
        _write_table(pa.table({"tags": tags}), folder / "labels.arrow")
    else:
        np.save(folder / "labels.npy", rows.labels, allow_pickle=False)


def _write_table(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read_table(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from error


def _readable(version: Any, folder: Path) -> None:
    if version != FORMAT:
        raise Unfit(
            f"the folder has format {version}, and this version reads {FORMAT}",
            where=f"`{folder}`",
            fix="run `pip install --upgrade headstart`",
        )


def _damaged(path: Path, error: Exception) -> Unreadable:
    said = (str(error).splitlines() or [type(error).__name__])[0]
    return Unreadable(f"`{path}` cannot be read: {said}", where=f"`{path}`", fix="write it again from the data")


def _whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Write beside, then rename: a reader sees the old folder or the new one, never a part."""
    inner: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        inner = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        write(inner)
        inner.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
            os.rename(folder, old / "folder")
            os.rename(inner, folder)
            shutil.rmtree(old)
        else:
            os.rename(inner, folder)
    except OSError as error:
        raise Unreadable(
            f"`{folder}` cannot be written: {error.strerror or error}",
            where=f"`{folder}`",
            fix="give a folder that can be written to, on a disk with free space",
        ) from error
    finally:
        if inner is not None and inner.exists():
            shutil.rmtree(inner, ignore_errors=True)
