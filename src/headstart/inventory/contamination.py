"""Contamination: rows that a source was trained on, and that are test rows here.

A source knows the rows that it was trained on itself; it has also learned those of its base and of its parents, as far
as the bank knows these. What nobody knows is `unknown`, not clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from headstart.core import Source

from .database import Database
from .documents import load

LEFT_OUT_FRACTION = 0.05  # of the test; with more of its rows seen, a source is contaminated
ROWS_THAT_REMAIN = 100  # under outer cross-validation, else a source that has seen rows cannot win
ID_CHARACTERS = 12
History = Literal["known", "partly", "unknown"]


@dataclass(frozen=True, slots=True)
class Trained:
    """Rows that a source has learned from, its ancestors' included; `known` only if that of all of them is."""

    rows: frozenset[str]
    history: History


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """What the rule says of one source. shared: test rows that it was trained on, as a count."""

    shared: int
    fraction: float
    status: Literal["clean", "unknown", "rows-left-out", "contaminated"]
    can_win: bool
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """left_out: positions of test rows that are scored for no system. of: the mark of each source, by its id."""

    left_out: tuple[int, ...]
    of: Mapping[str, Mark]

    def as_dict(self) -> dict[str, Any]:
        return {"left_out": list(self.left_out), "of": {name: asdict(mark) for name, mark in self.of.items()}}


def marks(trained: Mapping[str, Trained], test: Sequence[str], *, outer: bool = False) -> Marks:
    """The rule, for all sources at once.

    test: row hashes in the order of the test rows; under outer cross-validation (outer=True), of all labelled rows.
    Rows that a source has seen are left out of scoring for every system while all that are left out make at most 5 %
    of the test (outer: while 100 rows remain). Sources with fewer such rows go first, so one bad source costs the
    others nothing; a source that does not fit is contaminated, cannot win, and its rows stay.

    >>> two = {"a": Trained(frozenset({"1"}), "known"), "b": Trained(frozenset("123456"), "known")}
    >>> found = marks(two, [str(n) for n in range(20)])
    >>> found.left_out, found.of["a"].status, found.of["b"].status
    ((1,), 'rows-left-out', 'contaminated')
    """
    seen = {name: {i for i, row in enumerate(test) if row in one.rows} for name, one in trained.items()}
    left_out: set[int] = set()
    of: dict[str, Mark] = {}
    for name in sorted(seen, key=lambda n: len(seen[n])):  # stable: ties keep the caller's order
        together = left_out | seen[name]
        fits = len(test) - len(together) >= ROWS_THAT_REMAIN if outer else len(together) <= _allowed(len(test))
        if seen[name] and fits:
            left_out = together
        of[name] = _mark(len(seen[name]), len(test), trained[name].history, fits, outer)
    return Marks(left_out=tuple(sorted(left_out)), of={name: of[name] for name in trained})


def told_by(sources: Sequence[Source]) -> dict[str, Trained]:
    """What each source says of itself, by its id, where there is no bank to ask of its ancestors."""

    def of(source: Source) -> Trained:
        if source.trained_on is None:
            return Trained(frozenset(), "unknown")
        return Trained(source.trained_on, "partly" if source.base or source.lineage else "known")

    return {source.id: of(source) for source in sources}


def trained_rows(database: Database, sources: Sequence[Source]) -> dict[str, Trained]:
    """What each source has learned from, by its id: its own rows, and what the bank knows of its ancestors.

    An ancestor is named by `base` (a fingerprint of weights) or `lineage` (identities, weights, or ids), and may have
    been taken off the shelf since: what it learned stays learned.
    """
    from sqlalchemy import select

    from .tables import sources as table
    from .tables import trained

    parents: dict[str, tuple[str, ...]] = {}
    same_weights: dict[str, set[str]] = {}
    rows: dict[str, frozenset[str]] = {}
    with database.reading() as connection:
        known = connection.execute(select(table.c.identity, table.c.weights, table.c.document).order_by(table.c.number))
        for identity, weights, document in known:
            fields = load(document, database.where)
            named = tuple(name for name in (fields.get("base"), *fields.get("lineage", ())) if name)
            parents[identity] = tuple(dict.fromkeys((*parents.get(identity, ()), *named)))
            same_weights.setdefault(weights, set()).add(identity)
        for identity, hashes in connection.execute(select(trained.c.identity, trained.c.hashes)):
            rows[identity] = rows.get(identity, frozenset()) | frozenset(load(hashes, database.where))
    for source in sources:  # those at hand may not be in the bank
        named = tuple(name for name in (source.base, *source.lineage) if name)
        parents[source.identity] = tuple(dict.fromkeys((*parents.get(source.identity, ()), *named)))
        same_weights.setdefault(source.weights, set()).add(source.identity)
        if source.trained_on is not None:
            rows[source.identity] = rows.get(source.identity, frozenset()) | source.trained_on
    by_id = {identity[:ID_CHARACTERS]: identity for identity in sorted(parents)}

    def entries(name: str) -> set[str]:
        if name in parents:
            return {name}
        if name in same_weights:
            return same_weights[name]
        return {by_id[name]} if name in by_id else set()

    return {s.id: _learned(s, parents, same_weights, rows, entries) for s in sources}


def _learned(
    source: Source,
    parents: Mapping[str, Sequence[str]],
    same_weights: Mapping[str, set[str]],
    rows: Mapping[str, frozenset[str]],
    entries: Any,
) -> Trained:
    waiting, visited = [source.identity, *sorted(same_weights[source.weights])], set()
    learned: set[str] = set()
    known = unknown = False
    while waiting:
        identity = waiting.pop()
        if identity in visited:
            continue
        visited.add(identity)
        if identity in rows:
            known = True
            learned |= rows[identity]
        elif identity == source.identity or identity not in same_weights[source.weights]:
            unknown = True
        for name in parents.get(identity, ()):
            ancestors = entries(name)
            unknown |= not ancestors
            waiting.extend(sorted(ancestors))
    return Trained(frozenset(learned), "known" if not unknown else "partly" if known else "unknown")


def _allowed(rows: int) -> int:
    return int(LEFT_OUT_FRACTION * rows + 1e-9)


def _mark(shared: int, rows: int, history: History, fits: bool, outer: bool) -> Mark:
    fraction = shared / rows if rows else 0.0
    counted = f"{shared} of {rows} {'labelled' if outer else 'test'} rows ({fraction:.1%})"
    if shared and fits:
        what = f"trained on {counted}, which are left out of scoring for all systems"
        return Mark(shared=shared, fraction=fraction, status="rows-left-out", can_win=True, sentence=what)
    if shared:
        limit = f"{ROWS_THAT_REMAIN} rows would not remain" if outer else f"more than {LEFT_OUT_FRACTION:.0%} in all"
        what = f"trained on {counted}, {limit}: it cannot win"
        return Mark(shared=shared, fraction=fraction, status="contaminated", can_win=False, sentence=what)
    if history == "known":
        sentence = "trained on none of these rows"
        return Mark(shared=0, fraction=0.0, status="clean", can_win=True, sentence=sentence)
    sentence = "its training rows are not all known, and none of the known ones is here"
    return Mark(shared=0, fraction=0.0, status="unknown", can_win=True, sentence=sentence)
