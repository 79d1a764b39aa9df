"""What crosses the pipe to a worker and lies in the journal: jobs, outcomes and sources as JSON values.

Paths in a job's spec are text: absolute, or relative to the run folder. Nothing here is heavy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from headstart import __version__
from headstart.core import Problem, Rows, Source, Task
from headstart.numerics.sizes import growing

Stop = Literal["time", "memory", "interrupt"]

LARGEST_CHUNK = 2048  # rows; long enough for batches sorted by length


def canonical(value: Any) -> str:
    """JSON in ASCII with sorted keys and no spaces: equal values have equal text.

    >>> canonical({"b": 1, "a": (2.0, None)})
    '{"a":[2.0,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_number)


def _number(value: Any) -> Any:
    """Numbers of numpy and torch as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is no JSON value")


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """One piece of work that a worker can do alone.

    verb: `features`, `score`, `tell`, `embed`, `fit`, `predict` or `soup`. name: for people. spec: JSON values, see
    `execution.jobs`. memory: forecast in bytes. limit_seconds: stopped softly there, killed a second later. Only verb
    and spec say which job it is. methods: instances that the spec names and the catalogue does not hold; then this
    process does the job.
    """

    verb: str
    name: str
    spec: Mapping[str, Any]
    memory: float | None = None
    limit_seconds: float | None = None
    methods: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return hashlib.sha256(canonical({"verb": self.verb, "spec": self.spec}).encode()).hexdigest()

    @property
    def trial(self) -> str | None:
        """Which trial of a route this job belongs to, None for other work.

        Rungs, folds and the refit of one (route, settings, seed, source) are one trial.
        """
        if self.verb != "fit" or self.spec.get("kind") != "adaptation.routes":
            return None
        source = self.spec.get("source") or {}
        what = [self.spec.get("name"), self.spec.get("settings"), self.spec.get("seed"), source.get("identity")]
        return hashlib.sha256(canonical(what).encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "methods"}


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """How a job ended.

    ok: it did all it was asked. value: JSON values. files: its folder; there is one also after a soft stop, with what
    was whole by then. stopped: `time`, `memory` or `interrupt`; after a soft stop value holds the `step` it reached.
    """

    ok: bool
    value: Mapping[str, Any]
    files: Path
    seconds: float = 0.0
    error: Problem | None = None
    stopped: Stop | None = None

    def problem(self, before: str, where: str, fix: str = "give more minutes or memory") -> Problem:
        """Why it did not do all: its error, or what stopped it before what it was wanted for."""
        why = self.stopped or "an unknown reason"
        return self.error or Problem(f"stopped for {why} before {before}", where=where, fix=fix)


@dataclass(frozen=True, eq=False, slots=True)
class Room:
    """Where a job works. folder: its own, empty at the start. root: the run folder. stop: whether to end soon.

    methods: instances by the name that the spec has for them; every other method is the catalogue's.
    """

    folder: Path
    root: Path
    stop: Callable[[], bool]
    report: Callable[[str], None]
    methods: Mapping[str, Any] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """A path of a spec: absolute, or below the run folder."""
        return self.root / name


class Halted(Exception):
    """A job saw the soft stop and ended at a step boundary; value is what was whole by then."""

    def __init__(self, step: int, value: Mapping[str, Any] | None = None) -> None:
        super().__init__(step, value)
        self.step, self.value = step, {**(value or {}), "step": step}


def chunks(start: int, stop: int, rows: int) -> list[tuple[int, int]]:
    """The chunks of the feature cache that hold positions start…stop, of so many rows in a fixed order.

    A chunk is what is computed and kept together, so that batches are a function of the rows alone.

    >>> chunks(0, 200, 1000)
    [(0, 128), (128, 192), (192, 256)]
    >>> chunks(2000, 20000, 9000)
    [(1536, 2048), (2048, 3072), (3072, 4096), (4096, 6144), (6144, 8192), (8192, 9000)]
    """
    found, a, sizes, end = [], 0, growing(), 0
    while a < min(stop, rows):
        if a == end:
            end = next(sizes)
        b = min(a + LARGEST_CHUNK, end, rows)
        if b > start:
            found.append((a, b))
        a = b
    return found


def chunk_key(identity: str, backend: str, ids: Sequence[str]) -> str:
    """Name of one chunk in the feature cache: the source, how it was computed, and the rows in order.

    >>> len(chunk_key("s", "torch-float32", ["a", "b"]))
    64
    """
    rows = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    return hashlib.sha256(canonical([identity, backend, rows]).encode()).hexdigest()


def reference_key(system: str, task: Task, rows: Rows, folds: Sequence[int]) -> str:
    """Name in the feature cache of a plain system's out-of-fold predictions: they depend on the target alone.

    Systems are our own code, so the version is a part of it.
    """
    labels = None if rows.labels is None else rows.labels.tolist()
    what = [__version__, system, task.type, task.classes, rows.ids, labels, list(folds)]
    return hashlib.sha256(canonical(what).encode()).hexdigest()


def source_to_dict(source: Source) -> dict[str, Any]:
    """A source as JSON values, without its history and its training rows, which no job reads."""
    kept = {f.name: getattr(source, f.name) for f in fields(source) if f.name not in ("trained_on", "receipt")}
    return dict(json.loads(canonical(kept)))


def source_from_dict(values: Mapping[str, Any]) -> Source:
    """The inverse of `source_to_dict`."""
    return Source(**{**values, "gives": tuple(values["gives"]), "lineage": tuple(values["lineage"])})
