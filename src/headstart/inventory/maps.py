"""Embedding space maps: what a source would say of a text, from what its base says.

Schulte, Hamborg and Akbik, "Less is More: Parameter-Efficient Selection of Intermediate Tasks for Transfer Learning",
EMNLP 2024. There each map is a linear layer, trained by gradient steps; here it is the ridge solution, with an
intercept, and carries a figure from rows that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.core import Problem, Refused, Rows, Source, Unfit

from .database import Database
from .readings import Reading, arrays_of, distinct, keep, newest, on, opened_for

if TYPE_CHECKING:
    import numpy as np

    from headstart.numerics.space_maps import SpaceMap

    Array = np.ndarray[Any, Any]

MOST_ROWS = 2000


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Mapped:
    """A source as a map from a base's features to its own.

    source, base: identities; the base's says its weights, pooling and length. r2: share of the source's features that
    the map explains on rows that it was not fitted on. rows: that it was fitted on; on: a hash of them.
    """

    source: str
    base: str
    map: SpaceMap
    r2: float
    rows: int
    on: str


def made(
    database: Database, sources: Sequence[Source], base: Source, rows: Rows, most: int = MOST_ROWS
) -> tuple[list[Mapped], list[tuple[str, Problem]]]:
    """Fits and keeps a map from the base to each source; those that cannot be mapped are listed with the reason.

    rows: no label is read; of equal inputs the first counts, and at most so many are drawn, by their hashes. Raises a
    `Problem` where the base cannot be read, or the rows are too few.
    """
    from headstart.numerics.space_maps import FOLDS, LEAST_ROWS, fit_map

    drawn = distinct(rows, "headstart map", most)
    if len(drawn) < LEAST_ROWS:
        raise Unfit(
            f"{len(drawn)} different rows are too few for a map",
            where=f"a map from `{base.name}`",
            fix=f"give {LEAST_ROWS} at least, and better a thousand",
        )
    folds = [at % FOLDS for at in range(len(drawn))]
    here, backend = _features(base, drawn)
    found: list[Mapped] = []
    failed: list[tuple[str, Problem]] = []
    for source in sources:
        try:
            if source.identity == base.identity:
                raise Refused("it is the base, which needs no map", where=f"source `{source.name}`", fix="leave it out")
            fitted = fit_map(here, _features(source, drawn)[0], folds)
        except Problem as problem:
            failed.append((source.name, problem))
            continue
        facts = {
            "r2": fitted.r2,
            "rows": fitted.rows,
            "penalty": fitted.penalty,
            "on": on(drawn),
            "backend": backend,
            "base": {
                "name": base.name,
                "weights": base.weights,
                "pooling": base.facts.get("pooling"),
                "max_length": base.facts.get("max_length"),
            },
        }
        arrays = {"weight": fitted.map.weight, "bias": fitted.map.bias}
        reading = keep(database, "map", source.identity, base.identity, facts, arrays)
        found.append(_mapped(reading, fitted.map))
    return found, failed


def kept(database: Database, base: Source, sources: Sequence[str] | None = None) -> Iterator[Mapped]:
    """The newest map from this base to each source, one in memory at a time. sources: identities; None for all.

    Raises `Refused` where the bank has no map from this base, and says from which it has some.
    """
    held = newest(database, "map", space=base.identity)
    if not held:
        raise _no_map(database, base)
    wanted = None if sources is None else set(sources)
    return (_loaded(database, one) for one in held if wanted is None or one.source in wanted)


def _loaded(database: Database, reading: Reading) -> Mapped:
    from headstart.numerics.space_maps import SpaceMap

    arrays = arrays_of(database, reading)
    return _mapped(reading, SpaceMap(arrays["weight"], arrays["bias"]))


def _mapped(reading: Reading, space_map: SpaceMap) -> Mapped:
    facts = reading.facts
    return Mapped(
        source=reading.source, base=reading.space, map=space_map, r2=facts["r2"], rows=facts["rows"], on=facts["on"]
    )


def _features(source: Source, rows: Rows) -> tuple[Array, str]:
    with opened_for(source, rows, "features") as here:
        return here.features(rows.inputs), here.backend()


def _no_map(database: Database, base: Source) -> Refused:
    others = {reading.space: reading.facts["base"] for reading in newest(database, "map")}
    same = [said for said in others.values() if said["weights"] == base.weights]
    if same:  # the weights are known, and are read in another way
        ways = [f"pooled by {s['pooling']}, {s['max_length']} tokens at most" for s in same]
        mine = f"pooled by {base.facts.get('pooling')}, {base.facts.get('max_length')} tokens at most"
        what = f"maps from these weights are of another reading of them ({'; '.join(ways)}; this is {mine})"
    elif others:
        named = ", ".join(f"`{said['name']}` ({space[:12]})" for space, said in others.items())
        what = f"there is no map from `{base.name}` ({base.id}); there are some from {named}"
    else:
        what = f"there is no map from `{base.name}`"
    return Refused(
        what, where=database.where, fix=f"make some: headstart inventory map MODELS --base {base.name} --on ROWS"
    )
