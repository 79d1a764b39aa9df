"""Instances of what an expert was trained on, as an encoder sees them: kept so that new inputs can find their expert.

No text is kept; but much of a short one can be guessed from its features. Centres of clusters are there to be kept
instead where that matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.core import Refused, Rows, Source, Unfit

from .database import Database
from .readings import arrays_of, distinct, keep, newest, on, opened_for

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

LEAST_ROWS = 20  # different inputs of an expert
CLUSTERED = 100  # rows for each centre that is asked for, at most, are read


def sample(database: Database, source: Source, rows: Rows, encoder: Source, most: int, *, centres: bool) -> int:
    """Keeps features of at most so many rows, drawn by their hashes, or as many centres of them; how many there are."""
    from headstart.numerics.votes import centres as centres_of

    if most < LEAST_ROWS:
        raise Unfit(f"a sample of {most}", where="most", fix=f"keep {LEAST_ROWS} or more; 100 is usual")
    drawn = distinct(rows, "headstart instances", most * CLUSTERED if centres else most)
    if len(drawn) < LEAST_ROWS:
        raise Unfit(
            f"{len(drawn)} different rows are too few to know `{source.name}` by",
            where=f"instances of `{source.name}`",
            fix=f"give {LEAST_ROWS} at least, and better 100",
        )
    with opened_for(encoder, drawn, "features") as here:
        features = here.features(drawn.inputs)
    held = centres_of(features, most) if centres else features
    facts = {"rows": len(drawn), "centres": centres, "on": on(drawn), "encoder": encoder.name}
    keep(database, "instances", source.identity, encoder.identity, facts, {"instances": held})
    return len(held)


def kept(database: Database, encoder: Source, sources: Sequence[Source]) -> dict[str, Array]:
    """The newest instances of each of these sources that has some, by identity. Raises `Refused` where none has."""
    held = newest(database, "instances", space=encoder.identity, sources=[s.identity for s in sources])
    if not held:
        others = {r.space: r.facts["encoder"] for r in newest(database, "instances")}
        named = ", ".join(f"`{name}` ({space[:12]})" for space, name in others.items())
        raise Refused(
            f"no source has instances by `{encoder.name}`" + (f"; there are some by {named}" if others else ""),
            where=database.where,
            fix=f"headstart inventory sample MODEL --encoder {encoder.name} --on ITS_ROWS",
        )
    return {reading.source: arrays_of(database, reading)["instances"] for reading in held}
