"""Records of transfer runs that were made elsewhere: checked row by row, then kept, all of a file or nothing.

Names say what is what in them, and never fingerprints: a table is made of one origin's records, and the bank's own runs
are an origin of their own (see `transfers`), so that the two do not meet.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from headstart.core import METRICS, Unfit

from .database import Database
from .documents import column, dump

NEEDED = ("target", "source", "method", "metric", "value")
OPTIONAL = ("model", "seed", "rows", "seconds", "higher_is_better", "split", "origin", "extra")
HERE = "headstart"  # the origin of the bank's own runs
SPLITS = ("valid", "test")
# What a paper or a table on the web prints is mostly a figure of test rows, so a file that does not say is taken at its
# worst. That breaks no seal of ours: these are test rows of past targets, and a new target's own are never among them.
DEFAULT_SPLIT = "test"
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
LARGEST = 2**63 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What an import did. rows: of the file; added: those that the bank did not have; origins: alphabetical."""

    rows: int
    added: int
    origins: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What is kept of one origin: how many records, target and source names, and (method, metric) pairs."""

    name: str
    records: int
    targets: int
    sources: int
    keys: tuple[tuple[str, str], ...]
    valid: int


def import_records(database: Database, path: str | Path) -> Imported:
    """Keeps the records of a CSV, TSV, JSONL or parquet file; those that are known already are left as they are.

    A row is known by all that it says, and by how many rows of the file said the same before it: a file that is
    imported again adds nothing, and equal runs within one file stay as many as they are. Raises `Unfit` for the first
    row that cannot be, before anything is written.
    """
    from headstart.io.tables import read_rows

    from .tables import records

    file = Path(path)
    columns, rows = read_rows(file)
    _check_columns(columns, file.name)
    said: Counter[str] = Counter()
    found = []
    for number, raw in enumerate(rows, 1):
        row = _record(raw, f"`{file.name}`, row {number}", file.stem)
        content = dump(row)
        said[content] += 1
        key = hashlib.sha256(f"{said[content]} {content}".encode()).hexdigest()
        found.append({"key": key, **row, "added": time.time()})
    if not found:
        raise Unfit("the file has no rows", where=f"`{file.name}`", fix="write one run a line, below the header")
    with database.writing() as connection:
        before = _count(connection)
        database.insert_new(connection, records, found)
        added = _count(connection) - before
    return Imported(rows=len(found), added=added, origins=tuple(sorted({row["origin"] for row in found})))


def origins(database: Database) -> list[Origin]:
    """What was imported, by origin, in alphabetical order."""
    from sqlalchemy import case, distinct, func, select

    from .tables import records as t

    valid = func.sum(case((t.c.split == "valid", 1), else_=0))
    sums = select(
        t.c.origin, func.count(), func.count(distinct(t.c.target)), func.count(distinct(t.c.source)), valid
    ).group_by(t.c.origin)
    with database.reading() as connection:
        pairs = connection.execute(select(t.c.origin, t.c.method, t.c.metric).distinct()).all()
        return [
            Origin(
                name=name, records=count, targets=targets, sources=sources, valid=int(of_valid),
                keys=tuple(sorted((method, metric) for origin, method, metric in pairs if origin == name)),
            )
            for name, count, targets, sources, of_valid in sorted(map(tuple, connection.execute(sums)))
        ]  # fmt: skip


def _count(connection: Any) -> int:
    from sqlalchemy import func, select

    from .tables import records

    return int(connection.execute(select(func.count()).select_from(records)).scalar_one())


def _check_columns(columns: list[str], where: str) -> None:
    """A column that nobody knows is most likely a slip in the name of one that would then be missed: refused."""
    if not set(columns) & set(NEEDED):
        raise Unfit("these are no records of runs", where=f"`{where}`", fix=f"each row needs {', '.join(NEEDED)}")
    for name in columns:
        if name not in (*NEEDED, *OPTIONAL):
            near = get_close_matches(name.strip().lower(), (*NEEDED, *OPTIONAL), n=1)
            raise Unfit(
                f"`{name}` is no column of a record",
                where=f"`{where}`",
                fix=f"did you mean `{near[0]}`?" if near else "put it into `extra`, a JSON object, or leave it out",
            )
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise Unfit(
            f"the column `{missing[0]}` is missing",
            where=f"`{where}`",
            fix=f"each row needs {', '.join(NEEDED)}",
        )


def _record(raw: Mapping[str, Any], where: str, stem: str) -> dict[str, Any]:
    """One row as the bank keeps it; raises `Unfit` naming the row and the column."""
    cells = {name: None if _empty(value) else value for name, value in raw.items()}
    for name in ("target", "method", "metric", "value"):
        if cells[name] is None:
            fix = "leave the row out: a run without a figure says nothing" if name == "value" else "fill it in"
            raise _unfit(name, "is empty", where, fix)
    origin = _text(cells.get("origin")) or stem
    if origin == HERE:
        raise _unfit("origin", f"is `{HERE}`, which means this bank's own runs", where, "give it another name")
    split = _text(cells.get("split")) or DEFAULT_SPLIT
    if split not in SPLITS:
        raise _unfit("split", f"is `{split}`", where, f"write one of: {', '.join(SPLITS)}")
    metric = _text(cells["metric"])
    return {
        "origin": column(origin),
        "target": column(_text(cells["target"])),
        "source": column(_text(cells["source"])),
        "model": column(_text(cells.get("model"))),
        "method": column(_text(cells["method"])),
        "metric": column(metric),
        "sign": _sign(cells.get("higher_is_better"), metric, where),
        "value": _number("value", cells["value"], where),
        "seed": _whole("seed", cells.get("seed"), where),
        "rows": _whole("rows", cells.get("rows"), where),
        "seconds": None if cells.get("seconds") is None else _number("seconds", cells["seconds"], where),
        "split": split,
        "extra": dump(_extra(cells.get("extra"), where)),
    }


def _unfit(name: str, what: str, where: str, fix: str) -> Unfit:
    return Unfit(f"`{name}` {what}", where=f"{where}, column `{name}`", fix=fix)


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _number(name: str, value: Any, where: str) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise _unfit(name, f"is `{value}`, and must be a finite number", where, "write it like 0.913, or mend the row")
    return found


def _whole(name: str, value: Any, where: str) -> int | None:
    if value is None:
        return None
    found = _number(name, value, where)
    if not found.is_integer() or abs(found) > LARGEST:
        raise _unfit(name, f"is `{value}`, and must be a whole number", where, "write it like 3, or leave it empty")
    return int(found)


def _sign(value: Any, metric: str, where: str) -> int:
    """Of the metric of that name; a name that is not ours counts as higher is better where the row does not say."""
    if value is None:
        known = METRICS.get(metric.lower().replace("-", "_").replace(" ", "_"))
        return known.sign if known else 1
    truth = TRUTH.get(str(value).strip().lower())
    if truth is None:
        raise _unfit("higher_is_better", f"is `{value}`", where, "write true or false")
    return 1 if truth else -1


def _extra(value: Any, where: str) -> dict[str, Any]:
    """The JSON object; what a reader of several rows filled up with nulls is left out again."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _unfit(
                "extra", "is not JSON", where, 'write an object like {"epochs": 5}, or leave it empty'
            ) from None
    if value is not None and not isinstance(value, dict):
        raise _unfit("extra", f"is a {type(value).__name__}", where, 'write an object like {"epochs": 5}')
    found = {name: held for name, held in (value or {}).items() if held is not None}
    proxies = found.get("proxies", {})
    if not isinstance(proxies, dict):
        raise _unfit("extra", "has `proxies` that are no object", where, 'write them like {"proxies": {"logme": 0.4}}')
    proxies = {name: held for name, held in proxies.items() if held is not None}
    for name, held in proxies.items():
        _number("extra", held, f"{where}, proxy `{name}`")
    return found | ({"proxies": proxies} if proxies else {})
