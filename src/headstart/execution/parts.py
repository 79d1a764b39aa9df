"""A part: a target as jobs see it, and the jobs that a stage asks for.

Outer folds are parts of one root target: their rows are among the root's rows, so the root's features serve them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart import catalogue
from headstart.core import Measured, Problem, Ranking, Rows, Source, Target
from headstart.execution.run import Run
from headstart.execution.specs import Job, Outcome, canonical, source_to_dict
from headstart.execution.words import starts_of_words, tags_of
from headstart.io import targets
from headstart.numerics import metrics
from headstart.numerics.folds import draw_order
from headstart.numerics.ragged import owners, places

Array = np.ndarray[Any, Any]
GRADIENT_FOLDS = 3  # folds that routes with gradients run, of repeat 0


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """folder: where the target was dumped, root: where the target with all rows was; both below the run folder.

    root_ids: of the root's labelled rows, in the order in which they are drawn. cache: folder of the feature cache.
    """

    target: Target
    folder: str
    root: str
    root_ids: tuple[str, ...]
    cache: str

    @property
    def root_rows(self) -> int:
        return len(self.root_ids)

    def drawn(self, rows: int) -> int:
        """How many rows of the root are drawn when the first `rows` labelled rows of this part are among them."""
        mine = set(self.target.labelled.ids)
        places = [at for at, name in enumerate(self.root_ids, 1) if name in mine]
        return places[min(rows, len(places)) - 1] if places else 0


def part_of(run: Run, target: Target, name: str, cache: Path, root: Part | None = None) -> Part:
    """Dump a target for the workers, once."""
    folder = f"targets/{name}"
    if not (run.folder / folder / "target.json").exists():
        targets.dump(target, run.folder / folder)
    if root is not None:
        return Part(target, folder, root.root, root.root_ids, root.cache)
    rows = target.labelled
    order = draw_order(rows.labels, rows.ids, target.seed) if rows.labels is not None else range(len(rows))
    return Part(target, folder, folder, tuple(rows.ids[i] for i in order), str(cache))


def dump_rows(run: Run, rows: Rows, name: str) -> str:
    """Dump rows for a prediction; gives the folder below the run folder."""
    folder = f"targets/{name}"
    if not (run.folder / folder / "rows.json").exists():
        targets.dump_rows(rows, run.folder / folder)
    return folder


def features_job(
    part: Part,
    taps: Sequence[Source],
    start: int,
    stop: int,
    *,
    dtype: str = "float32",
    racer: str | None = None,
    limit_seconds: float | None = None,
) -> Job:
    """Features of the root's labelled rows start…stop, in the order of draw, into the cache.

    taps: a source, or several layers and poolings of one, which share a pass. dtype: of the arithmetic; `fastest`: the
    fastest that leaves the scores of `racer` as they are, see `backends`.
    """
    spec: dict[str, Any] = {
        "source": source_to_dict(taps[0]),
        "target": part.root,
        "rows": "labelled",
        "start": start,
        "stop": stop,
        "cache": part.cache,
    }
    if len(taps) > 1:
        spec["taps"] = [source_to_dict(tap) for tap in taps]
    if dtype != "float32":
        spec |= {"dtype": dtype, "racer": racer}
    return Job("features", f"features of {taps[0].name}", spec, limit_seconds=limit_seconds)


def tell_job(part: Part, source: Source, gives: Sequence[str], own: str | None = None) -> Job:
    """What a source gives (`features`, `predictions`) of the labelled rows, each as a file; and its features of its own
    rows, where their folder is named."""
    spec: dict[str, Any] = {
        "source": source_to_dict(source),
        "target": part.folder,
        "root": part.root,
        "gives": list(gives),
        "cache": part.cache,
    }
    if own is not None:
        spec["own"] = own
    return Job("tell", f"{' and '.join(gives)} of {source.name}", spec)


def score_job(
    part: Part,
    source: Source,
    rows: int,
    estimators: Sequence[Ranking],
    frozen: int | None = None,
    *,
    errors: bool = False,
    dtype: str = "float32",
) -> Job:
    """Estimators on the labelled rows of the part that are among the first `rows` that are drawn of the root.

    frozen: what is fitted sees the first so many rows of the part alone, and the others are scored. errors: of the
    scores too, see `numerics.chunks.standard_error`. dtype: of the arithmetic that features are computed in.
    """
    names = [catalogue.name_of(e) for e in estimators]
    spec: dict[str, Any] = {
        "source": source_to_dict(source),
        "target": part.folder,
        "root": part.root,
        "upto": rows,
        "estimators": [
            {"name": name, "settings": catalogue.settings(e)} for name, e in zip(names, estimators, strict=True)
        ],
        "cache": part.cache,
    }
    if frozen is not None:
        spec["frozen"] = frozen
    if errors:
        spec["errors"] = True
    if dtype != "float32":
        spec["dtype"] = dtype
    own = {name: e for name, e in zip(names, estimators, strict=True) if name.startswith("?")}
    return Job("score", f"scores of {source.name}", spec, methods=own)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class System:
    """Something that can be fitted on a target: a method with its settings and seed, and the source it starts from.

    Two are equal when they would be fitted in the same way. own: the method itself, where the catalogue has none of
    that name.
    """

    kind: str
    method: str
    settings: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    source: Source | None = None
    ingredients: tuple[System, ...] = ()  # of a soup
    own: Any = None

    @property
    def name(self) -> str:
        if self.ingredients:
            return f"{self.method} of {' and '.join(i.name for i in self.ingredients)}"
        extra = ", ".join(f"{k}={v}" for k, v in self.settings)
        method = f"{self.method}({extra})" if extra else self.method
        return f"{method} of {self.source.name}" if self.source else method

    @property
    def key(self) -> str:
        return canonical([self.spec(), [i.key for i in self.ingredients]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, System) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def spec(self) -> dict[str, Any]:
        """What a fit job says of it."""
        return {
            "kind": self.kind,
            "name": self.method,
            "settings": dict(self.settings),
            "seed": self.seed,
            "source": source_to_dict(self.source) if self.source else None,
        }


@dataclass(frozen=True, eq=False, slots=True)
class Tried:
    """A system with its out-of-fold predictions.

    table: (repeats, rows, outputs), NaN where a cell was not scored; None where it failed; of a target of tags
    (repeats, words, tags). fraction: median over folds of the chosen fraction of the schedule. folds: what each cell
    reported. folder: of the job's files, last rung. lost: words that the source has no features for.
    """

    system: System
    table: Array | None
    seconds: float = 0.0
    error: Problem | None = None
    stopped: str | None = None
    fraction: float = 1.0
    folds: tuple[Mapping[str, Any], ...] = ()
    folders: tuple[Path, ...] = field(default=())
    lost: int = 0

    @property
    def usable(self) -> bool:
        return self.table is not None and self.error is None and self.stopped is None

    def cells(self) -> Array:
        """The table of a usable trial."""
        assert self.table is not None, "only usable trials are compared"
        return self.table


def fit_job(
    part: Part,
    system: System,
    cells: Sequence[tuple[int, int]] | str,
    *,
    limit_seconds: float | None = None,
    keep: bool = False,
    steps: Mapping[str, Any] | None = None,
    test: str | None = None,
) -> Job:
    """Fit a system on cells (repeat, fold) of a part, or on all its labelled rows; test: rows to predict afterwards."""
    spec = {
        **system.spec(),
        "target": part.folder,
        "root": part.root,
        "cells": cells if isinstance(cells, str) else [list(c) for c in cells],
        "steps": dict(steps or {}),
        "keep": keep,
        "test": test,
        "cache": part.cache,
    }
    methods = {} if system.own is None else {system.method: system.own}
    return Job("fit", system.name, spec, limit_seconds=limit_seconds, methods=methods)


def soup_of(ingredients: Sequence[System]) -> System:
    """The average of several fine-tunes of one source."""
    source = ingredients[0].source
    return System(kind="combination.merging", method="uniform_soup", source=source, ingredients=tuple(ingredients))


def soup_job(
    part: Part,
    system: System,
    folders: Sequence[Sequence[Path]],
    cells: Sequence[tuple[int, int]] | str,
    *,
    test: str | None = None,
) -> Job:
    """Average the models that the ingredients' fits left in their folders, cell by cell."""
    assert system.source is not None
    spec = {
        "members": [[f"{f.parent.name}/{f.name}" for f in some] for some in folders],
        "method": system.method,
        "settings": dict(system.settings),
        "source": source_to_dict(system.source),
        "target": part.folder,
        "cells": cells if isinstance(cells, str) else [list(c) for c in cells],
        "test": test,
    }
    return Job("soup", system.name, spec)


def tried(part: Part, system: System, outcomes: Sequence[Outcome]) -> Tried:
    """Read the out-of-fold predictions of one system back from the files of its jobs (one job, or one a rung)."""
    seconds = sum(o.seconds for o in outcomes)
    for outcome in outcomes:
        if not outcome.ok:
            return Tried(system, None, seconds, outcome.error, outcome.stopped)
    folds = [f for o in outcomes for f in o.value["folds"]]
    target = part.target
    starts = starts_of_words(target)
    table = np.full((target.folds.repeats, int(starts[-1]), target.task.outputs), np.nan)
    for outcome in outcomes:
        for cell in outcome.value["folds"]:
            r, f = cell["repeat"], cell["fold"]
            scored = places(starts, target.folds.sides(r, f)[1])
            table[r, scored] = np.load(outcome.files / f"pred-{r}-{f}.npy", allow_pickle=False)
    fraction = float(np.median([f.get("fraction", 1.0) for f in folds])) if folds else 1.0
    lost = max((int(o.value.get("lost", 0)) for o in outcomes), default=0)
    return Tried(system, table, seconds, None, None, fraction, tuple(folds), tuple(o.files for o in outcomes), lost)


def scored_cells(tables: Sequence[Array]) -> Array:
    """(repeats, rows) bool: the cells that all tables have."""
    seen = [~np.isnan(t).any(axis=-1) for t in tables]
    return np.asarray(np.logical_and.reduce(seen))


def out_of_fold_score(target: Target, table: Array, cells: Array | None = None) -> float:
    """The metric over the scored cells, averaged over repeats; NaN where nothing was scored."""
    seen = scored_cells([table]) if cells is None else cells
    values = []
    for r in range(len(table)):
        labels, _, (said,) = _compared(target, [table[r]], seen[r])
        if len(labels):
            values.append(metrics.value(target.metric.name, labels, said))
    return float(np.mean(values)) if values else float("nan")


def better(target: Target, score: float) -> float:
    """A score as a number of which more is better; minus infinity where there is none."""
    return float("-inf") if np.isnan(score) else target.metric.sign * score


def measured_out_of_fold(target: Target, trial: Tried) -> Measured:
    """The out-of-fold score with a bootstrap interval over groups, of the first repeat (repeats share their rows)."""
    return measured(target, trial.cells())


def measured(target: Target, table: Array) -> Measured:
    """As `measured_out_of_fold`, of a table."""
    from headstart.numerics.bootstrap import scored

    labels, groups, said = _compared(target, [table[0]], scored_cells([table])[0])
    one = _about(scored(target.metric.name, labels, said, groups)[0], out_of_fold_score(target, table))
    least, most = metrics.bounds(target.metric.name)
    return Measured(one.value, max(one.low, least), min(one.high, most), one.rows)


def gained_out_of_fold(target: Target, chosen: Array, opponent: Array) -> Measured:
    """How much better one table is than another on the cells that both have, in pairs of rows; above 0 is better."""
    from headstart.numerics.bootstrap import gained

    cells = scored_cells([chosen, opponent])
    labels, groups, (first, second) = _compared(target, [chosen[0], opponent[0]], cells[0])
    one = gained(target.metric.name, labels, first, second, groups)
    mine, other = (out_of_fold_score(target, table, cells) for table in (chosen, opponent))
    return _about(one, target.metric.sign * (mine - other))


def firsts_out_of_fold(target: Target, tables: Sequence[Array]) -> Array:
    """(tables,) share of the draws of rows in which each is the best, on the cells that all have; equals share."""
    from headstart.numerics.bootstrap import resampled

    repeats = []
    for repeat, seen in enumerate(scored_cells(tables)):
        labels, groups, said = _compared(target, [table[repeat] for table in tables], seen)
        if len(labels):  # the draws follow from the rows, which all repeats share
            repeats.append(resampled(target.metric.name, labels, said, groups))
    if not repeats:
        return np.full(len(tables), 1 / len(tables))
    drawn = target.metric.sign * np.mean(repeats, axis=0)
    best = drawn == drawn.max(axis=0)
    return np.asarray((best / best.sum(axis=0)).mean(axis=1))


def _compared(target: Target, tables: Sequence[Array], seen: Array) -> tuple[Array, list[str], list[Any]]:
    """Labels and groups of the rows that were seen in one repeat, and what each of its tables says of them.

    Of a target of tags these are sentences, of which every word was seen, and lists of tags.
    """
    rows = target.labelled
    assert rows.labels is not None
    said: list[Any] = [table[seen] for table in tables]
    if target.task.type == "tagging":
        of = owners(starts_of_words(target))
        seen = np.bincount(of[~seen], minlength=len(rows)) == 0
        said = [tags_of(target, np.flatnonzero(seen), table) for table in tables]
    return rows.labels[seen], [g for g, s in zip(rows.groups, seen, strict=True) if s], said


def _about(one: Measured, value: float) -> Measured:
    """The interval of one repeat, about the mean of all."""
    shift = value - one.value
    return Measured(value, one.low + shift, one.high + shift, one.rows)


def probe_of(source: Source) -> System:
    return System(kind="adaptation.routes", method="linear_probe", source=source)
