"""Tensors that a folder stores twice though they are one, as an output embedding that is the input embedding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .tensor_names import is_input, is_output

if TYPE_CHECKING:
    from .model_folders import ModelFolder
    from .safetensors_files import Entry

TIED = "tie_word_embeddings"
SHARED = "shared.weight"
OF_SHARED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
PORTION = 1 << 24  # bytes that are compared at once


def once(folder: ModelFolder) -> ModelFolder:
    """The folder as transformers would save it: of tensors that are one, one. It ties copies that it is told to tie
    only where they are equal; others stay two, and are noted. Copies are read as far as they are equal.
    """
    copies, notes = {}, []
    for copy, kept in _pairs(folder):
        one, other = folder.tensors[copy], folder.tensors[kept]
        if {copy, kept} & set(folder.changes) or (one.shape, one.dtype) != (other.shape, other.dtype):
            continue
        if _equal(one, other):
            copies[copy] = kept
        elif _said(folder):
            notes.append(
                f"`{copy}` and `{kept}` of `{folder.name}` differ, though its configuration says that they are tied: "
                "they are merged as two, as transformers loads them"
            )
    if not copies and not notes:
        return folder
    tensors = {n: e for n, e in folder.tensors.items() if n not in copies}
    config = {**folder.config, TIED: True} if copies and _said(folder) is None else folder.config
    return replace(folder, tensors=tensors, config=config, copies=copies, notes=tuple(notes))


def untied(folders: Sequence[ModelFolder]) -> list[ModelFolder]:
    """Models of which one has an output embedding of its own: then all have, and in those that are tied it is what
    transformers ties it to. As they are where all are tied or none is, or where they are not of one architecture.
    """
    return [_untied(folder, [f for f in folders if _alike(f, folder)]) for folder in folders]


def _untied(folder: ModelFolder, others: Sequence[ModelFolder]) -> ModelFolder:
    own: dict[str, str] = {}
    for other in others if folder.tied else ():
        for name, entry in other.tensors.items():
            kept = _kept_for(folder, name) if name not in folder.tensors else None
            if kept is not None and folder.tensors[kept].shape[1:] == entry.shape[1:]:
                own[name] = kept
    if not own:
        return folder
    name, kept = next(iter(own.items()))
    note = f"`{folder.name}` has one tensor for `{kept}` and `{name}`, and not all models have: the result has two"
    return replace(
        folder,
        tensors={**folder.tensors, **{n: folder.tensors[k] for n, k in own.items()}},
        config=_apart(folder.config),
        changes={**folder.changes, **{n: folder.changes[k] for n, k in own.items() if k in folder.changes}},
        notes=(*folder.notes, note),
        stored={**folder.stored, **{n: folder.stored.get(k, k) for n, k in own.items()}},
    )


def _alike(one: ModelFolder, other: ModelFolder) -> bool:
    told = one.config.get("architectures")
    return bool(told) and told == other.config.get("architectures")


def _kept_for(folder: ModelFolder, name: str) -> str | None:
    """The tensor that a tied model has in place of an output embedding or its bias."""
    if is_output(name):
        inputs = [n for n in folder.tensors if is_input(n)]
        kept = [n for n in inputs if f".{n}".endswith(f".{SHARED}")] or inputs
        return kept[0] if len(kept) == 1 else None
    bias = f"{name.removesuffix('decoder.bias')}bias"
    return bias if name.endswith("decoder.bias") and bias in folder.tensors else None


def _apart(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that says that embeddings are two."""
    inner = config.get("text_config")
    if isinstance(inner, dict) and TIED in inner:
        return {**config, "text_config": {**inner, TIED: False}, **({TIED: False} if TIED in config else {})}
    return {**config, TIED: False}


def _pairs(folder: ModelFolder) -> Iterator[tuple[str, str]]:
    """(the copy, what it is a copy of) by the names that transformers ties."""
    inputs = [n for n in folder.tensors if is_input(n)]
    shared = [n for n in inputs if f".{n}".endswith(f".{SHARED}")]
    if len(shared) == 1:  # an encoder and a decoder have one embedding, whatever is said of the output
        yield from ((n, shared[0]) for n in inputs if n.endswith(OF_SHARED))
    if not folder.config or _said(folder) is False:
        return
    kept = shared or inputs
    for name in folder.tensors:
        if len(kept) == 1 and is_output(name):
            yield name, kept[0]
        bias = f"{name.removesuffix('decoder.bias')}bias"
        if name.endswith("decoder.bias") and bias in folder.tensors:
            yield name, bias


def _said(folder: ModelFolder) -> bool | None:
    """Whether the configuration says that embeddings are tied; None where it leaves that to the model's class."""
    for config in (folder.config, folder.config.get("text_config")):
        if isinstance(config, dict) and TIED in config:
            return bool(config[TIED])
    return None


def _equal(one: Entry, other: Entry) -> bool:
    with one.file.open("rb") as first, other.file.open("rb") as second:
        first.seek(one.start)
        second.seek(other.start)
        size = one.end - one.start
        portions = (min(PORTION, size - at) for at in range(0, size, PORTION))
        return all(first.read(n) == second.read(n) for n in portions)
