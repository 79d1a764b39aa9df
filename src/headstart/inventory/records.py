"""What runs leave in the bank: targets, trials with their curves, proxies' scores, costs, and openings of tests.

Records are added and stay, failures too. Figures of test rows are in a run's summary alone; `Trial.valid` is what
recall reads, so no test row ever leads a later search.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from headstart.core import Measured, Receipt, Target

from .database import Database
from .documents import column, dump, load

if TYPE_CHECKING:
    import numpy as np

Role = Literal["train", "valid", "test"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One journey. summary: what `solve --json` prints. status: `done`, `cut` by the budget, or `failed`."""

    id: str
    target: str
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: str = ""
    version: str = ""
    status: Literal["done", "cut", "failed"] = "done"
    verdict: str | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    receipt: Receipt | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One fitting of one system. source: its identity, None for a system without one.

    valid: the target's metric on validation rows, None where it was never measured. status `stopped`: by the clock.
    curve: (repeat, fold, step, training loss, inner score), in any order.
    """

    name: str
    kind: str
    method: str
    source: str | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    status: Literal["done", "stopped", "failed"] = "done"
    error: Mapping[str, str] | None = None
    valid: Measured | None = None
    seconds: float = 0.0
    curve: tuple[tuple[int, int, int, float | None, float | None], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyScore:
    """What an estimator said of a source on a target. source: its identity. dropped: why it left the race."""

    source: str
    estimator: str
    value: float | None
    low: float | None = None
    high: float | None = None
    rows: int = 0
    dropped: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a stage took, beside what was forecast."""

    stage: str
    seconds: float
    forecast_seconds: float | None = None
    bytes: int = 0


def record_target(database: Database, target: Target, signature: np.ndarray[Any, Any] | None) -> None:
    """Keeps a target's description, its keyed row hashes by role, and its signature; what is known stays."""
    import numpy as np

    from headstart.numerics.signatures import SIGNATURE_VERSION

    from .tables import signatures, target_rows, targets

    row = {
        "fingerprint": target.fingerprint,
        "name": column(target.name),
        "task": target.task.type,
        "modality": target.modality,
        "metric": target.metric.name,
        "document": dump(
            {
                "name": target.name,
                "classes": list(target.task.classes),
                "pair": target.task.pair,
                "labelled": len(target.labelled),
                "unlabelled": len(target.unlabelled),
                "test": len(target.seal),
                "protocol": target.protocol,
                "seed": target.seed,
                "test_fingerprint": fingerprint_of_test(target),
            }
        ),
        "added": time.time(),
    }
    by_role = [
        {"fingerprint": target.fingerprint, "role": role, "hashes": dump(sorted(hashes))}
        for role, hashes in rows_by_role(target).items()
    ]
    with database.writing() as connection:
        database.insert_new(connection, targets, [row])
        database.insert_new(connection, target_rows, by_role)
        if signature is not None:
            vector = np.ascontiguousarray(signature, dtype="<f8").tobytes()
            key = {"fingerprint": target.fingerprint, "version": SIGNATURE_VERSION}
            database.insert_new(connection, signatures, [{**key, "vector": vector}])


def rows_by_role(target: Target) -> dict[Role, frozenset[str]]:
    """Row hashes of a target: `valid` are those that some fold scores, `train` all that are trained on."""
    content = target.labelled.content
    scored = {i for fold_of in target.folds.of for i, fold in enumerate(fold_of) if fold >= 0}
    return {
        "train": frozenset(content),
        "valid": frozenset(content[i] for i in scored),
        "test": frozenset(target.seal.content),
    }


def fingerprint_of_test(target: Target) -> str:
    """Of the test inputs alone, whatever is trained beside them: what openings are counted by.

    Without test rows of its own (outer cross-validation) it is that of all labelled rows.
    """
    import hashlib

    content = target.seal.content or target.labelled.content
    return hashlib.sha256("\n".join(sorted(content)).encode("utf-8", "surrogatepass")).hexdigest()


def record_run(
    database: Database,
    run: Run,
    trials: Sequence[Trial],
    scores: Sequence[ProxyScore],
    costs: Sequence[Cost],
) -> bool:
    """Keeps a finished run, all of it or nothing; False when a run of this id is there already.

    A run that was cut and went on takes the place of what was kept of it.
    """
    from sqlalchemy import delete, insert, select

    from . import tables

    document = {
        "seed": run.seed,
        "settings": run.settings,
        "protocol": run.protocol,
        "version": run.version,
        "summary": run.summary,
        "receipt": None if run.receipt is None else asdict(run.receipt),
    }
    key = column(run.id)
    row = {
        "id": key,
        "target": run.target,
        "status": run.status,
        "verdict": run.verdict,
        "seconds": run.seconds,
        "document": dump(document),
        "at": time.time(),
    }
    with database.writing() as connection:
        known = connection.execute(select(tables.runs.c.status).where(tables.runs.c.id == key)).scalar()
        if known is not None and known != "cut":
            return False
        if known is not None:
            connection.execute(delete(tables.runs).where(tables.runs.c.id == key))
            for table in (tables.trials, tables.curves, tables.scores, tables.costs):
                connection.execute(delete(table).where(table.c.run == key))
        connection.execute(insert(tables.runs), row)
        for table, entries in (
            (tables.trials, [_trial_row(key, n, t) for n, t in enumerate(trials)]),
            (tables.curves, [c for n, t in enumerate(trials) for c in _curve_rows(key, n, t)]),
            (tables.scores, [_score_row(key, run.target, s) for s in scores]),
            (tables.costs, [{"run": key, "number": n, **asdict(c)} for n, c in enumerate(costs)]),
        ):
            if entries:
                connection.execute(insert(table), entries)
    return True


def runs(database: Database, target: str | None = None) -> list[dict[str, Any]]:
    """Finished runs as JSON values, oldest first: the columns of `runs`, and the fields of the document."""
    from sqlalchemy import select

    from .tables import runs as table

    query = select(table).order_by(table.c.at, table.c.id)
    if target is not None:
        query = query.where(table.c.target == target)
    with database.reading() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    return [{**row, **load(row.pop("document"), database.where)} for row in rows]


def count_opening(database: Database, test: str, run: str) -> int:
    """Notes that a run opened this test, once however often the run is resumed; returns how often in all."""
    from .tables import openings

    with database.writing() as connection:
        row = {"test": column(test), "run": column(run), "at": time.time()}
        database.insert_new(connection, openings, [row])
    return opened(database, test)


def opened(database: Database, test: str) -> int:
    """How many runs have opened this test."""
    from sqlalchemy import func, select

    from .tables import openings

    with database.reading() as connection:
        query = select(func.count()).select_from(openings).where(openings.c.test == column(test))
        return int(connection.execute(query).scalar_one())


def _trial_row(run: str, number: int, trial: Trial) -> dict[str, Any]:
    return {
        "run": run,
        "number": number,
        "source": trial.source,
        "kind": column(trial.kind),
        "method": column(trial.method),
        "status": trial.status,
        "valid": None if trial.valid is None else _finite(trial.valid.value),
        "seconds": trial.seconds,
        "document": dump(
            {
                "name": trial.name,
                "seed": trial.seed,
                "settings": trial.settings,
                "error": trial.error,
                "valid": None if trial.valid is None else asdict(trial.valid),
                "facts": trial.facts,
            }
        ),
    }


def _curve_rows(run: str, number: int, trial: Trial) -> list[dict[str, Any]]:
    points = {(r, f, s): (loss, score) for r, f, s, loss, score in trial.curve}  # of a step told twice, the last
    return [
        {"run": run, "trial": number, "repeat": r, "fold": f, "step": s, "loss": _finite(a), "score": _finite(b)}
        for (r, f, s), (a, b) in points.items()
    ]


def _score_row(run: str, target: str, score: ProxyScore) -> dict[str, Any]:
    figures = {name: _finite(getattr(score, name)) for name in ("value", "low", "high")}
    dropped = None if score.dropped is None else column(score.dropped)
    return {"run": run, "target": target, **asdict(score), **figures, "dropped": dropped}


def _finite(value: float | None) -> float | None:
    """None for what a column of numbers cannot be compared by.

    >>> _finite(float("nan")), _finite(0.5)
    (None, 0.5)
    """
    return value if value is not None and abs(value) < float("inf") else None
