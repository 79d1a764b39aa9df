"""Whether the base is what the models were fine-tuned from: by a few of their weights, and by what their files say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Made

    from .plans import Plan

FAR = 0.5  # size of a change over that of the base; fine-tunes lie far below
MATRICES = 8
ENTRIES = 1 << 12  # that are read of each of them
FEWEST = 1 << 10  # in all, of which something can be said


def doubted(plan: Plan) -> Plan:
    """The plan, with a warning where the base can hardly be that of all models: some thousand weights are read."""
    if plan.base is None:
        return plan
    return replace(plan, warnings=(*plan.warnings, *_far(plan, plan.base), *_told_otherwise(plan, plan.base)))


def _far(plan: Plan, base: ModelFolder) -> Iterator[str]:
    found = {name: ratio for name, ratio in _ratios(plan).items() if ratio > FAR}
    if found:
        named = ", ".join(f"`{name}` by {ratio:.2g}" for name, ratio in found.items())
        yield (
            f"the base `{base.name}` is hardly what these were fine-tuned from: they differ from it, in a sample of "
            f"weights, by this many times its own size, where fine-tunes stay below {FAR}: {named}; check --base"
        )


def _ratios(plan: Plan) -> dict[str, float]:
    """By model, the size of its change over that of the base, in entries from the middle of the largest matrices."""
    import numpy as np

    from headstart.io.adapted import reader
    from headstart.numerics.made import Room, Tensors

    fit = [m for m in plan.made if len(m.shape) > 1 and _is_of_base(m)]
    sample = sorted(fit, key=lambda m: (-m.size, m.name))[:MATRICES]
    if sum(min(ENTRIES, m.size) for m in sample) < FEWEST:
        return {}
    names = [f.name for f in plan.folders]
    used = {p.model for m in sample for p in (m.base, *m.tuned) if p is not None}
    if not all(plan.folders[i].is_made for i in used):
        return {}
    changes: dict[str, float] = {}
    sizes: dict[str, float] = {}
    with ExitStack() as stack:
        readers = {i: stack.enter_context(reader(plan.folders[i])) for i in sorted(used)}
        room = Room()
        for made in sample:
            tensors, count = Tensors(made, readers), min(ENTRIES, made.size)
            start = (made.size - count) // 2
            before = tensors.floats(made.base, start, start + count, room, "base", np.float64)
            for part in made.tuned:
                change = tensors.floats(part, start, start + count, room, "tuned", np.float64) - before
                name = names[part.model]
                changes[name] = changes.get(name, 0.0) + float(change @ change)
                sizes[name] = sizes.get(name, 0.0) + float(before @ before)
    return {name: sqrt(change / sizes[name]) for name, change in changes.items() if sizes[name]}


def _is_of_base(made: Made) -> bool:
    """Whether a tensor is merged as changes of the base's, row by row."""
    parts = (made.base, *made.tuned)
    plain = all(p is not None and p.rows is None for p in parts)
    return plain and made.method is not None and made.method.needs.same_base


def _told_otherwise(plan: Plan, base: ModelFolder) -> Iterator[str]:
    """Of models that know their base by its fingerprint."""
    from headstart.io.lineage import CHANGED, MERGED, origin

    known = {m.name: said for m in plan.models if (said := origin(m)) is not None and said["weights"] is not None}
    if not known or not any(_is_of_base(m) for m in plan.made):
        return
    mark = weights_of(base)
    for name, said in known.items():
        if mark is not None and said["weights"] != mark:
            whose = f"`{said['base']}`" if said["base"] else "a model"
            yield (
                f"`{name}` was made from {whose} with other weights than the base `{base.name}`, as its "
                f"`{CHANGED if said['by'] == 'delta' else MERGED}` says; check --base"
            )


def weights_of(base: ModelFolder) -> str | None:
    """Fingerprint of a base's weights, as a delta has it; None for one with an adapter, or that is still to be made.

    It is kept, so that a base that nobody changed is read for it once.
    """
    from headstart.io import deltas, model_folders
    from headstart.io.places import hash_folder

    if base.adapter is not None or not base.is_made:
        return None
    whole = model_folders.read(base.where)
    try:
        return deltas.fingerprint(whole, cache=hash_folder())
    except OSError:  # a place that nothing can be kept in
        return deltas.fingerprint(whole)
