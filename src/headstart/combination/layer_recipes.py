"""Recipes of layers, carried out: slices of models one on top of the other, and layers swapped between two.

Swapping: Bandarkar et al., "Layer Swapping for Zero-Shot Cross-Lingual Transfer in Large Language Models", ICLR 2025.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Unfit

from .accounts import left_out
from .plans import Choice, Fate, Plan, Planner, check
from .recipes import LayerRecipe, LayerSlice, Swap
from .references import Folders
from .slices import LAYER, Slice, Source, config_of, layers_of
from .stacking import apart, stacked
from .tokens import Asked, agreed

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Kind, Made


def plan_of(said: LayerRecipe, place: Path, *, seed: int) -> Plan:
    """Raises `Refused` where the models do not fit together, `Unfit` for layers that they have not."""
    folders = Folders(place)
    base = folders.of(said.base) if said.base is not None else None
    parts = said.slices if said.swap is None else _swapped(said.swap, folders)
    methods = [_method_of(part) for part in parts]
    named = [_slice(p, m, folders, base, said.dtype) for p, (_, m) in zip(parts, methods, strict=True)]
    slices = apart(named)

    def way(number: int, sources: Sequence[Source], *_: int) -> Planner:
        part, root = parts[number], slices[number].base is not None
        sliced = [s.folder for s in sources]
        planner = OneModel if part.method is None and len(part.sources) == 1 else Planner
        choose = _chosen(part, *methods[number])
        return planner(
            sliced, sliced[0] if root else None, sliced[1 if root else 0], choose, dtype=said.dtype, words=spoken
        )

    models = folders.all()
    spoken = agreed(models, Asked(named[0].sources[0][0], "refuse", base))
    stack = stacked(slices, way)
    donor = next(f for one in slices for f, _, _ in one.sources if f.name == stack.donor.name)
    nowhere = Fate("dropped", "in no slice")
    lost = left_out(stack.made, stack.folders, folders.all(), stack.lost, nowhere)
    return Plan(
        stack.folders, donor, base, tuple(f for f in folders.all() if f is not base),
        "slices" if said.swap is None else "swap", said.model_dump(mode="json", exclude_defaults=True), stack.made,
        stack.fates, lost, stack.labels, said.dtype, seed,
        (*stack.warnings, *(spoken.warned([donor]) if spoken is not None else ())),
        config_of(donor, slices, stack.layers), words=spoken,
    )  # fmt: skip


def _method_of(part: LayerSlice) -> tuple[Kind, Any]:
    from .merging import made_of

    return made_of(part.method or "linear", part.settings)


def _slice(part: LayerSlice, method: Any, folders: Folders, base: ModelFolder | None, dtype: str | None) -> Slice:
    models = [folders.of(m) for m in part.sources]
    check(models, base, method, "average", "refuse", dtype)
    root = base if method.needs.same_base else None
    return Slice([(f, {}, part.layers) for f in (*([root] if root else []), *models)], root, {})


def _chosen(part: LayerSlice, kind: Kind, method: Any) -> Choice:
    """A slice's method; its scale is of its layers, and not of embeddings and heads that lie at its side."""
    from .weighting.linear import Linear

    scaled = Linear(weights=(part.scale,), normalize=False)

    def choose(name: str, *_: Any) -> tuple[Kind, Any]:
        mine = LAYER.search(name) is not None and any(fnmatchcase(name, p) for p in part.scaled)
        return ("weighting", scaled) if part.scale != 1 and mine else (kind, method)

    return choose


class OneModel(Planner):
    """Plans a slice of one model: what is not scaled, rounded or adapted is copied, so that no bit changes."""

    def made(self) -> Iterator[Made]:
        for one in super().made():
            plain = one.tuned and one.tuned[0].dtype == one.dtype and one.tuned[0].rows is None
            scale = 1.0 if one.method is None or one.method.normalize else one.method.weights[0]
            if one.method is not None:
                rule = "" if scale == 1 else f" times {scale:g}"
                self.fates[one.name] = Fate("copied", f"of `{self.donor.name}`{rule}")
            yield dataclasses.replace(one, method=None) if plain and scale == 1 else one


def _swapped(swap: Swap, folders: Folders) -> list[LayerSlice]:
    """The slices that a swap stands for, from the bottom up."""
    layers = layers_of(folders.of(swap.outer).tensors)
    bottom, top = swap.bottom + swap.transition, layers - swap.top - swap.transition
    if bottom > top:
        raise Unfit(
            f"{swap.bottom} layers below, {swap.top} above and {swap.transition} at each transition are more than the "
            f"{layers} that there are",
            where="recipe, `swap`",
            fix="choose fewer",
        )
    ranges = [
        (0, swap.bottom, (swap.outer,)), (swap.bottom, bottom, (swap.outer, swap.inner)), (bottom, top, (swap.inner,)),
        (top, layers - swap.top, (swap.outer, swap.inner)), (layers - swap.top, layers, (swap.outer,)),
    ]  # fmt: skip
    return [LayerSlice(layers=(a, b), models=list(models)) for a, b, models in ranges if a < b]
