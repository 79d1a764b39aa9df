"""How alike models are, where a method follows from that or wants models that differ.

A method says with `compares` what of its models counts: their "weights", or their "changes", which must not be alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from headstart.numerics.made import Made, Reads

    from .plans import Plan

ENTRIES = 1 << 22  # that are read of each model, of every tensor as many
ALIKE = 0.9  # cosine of two changes above which they count as copies


def compared(plan: Plan) -> Plan:
    """The plan with the models' cosines, where its method asks for them, and a warning of changes that are alike.

    They are those of the first entries of every tensor that the method merges; of all entries where these are few.
    """
    made = _asked(plan)
    if not made or plan.alike:
        return plan
    if not all(folder.is_made for folder in plan.folders):
        return plan
    of = str(made[0].method.compares)
    cosines, entries = _cosines(plan, made, of)
    alike = {
        "of": of, "cosines": [[round(float(v), 6) for v in row] for row in cosines], "entries": entries,
        "all_entries": sum(m.size for m in made),
    }  # fmt: skip
    pairs = [(i, j) for i, j in combinations(range(len(cosines)), 2) if of == "changes" and cosines[i, j] > ALIKE]
    warnings = [
        f"`{plan.models[i].name}` and `{plan.models[j].name}` changed alike (cosine {cosines[i, j]:.3f}), and "
        f"`{plan.method}` pushes copies apart: leave one out, or merge the two by `linear` first"
        for i, j in pairs
    ]
    return replace(plan, alike=alike, warnings=(*plan.warnings, *warnings))


def bytes_to_compare(plan: Plan) -> int:
    """What `compared` reads."""
    from headstart.io.safetensors_files import WIDTHS

    made = _asked(plan)
    parts = [(m, p) for m in made for p in (*m.tuned, *([m.base] if m.method.compares == "changes" else [])) if p]
    return sum(_count(m, made) * WIDTHS[p.dtype] for m, p in parts)


def _asked(plan: Plan) -> list[Made]:
    """The tensors of all models whose method compares them; where several methods do, those of the first's sort."""
    found = [m for m in plan.made if hasattr(m.method, "compares") and 1 < len(m.tuned) == len(plan.models)]
    return [m for m in found if m.method.compares == found[0].method.compares]


def _count(one: Made, made: Sequence[Made]) -> int:
    return min(one.size, max(1, ENTRIES // len(made)))


def _cosines(plan: Plan, made: Sequence[Made], of: str) -> tuple[Any, int]:
    """(models, models) float64, and of how many entries; 0 where a model has no length."""
    from headstart.io.adapted import reader

    count, entries = len(plan.models), 0
    inner = np.zeros((count, count))
    with ExitStack() as stack:
        readers = [stack.enter_context(reader(f)) for f in plan.folders]
        for one in made:
            for found in _read(one, readers, of, _count(one, made)):
                inner += found @ found.T
                entries += found.shape[1]
    lengths = np.sqrt(inner.diagonal())
    scale = np.where(lengths > 0, lengths, 1)
    return np.clip(inner / np.outer(scale, scale), -1, 1), entries


def _read(made: Made, readers: Sequence[Reads], of: str, count: int) -> Iterator[Any]:
    """(models, entries) float64, piece by piece: the first entries of the models' weights or changes."""
    from headstart.numerics.made import PIECE, Room, Tensors

    tensors, room = Tensors(made, readers), Room()
    for start in range(0, count, PIECE):
        stop = min(start + PIECE, count)
        found = np.stack([tensors.floats(p, start, stop, room, "one", np.float64).copy() for p in made.tuned])
        yield found - tensors.floats(made.base, start, stop, room, "base", np.float64) if of == "changes" else found
