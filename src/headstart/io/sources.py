"""Find what lies on a shelf, and open it: descriptions first, tensors only for as long as a `with` lasts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Gives, Problem, Refused, Source, Unreadable

from . import fingerprints, layers, recipes
from .member_files import Member, is_member, member_of
from .recipes import Recipe
from .safe_files import near_folder
from .safetensors_files import PICKLED

if TYPE_CHECKING:
    from .encoders import OpenedSource

DEEPEST = 6  # folders below the one that was named
MOST_README_BYTES = 1 << 16
ELSEWHERE = {
    "adapter_config.json": "an adapter, and adapters are not read yet",
    "model_index.json": "a pipeline of several models, which is not read",
}


def scan(where: str | Path, *, cache: Path | None = None) -> tuple[list[Source], list[tuple[str, Problem]]]:
    """Every source in a folder, in a fixed order, and each folder that looks like one but cannot be used.

    where: a model's folder, a folder of such folders, a saved Result, or `hub:org/name@revision`. One bad folder costs
    the others nothing. cache: folder where hashes of unchanged files are kept; without it all weights are read.
    """
    origin = str(where)
    try:
        folder = _local(origin)
    except Problem as problem:
        return [], [(origin, problem)]
    sources: list[Source] = []
    failed: list[tuple[str, Problem]] = []
    for place in _places(folder, folder, 0):
        name = _name(place, folder)
        try:
            sources.append(_described(place, name, origin if place == folder else str(place), cache))
        except Problem as problem:
            failed.append((name, problem))
        except OSError as error:
            failed.append((name, _unreadable(place, error)))
    if not sources and not failed:
        failed.append((origin, _nothing(folder)))
    return sources, failed


@contextmanager
def opened(source: Source) -> Iterator[OpenedSource]:
    """The source with its tensors in memory, for as long as the `with` lasts: features, and a copy to train."""
    from .encoders import OpenedSource

    here = OpenedSource(source)
    try:
        yield here
    finally:
        here.close()


def recipe_of(source: Source) -> tuple[Recipe, Member | None]:
    """How to run a source, read from its folder again; and the member that it is, where it comes from a Result."""
    folder = Path(source.where)
    member = member_of(folder) if is_member(folder) else None
    return layers.tapped(recipes.read(member.encoder if member else folder), source), member


def _local(origin: str) -> Path:
    if origin.startswith("hub:"):
        from .hub import fetched

        return fetched(origin)
    folder = Path(origin).expanduser().absolute()
    if folder.is_file():
        raise Refused(
            f"`{folder.name}` is a file, and a source is a folder",
            where=f"source `{origin}`",
            fix="name the folder that holds its configuration, weights and tokenizer or preprocessor",
        )
    if not folder.is_dir():
        raise Unreadable(f"there is no folder `{origin}`", where=f"source `{origin}`", fix=near_folder(folder))
    return folder


def _places(folder: Path, top: Path, depth: int) -> Iterator[Path]:
    """Folders that look like sources, sorted; what lies inside one of them belongs to it."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        yield folder
        return
    names = {p.name for p in inside}
    if "headstart.json" in names:
        members = sorted(p.parent for p in folder.glob("members/*/member.json"))
        yield from members or [folder]
    elif is_member(folder) or _looks_like_one(names):
        yield folder
    elif depth < DEEPEST:
        for path in inside:
            if path.is_dir() and not path.name.startswith(".") and path.resolve().is_relative_to(top.resolve()):
                yield from _places(path, top, depth + 1)


def _looks_like_one(names: set[str]) -> bool:
    marks = {"modules.json", "config.json", "model.safetensors", "model.safetensors.index.json", *ELSEWHERE}
    return bool(names & marks) or any(n.endswith((".onnx", *PICKLED)) for n in names)


def _described(folder: Path, name: str, origin: str, cache: Path | None) -> Source:
    member = member_of(folder) if is_member(folder) else None
    if member is None:
        _refuse_others(folder)
    recipe = recipes.read(member.encoder if member else folder)
    weights = fingerprints.of_weights(recipe, own=member.own_files if member else None, cache=cache)
    card = _card(folder)
    gives: tuple[Gives, ...] = ("features", "gradients", "weights")
    if recipe.head is not None or member is not None:
        gives = (*gives, "predictions")
    elif recipe.word_head is not None:
        gives = (*gives, "word_predictions")
    return Source(
        name=name,
        kind="result" if member else recipe.kind,
        where=str(folder),
        origin=origin,
        weights=weights,
        identity=fingerprints.of_identity(recipe, weights),
        modality=recipe.modality,
        gives=gives,
        base=member.base if member else None,
        licence=(member.licence if member else None) or card.get("license"),
        lineage=member.lineage if member else tuple(v for k, v in card.items() if k == "base_model"),
        facts=_facts(recipe, member),
        trained_on=member.trained_on if member else None,
    )


def _facts(recipe: Recipe, member: Member | None) -> dict[str, Any]:
    """What was read, as JSON values; `pooling` and `normalise` say how features are made."""
    head = recipe.head or recipe.word_head
    labels = list(head.labels) if head else None
    weights = [e for e in recipe.entries if e.dtype[0] in "FB" and e.dtype != "BOOL"]
    return {
        "architecture": recipe.architecture or recipe.model_type,
        "model_type": recipe.model_type,
        "width": recipe.width,
        "parameters": sum(e.size for e in weights),
        "bytes": sum(e.end - e.start for e in recipe.entries),
        "layers": _layers(recipe),
        "max_length": recipe.max_length,
        "pooling": "+".join(recipe.pooling),
        "normalise": recipe.normalise,
        "labels": list(member.classes) if member else labels,
        "preprocessing": dict(recipe.preprocessing),
    }


def _layers(recipe: Recipe) -> int | None:
    for name in ("num_hidden_layers", "n_layers"):
        if isinstance(recipe.config.get(name), int):
            return int(recipe.config[name])
    depths = recipe.config.get("depths")
    return sum(depths) if isinstance(depths, list) and all(isinstance(d, int) for d in depths) else None


def _refuse_others(folder: Path) -> None:
    if (folder / "headstart.json").exists():
        raise Refused(
            "this saved result holds no encoder, so it has no features to give",
            where=f"source `{folder}`",
            fix="predict with it: headstart predict RESULT DATA",
        )
    for name, what in ELSEWHERE.items():
        if (folder / name).exists() and not (folder / "modules.json").exists():
            raise Refused(f"this is {what}", where=f"source `{folder}`", fix="add the whole model as a folder")
    if not (folder / "config.json").exists() and any(folder.glob("*.onnx")):
        raise Refused(
            "this is an ONNX model, and those are not read yet",
            where=f"source `{folder}`",
            fix="add the model in the form that `save_pretrained` writes",
        )


def _name(place: Path, top: Path) -> str:
    """What people call it: `org/name` in a hub cache, else its path below the folder that was named."""
    if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
        return place.parent.parent.name.removeprefix("models--").replace("--", "/")
    if is_member(place) and place.parent.name == "members":
        return f"{place.parent.parent.name}/{place.name}"
    return place.name if place == top else str(place.relative_to(top))


def _card(folder: Path) -> dict[str, str]:
    """Plain `key: value` lines of the README's front matter, as text."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(MOST_README_BYTES)
    except OSError:
        return {}
    found = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    card: dict[str, str] = {}
    for line in found[1].splitlines() if found else ():
        pair = re.match(r"([A-Za-z_]+):\s*(\S.*)$", line)
        if pair:
            card[pair[1]] = pair[2].strip().strip("\"'")[:200]
    return card


def _unreadable(place: Path, error: OSError) -> Unreadable:
    return Unreadable(
        f"cannot be read: {error.strerror or type(error).__name__}",
        where=f"source `{place}`",
        fix="check its permissions",
    )


def _nothing(folder: Path) -> Unreadable:
    links = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.resolve().is_relative_to(folder.resolve())]
    if links:
        return Unreadable(
            f"there is no model in the folder, and links that lead out of it, as `{links[0].name}`, are not followed",
            where=f"source `{folder}`",
            fix=f"name what they lead to: {links[0].resolve()}",
        )
    return Unreadable(
        "there is no model in the folder",
        where=f"source `{folder}`",
        fix="put folders there that `save_pretrained` or sentence-transformers wrote, or name one of them",
    )
