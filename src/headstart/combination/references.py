"""The models that a recipe names: where they lie, each read once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Refused

from . import recipes

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder

NAMING = ("model", "models", "base", "base_model", "path", "lora", "outer", "inner")  # keys whose text names a model
TOKENS = ("source", "tokenizer_source")  # the same, or a word


class Folders:
    """The models of a recipe, each read once; in the order in which they are first named.

    made: models by names of their own, which go before folders of those names.
    """

    def __init__(self, place: Path, made: Mapping[str, ModelFolder] | None = None) -> None:
        self._place, self._made = place, made or {}
        self._known: dict[tuple[str, str], ModelFolder] = {}

    def of(self, reference: recipes.Reference) -> ModelFolder:
        from headstart.combination.adapters import adapted
        from headstart.io import model_folders
        from headstart.io.tied import once

        model, lora = _parts(reference)
        where = model if model in self._made else found_at(model, self._place)
        on = found_at(lora, self._place) if lora else ""
        if (where, on) not in self._known:
            made = self._made.get(model)
            folder = model_folders.read(where) if made is None else made
            folder = adapted(folder, on) if on else folder
            folder = dataclasses.replace(folder, name=self._free(folder))
            self._known[where, on] = once(folder) if made is None else folder
        return self._known[where, on]

    def _free(self, folder: ModelFolder) -> str:
        """A name that no other has: with the folder above, and then with a number."""
        taken = {f.name for f in self._known.values()}
        longer = f"{folder.where.parent.name}/{folder.name}"
        names = [folder.name, longer, *(f"{longer} ({n})" for n in range(2, len(taken) + 3))]
        return next(n for n in names if n not in taken)

    def all(self) -> list[ModelFolder]:
        return list(self._known.values())


def _parts(reference: recipes.Reference) -> tuple[str, str]:
    """A model and the adapter on it, each with its revision."""
    if isinstance(reference, str):
        model, _, lora = reference.partition("+")
        return model, lora
    return _revised(reference.model), _revised(reference.lora)


def _revised(path: recipes.ModelPath | None) -> str:
    if path is None:
        return ""
    return f"{path.path}@{path.revision}" if path.revision else path.path


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


def anywhere(said: Any, place: Path, names: Collection[str]) -> Any:
    """Documents of a recipe with whole paths of folders, so that they may lie elsewhere. names: of other documents."""

    def whole(text: str) -> str:
        if text in names:
            return text
        parts = text.split("+")
        folders = [[f for f in (place / Path(p).expanduser(), Path(p)) if p and f.is_dir()] for p in parts]
        return "+".join(str(f[0].absolute()) if f else p for p, f in zip(parts, folders, strict=True))

    def inner(node: Any, key: str) -> Any:
        if isinstance(node, dict):
            return {k: v if k in ("settings", "parameters") else inner(v, str(k)) for k, v in node.items()}
        if isinstance(node, list):
            return [inner(v, key) for v in node]
        if isinstance(node, str) and (key in NAMING or (key in TOKENS and node not in ("union", "base"))):
            return whole(node)
        return node

    return inner(said, "")
