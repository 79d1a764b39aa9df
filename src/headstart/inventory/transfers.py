"""Past transfers as one table, from the bank's own runs or from what was imported; see `numerics.records`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headstart.core import METRICS, Known, PastTrials, Refused

from .database import Database
from .documents import load
from .imports import HERE

if TYPE_CHECKING:
    import numpy as np

    from headstart.numerics.records import Records

    Array = np.ndarray[Any, Any]

Run = tuple[str, str | None, str | None, float]


def transfers(
    database: Database,
    method: str,
    metric: str,
    *,
    origin: str = HERE,
    model: str | None = None,
    where: Mapping[str, Any] | None = None,
    task_type: str | None = None,
    modality: str | None = None,
) -> Records:
    """How sources did on past targets by one method, in one metric.

    origin: `headstart` for this bank's own runs, by fingerprints and identities; else what was imported under that
    name, by names. model, where: of imported records, those of one model, and of these settings (`rows`, or names in
    `extra`); runs that differ in others are averaged, and `Records.mixed` names these. task_type, modality: of the
    bank's own targets. Raises `Refused` where there is nothing.
    """
    from headstart.numerics.records import tabulated

    mixed: tuple[str, ...] = ()
    if origin == HERE:
        runs, tests, sign = _own(database, method, metric, task_type, modality), set[str](), _sign(metric)
    else:
        runs, tests, sign, mixed = _imported(database, method, metric, origin, model, where or {})
    table = replace(tabulated(runs, sign, tests), mixed=mixed)
    if not table.sources:
        raise Refused(
            f"there is no record of `{method}` in `{metric}`",
            where=f"records of `{origin}` in {database.where}",
            fix="solve a target, or see what was imported with `headstart inventory list --records`",
        )
    return table


def known(
    database: Database, past: Sequence[str], signature: Array, modality: str, values: Array | None = None
) -> Known:
    """What the bank's own past targets have to do with a new one, by signatures; NaN for those without."""
    import numpy as np

    from .recall import similarity, stored

    with database.reading() as connection:
        kept = stored(connection, modality)
    whole = [kept.get(fingerprint) for fingerprint in past]

    def alike(one: Array | None, other: Array | None) -> float:
        return float("nan") if one is None or other is None else similarity(one, other, modality)

    between = np.array([[alike(one, other) for other in whole] for one in whole])
    return Known(np.array([alike(signature, one) for one in whole]), values, between)


def past_trials(database: Database, method: str, metric: str, task_type: str, modality: str) -> PastTrials:
    """The bank's own trials of one route with their settings, by past target; figures of validation rows alone."""
    from sqlalchemy import select

    from .tables import runs, targets, trials

    query = (
        select(runs.c.target, trials.c.document, trials.c.valid)
        .join(runs, runs.c.id == trials.c.run)
        .join(targets, targets.c.fingerprint == runs.c.target)
        .where(targets.c.metric == metric, targets.c.task == task_type, targets.c.modality == modality)
        .where(trials.c.method == method, trials.c.valid.is_not(None))
        .order_by(targets.c.added, runs.c.target, runs.c.at, trials.c.run, trials.c.number)
    )
    found: dict[str, list[tuple[dict[str, Any], float]]] = {}
    with database.reading() as connection:
        for target, document, value in connection.execute(query):
            settings = load(document, database.where)["settings"]
            found.setdefault(target, []).append((settings, _sign(metric) * value))
    return PastTrials(tuple(found), tuple(tuple(trials) for trials in found.values()))


def _own(database: Database, method: str, metric: str, task_type: str | None, modality: str | None) -> Iterable[Run]:
    """Validation figures of trials; a fitting without a source is direct training."""
    from sqlalchemy import select

    from .tables import runs, targets, trials

    query = (
        select(runs.c.target, trials.c.source, trials.c.method, trials.c.kind, trials.c.valid)
        .join(runs, runs.c.id == trials.c.run)
        .join(targets, targets.c.fingerprint == runs.c.target)
        .where(targets.c.metric == metric, trials.c.valid.is_not(None))
        .order_by(runs.c.at, trials.c.run, trials.c.number)
    )
    if task_type is not None:
        query = query.where(targets.c.task == task_type)
    if modality is not None:
        query = query.where(targets.c.modality == modality)
    with database.reading() as connection:
        found = connection.execute(query).all()
    best: dict[str, float] = {}
    for target, source, _, kind, value in found:
        if source is None and kind == "adaptation.baselines":
            best[target] = max(best.get(target, -float("inf")), _sign(metric) * value)
    transferred: list[Run] = [(t, s, None, v) for t, s, m, _, v in found if s is not None and m == method]
    # what one does without a source is the best of what was tried without one
    asked = {target for target, *_ in transferred}
    return [*transferred, *((t, None, None, _sign(metric) * v) for t, v in best.items() if t in asked)]


def _imported(
    database: Database, method: str, metric: str, origin: str, model: str | None, where: Mapping[str, Any]
) -> tuple[list[Run], set[str], int, tuple[str, ...]]:
    """Runs, the targets that have figures of test rows alone, the metric's sign, and settings that differ in a cell.

    A target with any figure of validation rows is described by these alone. Figures of test rows lead the search for
    want of others: they are of other targets, so the choice for a new one has still seen none of its own test.
    """
    from sqlalchemy import select

    from .tables import records as t

    query = select(t.c.target, t.c.source, t.c.model, t.c.value, t.c.split, t.c.sign, t.c.rows, t.c.extra)
    query = query.order_by(t.c.key)
    query = query.where(t.c.origin == origin, t.c.method == method, t.c.metric == metric)
    if model is not None:
        query = query.where(t.c.model == model)
    with database.reading() as connection:
        rows = connection.execute(query).all()
    settings = [_settings(row.rows, load(row.extra, database.where)) for row in rows]
    kept = [at for at, said in enumerate(settings) if all(said.get(name) == wanted for name, wanted in where.items())]
    found, settings = [tuple(rows[at])[:6] for at in kept], [settings[at] for at in kept]
    signs = {sign for *_, sign in found}
    if len(signs) > 1:
        raise Refused(
            f"some records of `{metric}` say that higher is better, and some that lower is",
            where=f"records of `{origin}` in {database.where}",
            fix="give the two meanings two names, and import them again",
        )
    valid = {target for target, _, _, _, split, _ in found if split == "valid"}
    runs: list[Run] = []
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for (target, source, named, value, split, _), said in zip(found, settings, strict=True):
        if split == "valid" or target not in valid:
            runs.append((target, source or None, named or None, value))
            cells.setdefault((target, source, named), []).append(said)
    return runs, {target for target, *_ in found} - valid, signs.pop() if signs else 1, _differing(cells.values())


def _settings(rows: int | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    """How a run was made, as far as the record says; what estimators said of it is no part of that."""
    told = {name: value for name, value in extra.items() if name != "proxies"}
    return told if rows is None else {"rows": rows, **told}


def _differing(cells: Iterable[list[dict[str, Any]]]) -> tuple[str, ...]:
    """Names of settings in which some runs of one cell differ."""
    found: set[str] = set()
    for runs in cells:
        names = {name for said in runs for name in said}
        found |= {name for name in names if any(said.get(name) != runs[0].get(name) for said in runs)}
    return tuple(sorted(found))


def _sign(metric: str) -> int:
    return METRICS[metric].sign if metric in METRICS else 1
