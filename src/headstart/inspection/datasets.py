"""A folder of labelled data sets, each read as a target is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.core import Problem, Target, Unfit, Unreadable

from .reading import target_from

UNNAMED: dict[str, Any] = dict.fromkeys(("text", "pair", "image", "group", "time", "test", "metric", "task", "labels"))


def datasets_in(
    folder: Path, label: str | None, apart_from: Path | None, seed: int
) -> tuple[list[Target], list[tuple[str, Problem]]]:
    """Each file and folder of a folder, in order of name, without hidden ones; and those that could not be read."""
    if not folder.is_dir():
        raise Unreadable(
            f"`{folder}` is not a folder", where="the data sets", fix="give a folder of tables, or of folders of images"
        )
    found: list[Target] = []
    failed: list[tuple[str, Problem]] = []
    for place in sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__"))):
        if apart_from is not None and apart_from.exists() and place.exists() and place.samefile(apart_from):
            continue
        try:
            found.append(_read(place, label, seed))
        except Problem as problem:
            failed.append((place.name, problem))
    return found, failed


def _read(place: Path, label: str | None, seed: int) -> Target:
    """By the label that is clearly one; where none is, by a column of that name."""
    name = place.name if place.is_dir() else place.stem
    try:
        return target_from(str(place), name=name, seed=seed, label=None, **UNNAMED)
    except Unfit as unclear:
        if label is None:
            raise
        try:
            return target_from(str(place), name=name, seed=seed, label=label, **UNNAMED)
        except Problem:
            fix = f"call its label column `label`, or `{label}`" if "--label" in unclear.fix else unclear.fix
            raise type(unclear)(unclear.what, where=unclear.where, fix=fix) from None
