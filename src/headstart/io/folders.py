"""Folders of data: images by class, tables, tables already split, and data sets saved by `datasets`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from headstart.core import Unfit, Unreadable

from .images import SUFFIXES
from .tables import PICKLES, TABLES, Read, class_names, images_table, read_file

TRAIN, TEST, VALID = ("train", "training"), ("test", "testing"), ("valid", "validation", "val", "dev")
SPLITS = {name: side for side, names in (("train", TRAIN), ("test", TEST), ("valid", VALID)) for name in names}
INDEXES = ("metadata", "labels", "index", "annotations")  # names of a table that lies beside its images


def read_folder(folder: Path) -> Read:
    """Rows from a folder, whichever of the four forms it has."""
    root = folder.resolve()
    if (root / "dataset_dict.json").is_file():
        return _saved_splits(root)
    if (root / "state.json").is_file() and (root / "dataset_info.json").is_file():
        table = _saved(root)
        return Read(name=root.name, where=f"{root.name}/", table=table, root=root, classes=class_names(table.schema))
    files, folders = _entries(root)
    tables = [file for file in files if file.suffix.lower() in TABLES]
    sides = {inner.name.lower() for inner in folders}
    if folders and sides <= set(SPLITS) and sides & set(TRAIN):
        return _split_folders(root, folders)
    split = {table: SPLITS[side] for table in tables if (side := _side(table)) in SPLITS}
    if "train" in split.values():
        return _split_tables(root, split)
    index = [table for table in tables if table.stem.lower() in INDEXES]
    if len(index) == 1:
        return replace(read_file(index[0]), name=root.name, root=root)
    if any(_images(inner, root, []) for inner in folders):
        return _class_folders(root, folders)
    if any(file.suffix.lower() in SUFFIXES for file in files):
        skipped: list[str] = []
        return _noted(_flat(root, skipped), skipped)
    if len(tables) == 1:
        return replace(read_file(tables[0]), name=root.name, root=root)
    if not tables and len(folders) == 1:
        return replace(read_folder(folders[0]), name=root.name)
    raise _unknown(root, tables, files)


def _unknown(root: Path, tables: list[Path], files: list[Path]) -> Unfit | Unreadable:
    where = f"`{root}`"
    pickles = [file.name for file in files if file.suffix.lower() in PICKLES]
    if tables:
        return Unfit(
            f"the folder holds {len(tables)} tables: {', '.join(f'`{t.name}`' for t in tables[:6])}",
            where=where,
            fix="give one of them, or call them train and test",
        )
    if pickles:
        return Unreadable(f"the folder holds pickles such as `{pickles[0]}`", where=where, fix="save rows as parquet")
    return Unfit(
        "the folder holds no images and no tables",
        where=where,
        fix="give a folder with one folder of images for each class, or a table file",
    )


def _side(table: Path) -> str:
    """`train` of `train.csv`, `train-00000-of-00002.parquet` and `train_1.csv`."""
    return re.sub(r"[-_.]\d.*$", "", table.stem).lower()


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders in order of name, without hidden ones."""
    found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "__")))
    return [e for e in found if e.is_file()], [e for e in found if e.is_dir()]


def _walk(folder: Path, root: Path, skipped: list[str]) -> Iterator[str]:
    """Image files below a folder, in order; a link that leaves the root is refused, other files are noted."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_symlink():
            inside(Path(entry.path), root, f"`{os.path.relpath(entry.path, root)}`")
            if entry.is_dir():
                skipped.append(os.path.relpath(entry.path, root))
                continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), root, skipped)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield os.path.realpath(entry.path) if entry.is_symlink() else entry.path
        else:
            skipped.append(os.path.relpath(entry.path, root))


def inside(path: Path, root: Path, where: str) -> str:
    """The true path of a file; raises `Unreadable` where it lies outside the root."""
    true = os.path.realpath(path)
    base = os.path.realpath(root)
    if true != base and not true.startswith(base.rstrip(os.sep) + os.sep):
        raise Unreadable(
            f"the path leads out of the folder `{root}`",
            where=where,
            fix="copy the file into the folder, and name it relative to that",
        )
    return true


def _images(folder: Path, root: Path, skipped: list[str]) -> list[str]:
    if folder.is_symlink():
        inside(folder, root, f"`{folder.name}`")
    return list(_walk(folder, root, skipped))


def _noted(found: Read, skipped: list[str]) -> Read:
    if not skipped:
        return found
    some = ", ".join(f"`{name}`" for name in skipped[:3])
    more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return replace(found, notes=(*found.notes, f"left out, as they are not images: {some}{more}"))


def _flat(root: Path, skipped: list[str]) -> Read:
    table = images_table(_images(root, root, skipped))
    return Read(name=root.name, where=f"{root.name}/", table=table, kind="images", root=root)


def _class_table(folder: Path, root: Path, skipped: list[str]) -> pa.Table:
    paths: list[str] = []
    labels: list[str] = []
    files, folders = _entries(folder)
    skipped += [os.path.relpath(file, root) for file in files]
    for inner in folders:
        found = _images(inner, root, skipped)
        paths += found
        labels += [inner.name] * len(found)
    return images_table(paths, labels)


def _class_folders(root: Path, folders: list[Path]) -> Read:
    skipped: list[str] = []
    table = _class_table(root, root, skipped)
    empty = [inner.name for inner in folders if inner.name not in set(table["label"].to_pylist())]
    notes = tuple(f"the folder `{name}` holds no images" for name in empty)
    found = Read(name=root.name, where=f"{root.name}/", table=table, kind="images", root=root, notes=notes)
    return _noted(found, skipped)


def _split_folders(root: Path, folders: list[Path]) -> Read:
    if not any(_images(inner, root, []) for inner in folders):
        parts = {SPLITS[inner.name.lower()]: read_folder(inner) for inner in folders}
        first = parts["train"]
        return _joined(replace(first, name=root.name, root=root), {side: part.table for side, part in parts.items()})
    skipped: list[str] = []
    tables = {SPLITS[inner.name.lower()]: _class_table(inner, root, skipped) for inner in folders}
    found = Read(name=root.name, where=f"{root.name}/", table=tables["train"], kind="images", root=root)
    return _noted(_joined(found, tables), skipped)


def _split_tables(root: Path, split: dict[Path, str]) -> Read:
    parts: dict[str, list[Read]] = {}
    for path, side in split.items():
        parts.setdefault(side, []).append(read_file(path))
    first = parts["train"][0]
    tables = {side: _stacked([part.table for part in held], root) for side, held in parts.items()}
    notes = tuple(dict.fromkeys(note for held in parts.values() for part in held for note in part.notes))
    found = Read(name=root.name, where=f"{root.name}/", table=tables["train"], kind=first.kind, root=root, notes=notes)
    return _joined(replace(found, classes=class_names(first.table.schema)), tables)


def _stacked(tables: list[pa.Table], root: Path) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive") if len(tables) > 1 else tables[0]
    except pa.ArrowException as error:
        raise Unfit(
            f"the parts of the data have different columns: {str(error).splitlines()[0]}",
            where=f"`{root.name}/`",
            fix="give all parts the same columns",
        ) from error


def _joined(found: Read, tables: dict[str, pa.Table]) -> Read:
    """Rows for validation join the training rows: the target makes its own folds."""
    test = tables.get("test")
    if "valid" not in tables:
        return replace(found, test=test)
    note = f"{tables['valid'].num_rows} rows for validation joined the training rows; folds are made here"
    stacked = _stacked([tables["train"], tables["valid"]], Path(found.name))
    return replace(found, table=stacked, test=test, notes=(*found.notes, note))


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"`{path.name}` is not JSON", where=f"`{path}`", fix="save the data set again") from error


def _saved(folder: Path) -> pa.Table:
    """The rows of a folder that `Dataset.save_to_disk` made, memory-mapped."""
    state = _loaded(folder / "state.json")
    names = [part.get("filename") for part in state.get("_data_files", [])] if isinstance(state, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise Unreadable("`state.json` names no data files", where=f"`{folder}`", fix="save the data set again")
    tables = []
    for name in names:
        path = inside(folder / name, folder, f"`{folder.name}/state.json`")
        tables.append(pa.ipc.open_stream(pa.memory_map(path)).read_all())
    return pa.concat_tables(tables)


def _saved_splits(root: Path) -> Read:
    held = _loaded(root / "dataset_dict.json")
    names = held.get("splits", []) if isinstance(held, dict) else []
    tables: dict[str, pa.Table] = {}
    for name in names:
        if str(name).lower() in SPLITS:
            folder = Path(inside(root / str(name), root, "`dataset_dict.json`"))
            tables[SPLITS[str(name).lower()]] = _saved(folder)
    if "train" not in tables:
        raise Unfit(
            f"the saved data set has the splits {', '.join(f'`{n}`' for n in names)}, and none is called train",
            where=f"`{root}`",
            fix="give the folder of one split",
        )
    classes = class_names(tables["train"].schema)
    found = Read(name=root.name, where=f"{root.name}/", table=tables["train"], root=root, classes=classes)
    return _joined(found, tables)
