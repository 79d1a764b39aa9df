"""Merges that are made of merges: each is written before what is made of it, and again only if its models changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.core import Receipt, Unreadable

from .plans import Plan

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder

Write = Callable[[Plan, Path, bool], Receipt]  # a plan, its folder, and whether what lies there is replaced


def check_place(plan: Plan, out: str | Path, *, overwrite: bool = False) -> None:
    """Raises `Refused` for a folder that holds something, or what the merge or those before it read.

    `write` raises it, too, and only once rows were read and other models made.
    """
    from headstart.io import atomic

    from .writing import read_in

    place = Path(out).expanduser().absolute()
    plans = [*plan.before, (plan.name, plan)]
    sources = [source for _, one in plans for source in read_in(one)]
    for folder in [place / name for name, _ in plans] if plan.name else [place]:
        atomic.refuse_own_source(folder, sources)
    atomic.refuse_occupied(place / plan.name if plan.name else place, overwrite=overwrite)


def carried_out(plan: Plan, out: Path, write: Write, *, overwrite: bool = False) -> tuple[Path, Plan, Receipt]:
    """The last model's folder, its plan and its account.

    If it has no name it is `out`, and what it is made of lies in a hidden folder beside that until it is done; after an
    interruption that goes on there. If it has, all models lie in `out`, by their names.
    """
    from headstart.io import atomic, model_folders

    place = out if plan.name else out.parent / f"{atomic.PART}{out.name[:40]}-steps"
    made: dict[str, ModelFolder] = {}
    for name, step in plan.before:
        where = place / name
        now = step.again(made) if step.again is not None else step
        if not _is_there(now, where):
            write(now, where, overwrite or not plan.name)
        made[name] = model_folders.read(where, name)
    last = plan.again(made) if plan.again is not None else plan
    where = out / plan.name if plan.name else out
    receipt = write(last, where, overwrite)
    if not plan.name:
        shutil.rmtree(place, ignore_errors=True)
    return where, last, receipt


def _is_there(plan: Plan, where: Path) -> bool:
    """Whether a folder holds what the plan would write, of models that nobody changed since."""
    from headstart.io.safe_files import read_json

    from .writing import RECEIPT, fingerprint

    try:
        facts = read_json(where, RECEIPT).get("facts")
    except Unreadable:
        return False
    return isinstance(facts, dict) and facts.get("plan") == fingerprint(plan)
