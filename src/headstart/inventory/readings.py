"""Readings: what was read off a source once and is used without opening it again, as arrays in a named space.

A reading of one space says nothing beside one of another: a map holds for one base, as it reads texts; decisions for
one set of probes. Each is known by a hash of all that it holds. Of two of one source in one space the newest counts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from headstart.core import Gives, Refused, Rows, Source, Unreadable

from .database import Database
from .documents import dump, load
from .files import unreadable

if TYPE_CHECKING:
    import numpy as np

    from headstart.io.encoders import OpenedSource

    Array = np.ndarray[Any, Any]

Kind = Literal["map", "decisions", "instances", "task"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is known of a reading beside its arrays. source: identity, name, or a target's fingerprint. facts: JSON."""

    key: str
    source: str
    space: str
    facts: Mapping[str, Any]


@contextmanager
def opened_for(source: Source, rows: Rows, gift: Gives) -> Iterator[OpenedSource]:
    """The source, to be asked for this about the rows. Raises `Refused` where it cannot say, or reads other inputs."""
    from headstart.io.sources import opened

    if gift not in source.gives:
        raise Refused(
            f"it gives {', '.join(source.gives) or 'nothing'}, and is asked for {gift}",
            where=f"source `{source.name}`",
            fix="leave it out",
        )
    if source.modality not in rows.inputs.column_names:
        raise Refused(
            f"it reads {source.modality}s, and the rows hold {', '.join(rows.inputs.column_names)}",
            where=f"source `{source.name}`",
            fix=f"give rows of {source.modality}s",
        )
    try:
        with opened(source) as here:
            yield here
    except OSError as error:
        raise unreadable(source, error) from error


def distinct(rows: Rows, salt: str, most: int | None = None) -> Rows:
    """Each input once, in an order that depends on the inputs alone; the first so many of them. Words become texts."""
    import pyarrow as pa

    from headstart.io.images import RawRows
    from headstart.numerics.hashing import unit

    places = {name: at for at, name in reversed(list(enumerate(rows.content)))}
    drawn = rows.take([places[name] for name in sorted(places, key=lambda name: (unit(name, salt), name))[:most]])
    if "tokens" not in rows.inputs.column_names:
        return drawn
    texts = pa.table({"text": pa.array(RawRows(drawn.inputs).texts, pa.string())})
    return replace(drawn, inputs=texts)  # a source that is given words speaks of each


def on(rows: Rows) -> str:
    """A hash of the inputs, whatever their order."""
    return hashlib.sha256("\n".join(sorted(rows.content)).encode()).hexdigest()


def keep(
    database: Database, kind: Kind, source: str, space: str, facts: Mapping[str, Any], arrays: Mapping[str, Array]
) -> Reading:
    """Keeps float32 arrays; the same again is the same reading, which then counts as the newest."""
    import numpy as np
    from safetensors.numpy import save

    from .tables import readings

    held = save({name: np.ascontiguousarray(a, dtype=np.float32) for name, a in arrays.items()})
    document = dump(dict(facts))
    key = _key(kind, source, space, document, held)
    row = {"key": key, "kind": kind, "source": source, "space": space, "document": document, "arrays": held}
    with database.writing() as connection:
        database.insert_or_replace(connection, readings, [{**row, "added": time.time()}])
    return Reading(key=key, source=source, space=space, facts=load(document, database.where))


def newest(
    database: Database, kind: Kind, *, space: str | None = None, sources: Sequence[str] | None = None
) -> list[Reading]:
    """The newest reading of each source in each space, oldest first, without arrays."""
    from sqlalchemy import select

    from .tables import readings as t

    query = select(t.c.key, t.c.source, t.c.space, t.c.document).where(t.c.kind == kind).order_by(t.c.added, t.c.key)
    if space is not None:
        query = query.where(t.c.space == space)
    wanted = None if sources is None else set(sources)
    found: dict[tuple[str, str], Reading] = {}
    with database.reading() as connection:
        for key, source, there, document in connection.execute(query):
            if wanted is None or source in wanted:
                found.pop((source, there), None)
                facts = load(document, database.where)
                found[source, there] = Reading(key=key, source=source, space=there, facts=facts)
    return list(found.values())


def arrays_of(database: Database, reading: Reading) -> dict[str, Array]:
    """The arrays of a reading. Raises `Unreadable` where they are not what was kept."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpacked
    from sqlalchemy import select

    from .tables import readings as t

    query = select(t.c.kind, t.c.source, t.c.space, t.c.document, t.c.arrays).where(t.c.key == reading.key)
    with database.reading() as connection:
        row = connection.execute(query).first()
    try:
        if row is None or _key(*row) != reading.key:
            raise ValueError("its bytes are not those that were kept")
        return dict(unpacked(bytes(row.arrays)))
    except (ValueError, SafetensorError) as error:
        raise Unreadable(
            f"a reading of `{reading.source[:12]}` is damaged: {error}",
            where=database.where,
            fix="make it again; `headstart inventory --help` lists how: map, ask or sample",
        ) from error


def _key(kind: str, source: str, space: str, document: str, held: bytes) -> str:
    made = hashlib.sha256(dump([kind, source, space, document]).encode())
    made.update(held)
    return made.hexdigest()
