"""Targets as tasks for an encoder: anchor-Fisher moments of labelled rows, kept so that later ones can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.core import Known, Refused, Source, Target

from .database import Database
from .readings import arrays_of, distinct, keep, newest, opened_for

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MOST_ROWS = 1000  # labelled rows of a target


def embedded(database: Database, target: Target, encoder: Source) -> Array:
    """The target's vector; of one that is known to the bank the kept one, else it is made and kept."""
    from headstart.numerics.anchor_fisher import anchor_fisher_moments

    space = _space(encoder)
    for reading in newest(database, "task", space=space, sources=[target.fingerprint]):
        return arrays_of(database, reading)["moments"]
    if target.task.type == "tagging":
        raise Refused(
            "a task of tags has no place among those of whole rows",
            where=f"`{target.name}`, as a task",
            fix="compare it by its signature: leave the encoder out",
        )
    rows = distinct(target.labelled, "headstart task", MOST_ROWS)
    with opened_for(encoder, rows, "features") as here:
        features = here.features(rows.inputs)
    assert rows.labels is not None  # of labelled rows
    made = anchor_fisher_moments(features, rows.labels, len(target.task.classes), target.task.type)
    facts = {"name": target.name, "rows": len(rows), "encoder": encoder.name}
    reading = keep(database, "task", target.fingerprint, space, facts, {"moments": made})
    return arrays_of(database, reading)["moments"]  # as it will be read, in float32


def known(
    database: Database, past: Sequence[str], target: Target, encoder: Source, values: Array | None = None
) -> Known:
    """Similarities of the target to past ones and among these; NaN for those that were not embedded."""
    import numpy as np

    from headstart.numerics.anchor_fisher import task_similarities

    own = embedded(database, target, encoder)
    held = {reading.source: reading for reading in newest(database, "task", space=_space(encoder), sources=past)}
    there = [at for at, fingerprint in enumerate(past) if fingerprint in held]
    near, between = np.full(len(past), np.nan), np.full((len(past), len(past)), np.nan)
    if there:
        vectors = np.vstack([arrays_of(database, held[past[at]])["moments"] for at in there])
        near[there], between[np.ix_(there, there)] = task_similarities(own, vectors)
    return Known(near, values, between)


def _space(encoder: Source) -> str:
    from headstart.numerics.anchor_fisher import EMBEDDING_VERSION

    return f"{encoder.identity} v{EMBEDDING_VERSION}"
