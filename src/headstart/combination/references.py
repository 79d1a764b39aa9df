"""The models that a recipe names: where they lie, each read once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.core import Refused

from . import recipes

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder


class Folders:
    """The models of a recipe, each read once; in the order in which they are first named."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[str, ModelFolder] = {}

    def of(self, reference: recipes.Reference) -> ModelFolder:
        from headstart.io import model_folders

        path, revision, lora = _parts(reference)
        if lora:
            raise Refused(
                "an adapter on a model is not merged here yet",
                where=f"recipe, model `{path}+{lora}`",
                fix="write the adapter into the model first",
            )
        where = found_at(path if not revision else f"{path}@{revision}", self._place)
        if where not in self._known:
            folder = model_folders.read(where)
            if any(f.name == folder.name for f in self._known.values()):
                folder = dataclasses.replace(folder, name=f"{folder.where.parent.name}/{folder.name}")
            self._known[where] = folder
        return self._known[where]

    def all(self) -> list[ModelFolder]:
        return list(self._known.values())


def _parts(reference: recipes.Reference) -> tuple[str, str, str]:
    if isinstance(reference, str):
        model, _, lora = reference.partition("+")
        path, _, revision = model.partition("@")
        return path, revision, lora
    return reference.model.path, reference.model.revision or "", reference.lora.path if reference.lora else ""


def found_at(path: str, place: Path) -> str:
    """The folder that a recipe names: beside it, or from here, or a hub's."""
    if path.startswith("hub:"):
        from headstart.io.hub import fetched

        return str(fetched(path))
    for folder in (place / Path(path).expanduser(), Path(path).expanduser()):
        if folder.is_dir():
            return str(folder.absolute())
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", path) is not None
    raise Refused(
        f"there is no folder `{path}`",
        where="recipe",
        fix=f"write hub:{path} for a model of the hub, or name the folder" if hub else "name the folder of the model",
    )
