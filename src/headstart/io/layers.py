"""Layers and poolings of one source: each way to read it is a source of its own, and all share one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from headstart.core import Source, Unfit

from .recipes import POOLINGS, Recipe

Layers = Literal["all"] | Sequence[int]
IMAGE_POOLINGS = ("cls", "mean", "max")


def taps(source: Source, recipe: Recipe, layers: Layers | None, poolings: Sequence[str] | None) -> list[Source]:
    """The source as it is, and one more source for each layer and pooling asked for, which give features alone.

    layers: their numbers, 0 for the embeddings and negative ones from the end; None for the last. poolings: names as
    sentence-transformers has them (`cls`, `mean`, `max`, …); None for the source's own. What follows pooling in a
    sentence-transformers folder (dense layers, normalisation) belongs to its own layer and pooling, and is left out.
    Raises `Unfit` for a layer or a pooling that the source has not.
    """
    if layers is None and poolings is None:
        return [source]
    last = _last(source, recipe)
    chosen = list(range(last + 1)) if layers == "all" else [last] if layers is None else [int(n) for n in layers]
    chosen = [n + last + 1 if n < 0 else n for n in chosen]
    if wrong := [n for n in chosen if not 0 <= n <= last]:
        raise Unfit(
            f"`{source.name}` has no layer {wrong[0]}; its layers are 0 (embeddings) to {last}",
            where="the layers asked for",
            fix=f"name some of 0 to {last}, or `all`",
        )
    modes = list(poolings) if poolings is not None else ["mean" if m == "pooler" else m for m in recipe.pooling]
    able = IMAGE_POOLINGS if recipe.modality == "image" else tuple(POOLINGS.values())
    if recipe.modality == "image" and not recipe.tokens_before:
        able = IMAGE_POOLINGS[1:]  # no token stands for the image
    if unknown := [m for m in modes if m not in able]:
        raise Unfit(
            f"`{source.name}` cannot be pooled by `{unknown[0]}`",
            where="the poolings asked for",
            fix=f"use some of {', '.join(able)}",
        )
    own = recipe.modality == "text" and not recipe.after and recipe.pooling
    found = [source]
    for layer in dict.fromkeys(chosen):
        for mode in dict.fromkeys(modes):
            if not (layer == last and own == (mode,)):
                found.append(_tap(source, recipe, layer, mode))
    return found


def tapped(recipe: Recipe, source: Source) -> Recipe:
    """The recipe of a source's folder, with the layer and pooling that the source says."""
    tap = source.facts.get("tap")
    if tap is None:
        return recipe
    layer, mode = int(tap["layer"]), str(tap["pooling"])
    width = _width(recipe, layer)
    return replace(recipe, layer=layer, pooling=(mode,), after=(), head=None, word_head=None, width=width)


def _tap(source: Source, recipe: Recipe, layer: int, mode: str) -> Source:
    said: dict[str, Any] = {"layer": layer, "pooling": mode, "of": source.identity}
    width = _width(recipe, layer)
    return replace(
        source,
        name=f"{source.name}@{layer}:{mode}",
        identity=hashlib.sha256(f"{source.identity} layer {layer} {mode}".encode()).hexdigest(),
        gives=("features",),
        facts={**source.facts, "pooling": mode, "normalise": False, "width": width, "labels": None, "tap": said},
    )


def _last(source: Source, recipe: Recipe) -> int:
    """The number of the last layer; of a network in stages, the number of stages."""
    for name in ("num_hidden_layers", "n_layers"):
        if isinstance(recipe.config.get(name), int):
            return int(recipe.config[name])
    if isinstance(recipe.config.get("depths"), list):
        return len(recipe.config["depths"])
    raise Unfit(
        f"how many layers `{source.name}` has is not in its configuration",
        where="the layers asked for",
        fix="rank it without layers, in a call of its own",
    )


def _width(recipe: Recipe, layer: int) -> int:
    """Of one layer's output; stages of an image network widen, each from the one before."""
    config, depths = recipe.config, recipe.config.get("depths")
    if recipe.modality == "image" and isinstance(depths, list):
        if isinstance(config.get("embed_dim"), int):  # the output of a stage is what the next one takes
            return int(config["embed_dim"] * 2 ** min(layer, len(depths) - 1))
        sizes = config.get("hidden_sizes")
        if isinstance(sizes, list) and len(sizes) == len(depths):
            return int(sizes[layer - 1] if layer else config.get("embedding_size", sizes[0]))
    for name in ("hidden_size", "dim", "d_model"):
        if isinstance(config.get(name), int):
            return int(config[name])
    return recipe.width
