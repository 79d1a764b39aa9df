"""Recall: which sources did well on past targets like this one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Budget, Known, Recalling, Receipt, Refused, Source, Target, Unfit
from headstart.inventory import Inventory

if TYPE_CHECKING:
    from headstart.numerics.records import Records

SOURCES = "recall.sources"
PROBE = "linear_probe"  # what every ranked source was fitted by
MOST_NAMED = 5  # settings in a warning


def recall(
    target: Target,
    sources: Sequence[Source],
    budget: Budget,
    method: str | Recalling = "nearest_tasks",
    *,
    inventory: Inventory,
    records: Records | None = None,
    known: Known | None = None,
) -> tuple[Source, ...]:
    """The sources, best prospects first, each with a receipt of what the bank expects of it; nothing is left out.

    records: past transfers; without them the bank's own runs by the linear probe, in the target's metric. Own runs know
    sources by identity; imported ones know them by name. known: of the target; without it how alike it is to the bank's
    own past targets, its own validation figures in the bank, and what the sources that were asked decide. Sources
    of which nothing is known come last, in the caller's order. Raises `Refused` where the bank has no record at all, or
    nothing is known of any of these sources.
    """
    import numpy as np

    made: Recalling = catalogue.make(SOURCES, method)
    if reason := catalogue.refusal(made.needs, (), target):
        raise Refused(f"`{catalogue.name_of(made)}` {reason}", where="recall", fix="see `headstart methods recall`")
    table = _table(target, inventory) if records is None else records
    rest, own = table.without(target.fingerprint)
    if not rest.targets:
        raise Refused(
            f"the bank has records of `{target.name}` alone",
            where=f"recall for `{target.name}`",
            fix="solve other targets first, or bring records with `headstart inventory import`",
        )
    budget.admit(step="recall", memory=100.0 * rest.values.size)
    at = {name: number for number, name in enumerate(rest.sources)}
    recorded = len(at)
    if known is None:
        new = [s for s in sources if s.identity not in at and s.name not in at]  # of which answers may be known
        names = [*dict.fromkeys(s.identity if records is None else s.name for s in new)]
        rest = rest.with_sources(names)
        at |= {name: recorded + number for number, name in enumerate(names)}
        own = np.concatenate([own, np.full(len(names), np.nan)])
        known = inventory.known(rest.targets, target, own, rest.sources)
    _check(rest, known)
    guess = made(rest, known)
    places = [at.get(source.identity, at.get(source.name, -1)) for source in sources]
    expected = [float(guess.values[place]) if place >= 0 else float("nan") for place in places]
    if all(value != value for value in expected):
        raise Refused(
            f"none of the {len(places)} sources is among the {recorded} that there are records of",
            where=f"recall for `{target.name}`",
            fix="own runs know sources by identity, imported ones by name; see `headstart inventory list --records`",
        )
    order = sorted(range(len(places)), key=lambda i: (expected[i] != expected[i], -expected[i]))
    warnings = _warnings(rest)
    return tuple(
        sources[i].after(
            Receipt(
                step="recall",
                method=catalogue.name_of(made),
                settings=catalogue.settings(made),
                inputs=(sources[i].identity, target.fingerprint),
                warnings=warnings,
                facts=_facts(guess.values, guess.errors, places[i], rest) | {"of_all": dict(guess.facts)},
            )
        )
        for i in order
    )


def _table(target: Target, inventory: Inventory) -> Records:
    return inventory.transfers(PROBE, target.metric.name, task_type=target.task.type, modality=target.modality)


def _check(records: Records, known: Known) -> None:
    """Facts of a target that are not about these records would be read as if they were."""
    targets, sources = records.values.shape
    for name, wanted in (("similarities", (targets,)), ("values", (sources,)), ("between", (targets, targets))):
        given = getattr(known, name)
        if given is not None and given.shape != wanted:
            raise Unfit(
                f"`{name}` has the shape {given.shape}, and the records ask for {wanted}",
                where="Known(…), for recall",
                fix="give one entry for each target or source of the records, NaN where nothing is known",
            )
    if known.vectors is not None and (known.vectors.ndim != 2 or len(known.vectors) != sources):
        raise Unfit(
            f"`vectors` has the shape {known.vectors.shape}, and there are {sources} sources",
            where="Known(…), for recall",
            fix="give one row for each source of the records, NaN where nothing is known",
        )


def _facts(values: Any, errors: Any, place: int, records: Records) -> dict[str, Any]:
    """value: standard deviations above the mean source on one target; None for a source of which nothing is known."""
    if place < 0 or values[place] != values[place]:
        return {"value": None, "error": None, "targets": 0, "runs": 0}
    return {
        "value": float(values[place]),
        "error": None if errors is None else float(errors[place]),
        "targets": int((records.counts[:, place] > 0).sum()),
        "runs": int(records.counts[:, place].sum()),
    }


def _warnings(records: Records) -> tuple[str, ...]:
    found = []
    if records.tests:
        count, every = len(records.tests), len(records.targets)
        found.append(f"figures of {count} of {every} past targets are of their test rows: no others were imported")
    if records.mixed:
        differ = ", ".join(records.mixed[:MOST_NAMED]) + (" …" if len(records.mixed) > MOST_NAMED else "")
        found.append(f"some figures are means over runs that differ in {differ}; `transfers(where=…)` takes one kind")
    return tuple(found)
