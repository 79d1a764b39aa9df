"""Sources in the bank: added, found by id or name, taken off the shelf. What is known of one is never overwritten."""

from __future__ import annotations

import time
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from headstart.core import Source, Unfit

from .database import Database
from .documents import column, dump, load, source_document, source_of
from .files import Entry, digests, listing


def add(database: Database, source: Source, cache: Path) -> None:
    """Puts a source on the shelf, in the place of what its folder held before; writes nothing if this is known.

    cache: folder of hashes of unchanged weights.
    """
    from sqlalchemy import insert, select, update

    from .tables import sources, trained

    files = listing(source.where, _files_of(database, source.identity), cache)
    document = dump(source_document(source))
    hashes = None if source.trained_on is None else dump(sorted(source.trained_on))
    now = time.time()
    with database.writing() as connection:
        on_shelf = sources.c.removed.is_(None) & (sources.c.identity == source.identity)
        known = connection.execute(select(sources.c.document, sources.c.files).where(on_shelf)).first()
        as_known = known is not None and known[0] == document
        if known is None or not as_known or digests(load(known[1], database.where)) != digests(files):
            others = sources.c.removed.is_(None) & (sources.c.identity != source.identity)
            replaced = [
                number
                for number, text in connection.execute(select(sources.c.number, sources.c.document).where(others))
                if (fields := load(text, database.where))["where"] == source.where and fields["kind"] == source.kind
            ]  # what lay in this folder before
            gone = on_shelf | sources.c.number.in_(replaced)
            connection.execute(update(sources).where(gone).values(removed=now))
            connection.execute(
                insert(sources),
                {
                    "identity": source.identity,
                    "weights": source.weights,
                    "name": column(source.name),
                    "modality": source.modality,
                    "document": document,
                    "files": dump(files),
                    "added": now,
                },
            )
        if hashes is not None:
            same = (trained.c.identity == source.identity) & (trained.c.hashes == hashes)
            if connection.execute(select(trained.c.number).where(same)).first() is None:
                row = {"identity": source.identity, "hashes": hashes, "added": now}
                connection.execute(insert(trained), row)


def listed(database: Database, modality: str | None = None) -> list[Source]:
    """All sources on the shelf, in the order in which they came."""
    return [source_of(document, rows) for document, rows, _ in _entries(database, modality)]


def listed_with_files(database: Database) -> list[tuple[Source, list[Entry]]]:
    """All sources on the shelf, each with its files as they were when it was added."""
    return [(source_of(document, rows), files) for document, rows, files in _entries(database, None)]


def found(database: Database, wanted: str) -> Source:
    """The source of this id, beginning of an id, or name. Raises `Unfit` when there is none, or more than one."""
    shelf = listed(database)
    where = database.where
    exact = [s for s in shelf if wanted in (s.id, s.identity)] or [s for s in shelf if s.name == wanted]
    near = exact or [s for s in shelf if wanted and s.identity.startswith(wanted)]
    if len(near) == 1:
        return near[0]
    if near:
        raise Unfit(
            f"`{wanted}` means {len(near)} sources",
            where=where,
            fix=f"write one of: {', '.join(s.id for s in near)}",
        )
    words = {s.name: s.id for s in shelf} | {s.id: s.id for s in shelf}
    close = get_close_matches(wanted, words, n=3)
    raise Unfit(
        f"no source has the id or name `{wanted}`",
        where=where,
        fix=f"did you mean {' or '.join(close)}?" if close else "`headstart inventory list` shows what is there",
    )


def remove(database: Database, wanted: str) -> Source:
    """Takes a source off the shelf; its files stay where they are, and so do the records of its runs."""
    from sqlalchemy import update

    from .tables import sources

    source = found(database, wanted)
    with database.writing() as connection:
        on_shelf = sources.c.removed.is_(None) & (sources.c.identity == source.identity)
        connection.execute(update(sources).where(on_shelf).values(removed=time.time()))
    return source


def _files_of(database: Database, identity: str) -> list[Entry]:
    """The newest listing of a source, also of one that was taken off the shelf."""
    from sqlalchemy import select

    from .tables import sources

    query = select(sources.c.files).where(sources.c.identity == identity).order_by(sources.c.number.desc()).limit(1)
    with database.reading() as connection:
        found = connection.execute(query).scalar()
    return [] if found is None else list(load(found, database.where))


def _entries(
    database: Database, modality: str | None
) -> list[tuple[dict[str, Any], frozenset[str] | None, list[Entry]]]:
    from sqlalchemy import select

    from .tables import sources, trained

    query = select(sources.c.document, sources.c.files).where(sources.c.removed.is_(None)).order_by(sources.c.number)
    if modality is not None:
        query = query.where(sources.c.modality == modality)
    with database.reading() as connection:
        kept = [(load(d, database.where), load(f, database.where)) for d, f in connection.execute(query)]
        rows: dict[str, frozenset[str]] = {}
        on_shelf = select(sources.c.identity).where(sources.c.removed.is_(None))
        for identity, hashes in connection.execute(
            select(trained.c.identity, trained.c.hashes).where(trained.c.identity.in_(on_shelf))
        ):
            rows[identity] = rows.get(identity, frozenset()) | frozenset(load(hashes, database.where))
    return [(document, rows.get(document["identity"]), files) for document, files in kept]
