"""Tensors that a folder stores twice though they are one, as an output embedding that is the input embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

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
