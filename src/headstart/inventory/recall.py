"""Recall: what the bank knows of targets like this one, and which sources did well there.

What `solve` recalls are validation figures alone. It puts sources in another order and may have features computed
beforehand; it excludes nothing. `similar` is for people, and tells how runs ended too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from headstart.core import METRICS, Refused, Source, Target

from .database import Database
from .documents import load

if TYPE_CHECKING:
    import numpy as np

    from headstart.numerics.signatures import Reference

    Array = np.ndarray[Any, Any]

SOURCES_KEPT = 10
SYSTEMS_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Recalled:
    """A past target. sources: (identity, best validation figure there), best first; near: see `numerics.signatures`."""

    target: str
    name: str
    metric: str
    similarity: float
    near: bool
    sources: tuple[tuple[str, float], ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "name": self.name,
            "metric": self.metric,
            "similarity": self.similarity,
            "near": self.near,
            "sources": [list(pair) for pair in self.sources],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A system's best figure on the validation rows of a past target, with its 95 % interval; None where none was kept.

    rows: behind the figure.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    rows: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a run ended. verdict: None for one that was cut. of: the system with a source that it is the verdict of,
    against the best without one; None where there was no such candidate, or it is not known.
    """

    verdict: str | None
    of: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Past:
    """A past target, and what was tried there. systems: best first, those without a source among them; verdicts: how
    its runs ended, latest first.
    """

    target: str
    name: str
    metric: str
    similarity: float
    near: bool
    systems: tuple[Tried, ...]
    verdicts: tuple[Ended, ...]


def signature_of(target: Target) -> Array | None:
    """The target's place among others, from its labelled rows; None for a modality without signatures."""
    from headstart.io.images import RawRows
    from headstart.numerics.signatures import BLOCKS, signature

    if target.modality not in BLOCKS or not len(target.labelled):
        return None
    rows, task = target.labelled, target.task
    return signature(RawRows(rows.inputs), rows.labels, task.type, target.modality, task.classes)


def reference(modality: str) -> Reference:
    """The reference table that ships with this version of the signatures."""
    return references(modality)[max(references(modality))]


@cache
def references(modality: str) -> dict[int, Reference]:
    """The tables of all versions, by the length of their signatures: a bank keeps those of older ones."""
    import json
    from importlib import resources

    from headstart.numerics.signatures import SIGNATURE_VERSION, Reference

    found = {}
    for version in range(1, SIGNATURE_VERSION + 1):
        name = f"reference_v{version}.json"
        tables = json.loads(resources.files("headstart.inventory").joinpath(name).read_text(encoding="utf-8"))
        if modality not in tables["modalities"]:
            raise unsigned(modality)
        table = Reference.from_dict(tables["modalities"][modality])
        found[len(table.mean)] = table
    return found


def unsigned(modality: str) -> Refused:
    """Why a target has no place among others."""
    from headstart.numerics.signatures import BLOCKS

    return Refused(
        f"targets of the modality `{modality}` have no signature",
        where="recall",
        fix=f"this works for: {', '.join(sorted(BLOCKS))}",
    )


def similarity(a: Array, b: Array, modality: str) -> float:
    """How alike two signatures of one modality are, in [-1, 1], by the blocks of the older one's version."""
    from headstart.numerics import signatures

    shorter = min(len(a), len(b))
    return signatures.similarity(a[:shorter], b[:shorter], references(modality)[shorter])


def near(a: Array, b: Array, modality: str) -> bool:
    """Whether two targets are more alike than nine in ten pairs of the reference of the older one's version."""
    return similarity(a, b, modality) > references(modality)[min(len(a), len(b))].near


def stored(connection: Any, modality: str) -> dict[str, Array]:
    """The newest signature of each past target of the modality that this version can read, by fingerprint."""
    import numpy as np
    from sqlalchemy import select

    from .tables import signatures, targets

    query = (
        select(signatures.c.fingerprint, signatures.c.vector)
        .join(targets, targets.c.fingerprint == signatures.c.fingerprint)
        .where(targets.c.modality == modality)
        .order_by(signatures.c.version)
    )
    found = ((fingerprint, np.frombuffer(vector, dtype="<f8")) for fingerprint, vector in connection.execute(query))
    return {fingerprint: vector for fingerprint, vector in found if len(vector) in references(modality)}


def recall(database: Database, signature: Array, task_type: str, modality: str) -> list[Recalled]:
    """Past targets of this task type and modality, most similar first, by signatures of this version and older ones."""
    with database.reading() as connection:
        return [
            Recalled(**one, sources=tuple((b.name, b.value) for b in _best(connection, one["target"], one["metric"])))
            for one in _alike(connection, signature, task_type, modality)
        ]


def similar(database: Database, signature: Array, task_type: str, modality: str) -> list[Past]:
    """Past targets, most similar first, with the systems that did best there and how the runs ended."""
    from sqlalchemy import select

    from .tables import runs

    found = []
    with database.reading() as connection:
        for one in _alike(connection, signature, task_type, modality):
            systems = _best(connection, one["target"], one["metric"], systems=True)[:SYSTEMS_SHOWN]
            query = select(runs.c.verdict, runs.c.document).where(runs.c.target == one["target"])
            ended = connection.execute(query.order_by(runs.c.at.desc()))
            verdicts = tuple(Ended(verdict=verdict, of=_candidate(document)) for verdict, document in ended)
            found.append(Past(**one, systems=systems, verdicts=verdicts))
    return found


def _candidate(document: str) -> str | None:
    """The name of the system that a run's verdict is of."""
    candidate = load(document, "the bank")["summary"].get("candidate")
    return str(candidate["name"]) if candidate else None


def _alike(connection: Any, signature: Array, task_type: str, modality: str) -> list[dict[str, Any]]:
    """The fields that `Recalled` and `Past` share, most similar first."""
    from sqlalchemy import select

    from .tables import targets

    if len(signature) not in references(modality):
        return []  # not of a length that any version writes
    past = stored(connection, modality)
    query = (
        select(targets.c.fingerprint, targets.c.name, targets.c.metric)
        .where(targets.c.task == task_type, targets.c.modality == modality)
        .order_by(targets.c.added, targets.c.fingerprint)
    )
    found = [
        {
            "target": fingerprint,
            "name": name,
            "metric": metric,
            "similarity": similarity(signature, past[fingerprint], modality),
            "near": near(signature, past[fingerprint], modality),
        }
        for fingerprint, name, metric in connection.execute(query).all()
        if fingerprint in past
    ]
    return sorted(found, key=lambda one: -one["similarity"])


def order(sources: Sequence[Source], recalled: Sequence[Recalled]) -> tuple[Source, ...]:
    """The same sources, those first that did well on near targets; without any, the caller's order.

    A source gets the similarity of each near target times its place there: 1 for the best of n, 1/n for the last.
    """
    credit: dict[str, float] = {}
    for past in recalled:
        if past.near:
            for place, (identity, _) in enumerate(past.sources):
                credit[identity] = credit.get(identity, 0.0) + past.similarity * (1 - place / len(past.sources))
    return tuple(sorted(sources, key=lambda s: -credit.get(s.identity, 0.0)))


def _best(connection: Any, target: str, metric: str, *, systems: bool = False) -> tuple[Tried, ...]:
    """Each source, or each system by name, with its best validation figure on the target, best first."""
    from sqlalchemy import select

    from .tables import runs, trials

    query = (
        select(trials.c.source, trials.c.document, trials.c.valid)
        .join(runs, runs.c.id == trials.c.run)
        .where(runs.c.target == target, trials.c.valid.is_not(None))
        .order_by(runs.c.at, trials.c.run, trials.c.number)
    )
    sign = METRICS[metric].sign if metric in METRICS else 1
    best: dict[str, Tried] = {}
    for source, document, value in connection.execute(query):
        held = load(document, "the bank")
        name = held["name"] if systems else source
        if name is not None and (name not in best or sign * value > sign * best[name].value):
            known = held.get("valid") or {}
            low, high = (end if end is not None and isfinite(end) else None for end in map(known.get, ("low", "high")))
            best[name] = Tried(name=name, value=value, low=low, high=high, rows=known.get("rows"))
    ranked = sorted(best.values(), key=lambda one: -sign * one.value)
    return tuple(ranked[:SOURCES_KEPT])
