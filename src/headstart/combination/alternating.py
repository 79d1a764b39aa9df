"""Passes that see what goes into a layer once all before it is merged: looking and merging take turns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from headstart.core import Passes

if TYPE_CHECKING:
    import torch

LAYER = re.compile(r"^((?:.*?\.)?\d+)\.")

# of one model, at some tensors, with what is merged so far in place of its own
Look = Callable[[int, Sequence[str], "Mapping[str, torch.Tensor]"], dict[str, Passes]]
# of some tensors, from what each model's passes showed there
Merge = Callable[[Sequence[str], Sequence[Mapping[str, Passes]]], "Mapping[str, torch.Tensor]"]


def layers_of(tensors: Sequence[str], called: Sequence[str]) -> list[list[str]]:
    """Tensors by layer, in the order in which a pass calls them; what lies in none, and has no inputs, comes first.

    >>> layers_of(["words", "0.up", "0.bias", "1.up", "norm", "head"], ["0.up", "1.up", "head"])
    [['words', 'norm'], ['0.up', '0.bias'], ['1.up'], ['head']]
    """
    groups: dict[str, list[str]] = {"": [], **{_layer(n): [] for n in called}}
    for name in tensors:
        groups[_layer(name) if _layer(name) in groups else ""].append(name)
    return [names for names in groups.values() if names]


def _layer(name: str) -> str:
    found = LAYER.match(name)
    return found[1] if found else name


def in_turn(layers: Sequence[Sequence[str]], models: int, look: Look, merge: Merge) -> list[dict[str, Passes]]:
    """What each model's passes showed at every tensor, with all layers before that tensor's merged."""
    merged: dict[str, torch.Tensor] = {}
    seen: list[dict[str, Passes]] = [{} for _ in range(models)]
    for names in layers:
        found = [look(model, names, merged) for model in range(models)]
        merged |= merge(names, found)
        for every, some in zip(seen, found, strict=True):
            every |= some
    return seen
