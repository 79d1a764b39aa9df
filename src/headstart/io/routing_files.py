"""What a merge keeps apart, on disk: `routing/` beside the folders of the models that share a body.

routing.json           format, method, the tasks in order with their folders and heads, and what the router is
expert-NNNNN.safetensors   a delta to the model of that task, numbered from 1; none where nothing is added
common.safetensors     a delta that the experts have in common, and pick their parts of; none where they pick none
router.safetensors     the router's tensors; none where only the caller knows an input's task
inserts.safetensors    gates of blocks, and corrections before the heads of tasks; none where there are none

Only folders are named inside, and each must lie beside `routing/`; files are found by number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from headstart.core import Refused, Routed, Unreadable
from headstart.numerics import inserts
from headstart.numerics.delta import Delta, Dense, Picked
from headstart.numerics.inserts import Correction, Mixture
from headstart.numerics.routers import Router, router_of, tensors_of

from . import atomic, deltas, model_folders
from .artifacts import damaged, read_described
from .model_folders import ModelFolder
from .safe_files import inside
from .safetensors_files import entries

FORMAT = 1
PLACE = "routing"
MANIFEST = "routing.json"
COMMON = "common.safetensors"
ROUTER = "router.safetensors"
INSERTS = "inserts.safetensors"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TaskPart(_Strict):
    """One task. head: tensors of its folder that are its own; the others are those of every folder."""

    name: str = Field(min_length=1)
    folder: str = Field(min_length=1, pattern=r"^[^/]+$")
    head: list[str] = Field(min_length=1)
    expert: bool


class RouterPart(_Strict):
    """top: how many experts an input gets."""

    top: int = Field(ge=1)


class Manifest(_Strict):
    """What routing.json says."""

    format: int
    method: str
    settings: dict[str, Any]
    tasks: list[TaskPart] = Field(min_length=1)
    common: bool
    router: RouterPart | None
    blocks: list[list[str]] = []  # tensors of which every input gets as much of each expert as gates say
    inserts: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """A folder whose parts were read and fit together.

    models: by task. experts, corrections: by task, None where it has none. mixtures: of `manifest.blocks`.
    """

    where: Path
    manifest: Manifest
    models: Sequence[ModelFolder]
    experts: Sequence[Delta | None]
    common: Delta | None
    router: Router | None
    mixtures: Sequence[Mixture]
    corrections: Sequence[Correction | None]


def is_routed(folder: Path) -> bool:
    return (folder / PLACE / MANIFEST).is_file()


def write(
    folder: Path, *, method: str, settings: Mapping[str, Any], heads: Mapping[str, Sequence[str]],
    names: Sequence[str], routed: Routed,
) -> None:  # fmt: skip
    """Into a folder where the models are already. heads: by folder, its own tensors; in the order of the experts.

    names: of the tasks.
    """
    place = folder / PLACE
    with atomic.writing(folder):
        place.mkdir(exist_ok=True)
    tasks = []
    for number, ((inner, head), name, changes) in enumerate(zip(heads.items(), names, routed.experts, strict=True)):
        if changes:
            base = deltas.fingerprint(model_folders.read(folder / inner))
            deltas.write(Delta(base, changes, facts={"method": method, "task": name}), place / _expert(number))
        tasks.append({"name": name, "folder": inner, "head": list(head), "expert": bool(changes)})
    if routed.common:
        base = deltas.fingerprint(model_folders.read(folder / next(iter(heads))))
        deltas.write(Delta(base, routed.common, facts={"method": method}), place / COMMON)
    if routed.router is not None:
        _write_tensors(tensors_of(routed.router), place / ROUTER)
    held = inserts.tensors_of(routed.mixtures, routed.corrections)
    if held:
        _write_tensors(held, place / INSERTS)
    said = {
        "format": FORMAT, "method": method, "settings": dict(settings), "tasks": tasks,
        "common": bool(routed.common), "router": {"top": routed.router.top} if routed.router is not None else None,
        "blocks": [list(m.tensors) for m in routed.mixtures], "inserts": bool(held),
    }  # fmt: skip
    atomic.write_json(place / MANIFEST, said)


def _write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    atomic.write_bytes(path, save({n: t.detach().contiguous() for n, t in tensors.items()}))


def read(where: str | Path) -> Parts:
    """All of it, checked: what does not fit the models beside it is refused before anything runs.

    Raises `Unreadable`, naming the file, for what is missing, damaged, newer or leads out of the folder, and `Refused`
    for an expert that was made for other weights.
    """
    folder = Path(where).expanduser().absolute()
    path = inside(folder, f"{PLACE}/{MANIFEST}")
    said = read_described(path, FORMAT)
    try:
        manifest = Manifest.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    models = [_model(folder, t, path) for t in manifest.tasks]
    names = [t.name for t in manifest.tasks]
    if len(set(names)) != len(names):
        raise damaged(path, "two tasks have one name")
    experts = [
        _read_delta(folder, _expert(n), m) if t.expert else None
        for n, (t, m) in enumerate(zip(manifest.tasks, models, strict=True))
    ]
    common = _read_delta(folder, COMMON, models[0]) if manifest.common else None
    _check_picked(experts, common, path)
    mixtures, corrections = _read_inserts(folder, manifest)
    return Parts(folder, manifest, models, experts, common, _read_router(folder, manifest), mixtures, corrections)


def _model(folder: Path, task: TaskPart, path: Path) -> ModelFolder:
    found = model_folders.read(inside(folder, task.folder, root=folder), task.name)
    lacking = [n for n in task.head if n not in found.tensors]
    if lacking:
        raise damaged(path, f"`{task.folder}` has no tensor `{lacking[0]}`")
    return found


def _read_delta(folder: Path, name: str, model: ModelFolder) -> Delta:
    path = inside(folder, f"{PLACE}/{name}")
    found = deltas.read(path)
    deltas.check_fit(found, model, path)
    if deltas.fingerprint(model) != found.base:
        raise Refused(
            f"`{name}` was made for other weights than those of `{model.where.name}`",
            where=f"`{path.parent}`",
            fix="merge again; whoever changes a model's weights must make what belongs to it anew",
        )
    return found


def _check_picked(experts: Sequence[Delta | None], common: Delta | None, path: Path) -> None:
    """Raises `Unreadable` where an expert picks of a change that is not there."""
    there = {n for n, form in common.changes.items() if isinstance(form, Dense)} if common is not None else set()
    for expert in experts:
        for name, form in expert.changes.items() if expert is not None else ():
            if isinstance(form, Picked) and name not in there:
                raise damaged(path, f"an expert picks of `{name}`, of which no common change is there")


def _read_router(folder: Path, manifest: Manifest) -> Router | None:
    if manifest.router is None:
        return None
    with _reading(folder, ROUTER) as tensors:
        router = router_of(tensors, manifest.router.top)
        if router.experts != len(manifest.tasks):
            raise ValueError(f"it tells {router.experts} experts apart, and there are {len(manifest.tasks)} tasks")
    return router


def _read_inserts(folder: Path, manifest: Manifest) -> tuple[list[Mixture], list[Correction | None]]:
    tasks = len(manifest.tasks)
    if not manifest.inserts:
        if manifest.blocks:
            raise damaged(folder / PLACE / MANIFEST, "there are blocks without gates")
        return [], [None] * tasks
    with _reading(folder, INSERTS) as tensors:
        return inserts.inserts_of(tensors, manifest.blocks, tasks)


@contextmanager
def _reading(folder: Path, name: str) -> Iterator[dict[str, torch.Tensor]]:
    """The tensors of a file. Raises `Unreadable` where it is missing or damaged, or a ValueError comes of them."""
    path = inside(folder, f"{PLACE}/{name}")
    if not path.is_file():
        raise damaged(path, "it is missing")
    entries([path])  # the header, checked as strictly as that of any weights
    try:
        yield load_file(path)
    except (SafetensorError, ValueError) as error:
        raise Unreadable(
            f"`{path.name}` is damaged: {' '.join(str(error).split())[:160]}",
            where=f"`{path.parent}`",
            fix="copy the folder again from its origin, or merge again",
        ) from error


def _expert(number: int) -> str:
    return f"expert-{number + 1:05d}.safetensors"
