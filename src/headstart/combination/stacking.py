"""Stacking: slices of models become one plan, each with its own way to merge, its layers after those before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.core import Refused

from .slices import Holds, Slice, Source, depths, layers_of, shifted, source

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Made

    from .plans import Fate, Planner

# how a slice is merged: its number, its sources, the number of its first layer, and how many it has
Way = Callable[[int, Sequence[Source], int, int], "Planner"]


@dataclass(frozen=True, eq=False, slots=True)
class Stack:
    """What the slices come to. donor: the first one's. The other parts are as in `Plan`."""

    folders: tuple[ModelFolder, ...]
    donor: ModelFolder
    made: tuple[Made, ...]
    fates: Mapping[str, Fate]
    lost: Mapping[tuple[str, str], Fate]
    labels: tuple[str, ...] | None
    warnings: tuple[str, ...]
    layers: int


def stacked(slices: Sequence[Slice], way: Way, holds: Holds | None = None) -> Stack:
    """holds: which names are of the module that is sliced, where there are several.

    Raises `Unfit` for a layer that a model lacks, `Refused` where the ends do not go together.
    """
    _check_ends(slices)
    layers = 0
    folders: list[ModelFolder] = []
    made: list[Made] = []
    planners: list[Planner] = []
    for number, one in enumerate(slices):
        ends = (number == 0, number == len(slices) - 1)
        sources = [source(f, p, r, layers, ends, holds) for f, p, r in one.sources]
        cut = one.sources[0][2]
        count = cut[1] - cut[0] if cut else layers_of(sources[0].names)
        planners.append(way(number, sources, layers, count))
        made += [shifted(m, len(folders)) for m in planners[-1].made()]
        folders += planners[-1].folders
        layers += count
    deep = depths([m.name for m in made])
    return Stack(
        tuple(folders),
        planners[0].donor,
        tuple(dataclasses.replace(m, depth=deep.get(m.name)) for m in made),
        {n: fate for p in planners for n, fate in p.fates.items()},
        {n: fate for p in planners for n, fate in p.lost.items()},
        planners[-1].labels,  # a head is of the last
        tuple(dict.fromkeys(w for p in planners for w in p.warnings)),
        layers,
    )


def joined(stacks: Sequence[Stack]) -> Stack:
    """Several modules as one; the first is the donor."""
    first, *rest = stacks
    for one in rest:
        first = Stack(
            (*first.folders, *one.folders),
            first.donor,
            (*first.made, *(shifted(m, len(first.folders)) for m in one.made)),
            {**first.fates, **one.fates},
            {**first.lost, **one.lost},
            first.labels or one.labels,
            tuple(dict.fromkeys((*first.warnings, *one.warnings))),
            first.layers + one.layers,
        )
    return first


def apart(slices: Sequence[Slice]) -> list[Slice]:
    """The slices as they are where embeddings are tied at both ends, or at none; else those of models that tie them
    have two, as in a merge of such models.
    """
    from headstart.io.tied import untied

    last = _models(slices[-1])
    if len({f.tied for f in (_models(slices[0])[0], *last) if f.config}) < 2:
        return list(slices)
    ends = {f.name: f for f in (*_models(slices[0]), *last)}
    two = dict(zip(ends, untied([*ends.values()]), strict=True))
    return [
        dataclasses.replace(
            one, sources=[(f if f is one.base else two.get(f.name, f), p, r) for f, p, r in one.sources]
        )
        for one in slices
    ]


def _models(one: Slice) -> list[ModelFolder]:
    """Of a slice, without its base, where there are others."""
    return [f for f, _, _ in one.sources if f is not one.base] or [f for f, _, _ in one.sources]


def _check_ends(slices: Sequence[Slice]) -> None:
    """The input embedding is the first model's and the output embedding the last one's: both are stored, or neither."""
    first, last = _models(slices[0])[0], _models(slices[-1])[0]
    if first.config and last.config and first.tied != last.tied:
        tied, other = (first, last) if first.tied else (last, first)
        raise Refused(
            f"`{tied.name}` has one embedding for input and output, and `{other.name}` has two",
            where="recipe, the first and the last slice",
            fix="take the first and the last slice of models of one architecture",
        )
