"""Adaptation: fit systems for the target, from a source or from nothing.

`adaptation/baselines/` holds the no-transfer systems, `adaptation/routes/` those that start from a source.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Budget, Fitting, Receipt, Refused, Source, Target

if TYPE_CHECKING:
    from headstart.execution.parts import Part, System, Tried
    from headstart.execution.run import Run
    from headstart.execution.specs import Outcome

BASELINES, ROUTES = "adaptation.baselines", "adaptation.routes"
PROBE = "linear_probe"


def adapt(
    target: Target,
    sources: Sequence[Source],
    budget: Budget,
    method: str | Fitting = "lp_ft",
    *,
    out: str | Path,
    settings: dict[str, Any] | None = None,
    overwrite: bool = False,
    run: Run | None = None,
) -> tuple[Source, ...]:
    """Each source, fitted to the target on all its labelled rows, as a folder of its own in `out`.

    The score in each receipt is out of fold. Raises `Refused` where the method cannot work on a source or target.
    """
    from headstart.execution.alone import lone_part
    from headstart.execution.parts import measured_out_of_fold, tried
    from headstart.io import artifacts, members, results
    from headstart.io.atomic import new_folder, refuse_occupied
    from headstart.io.sources import scan
    from headstart.numerics.artifacts import Table

    made = catalogue.make(ROUTES, method, **(settings or {}))
    if target.task.type == "tagging":
        raise Refused(
            f"`{target.name}` is a tagging task, and a tagger cannot be saved yet",
            where="adapting a source",
            fix="see with `headstart rank` which source tells the tags best",
        )
    for source in sources:
        if reason := catalogue.refusal(made.needs, (source,), target):
            hint = f"`headstart methods adaptation --fits {source.name}`"
            raise Refused(f"`{method}` {reason}", where=f"adapting `{source.name}`", fix=f"choose among {hint}")
    folders = [Path(out) if len(sources) == 1 else Path(out) / s.name for s in sources]
    for folder in folders:
        refuse_occupied(folder, overwrite=overwrite)
        results.admit(folder, overwrite=overwrite)
    systems = [route(s, made) for s in sources]
    done: list[Source] = []
    with lone_part(target, budget, run) as (here, part):
        outcomes = fit(part, systems, cells_of(part, made.needs.gives), here, "adapt", steps={"early_stop": True})
        finals = refit(part, [tried(part, s, [o]) for s, o in zip(systems, outcomes, strict=True)], here)
        for source, system, outcome, final, folder in zip(sources, systems, outcomes, finals, folders, strict=True):
            trial = tried(part, system, [outcome])
            for ended in (outcome, final):
                if not ended.ok:
                    raise ended.error or Refused(
                        f"`{system.name}` was stopped for {ended.stopped}",
                        where=f"adapting `{source.name}`",
                        fix="give more minutes, or a cheaper method",
                    )
            artifact = artifacts.read(final.files / "artifact")
            assert not isinstance(artifact, Table), "a route fits a source"
            with new_folder(folder, overwrite=overwrite) as staged:
                members.save_adapted(source, artifact, staged, classes=target.task.classes, task=target.task)
            receipt = Receipt(
                step="adapt",
                method=system.method,
                settings=dict(system.settings),
                inputs=(source.identity, target.fingerprint),
                seeds=(system.seed,),
                protocol="out of fold",
                scores={target.metric.name: measured_out_of_fold(target, trial)},
                seconds=outcome.seconds + final.seconds,
                after=source.receipt,
            )
            found, _ = scan(str(folder))
            done += [one.after(receipt) for one in found]
    return tuple(done)


def no_transfer(part: Part, run: Run) -> list[Tried]:
    """All no-transfer systems that work on this target, out of fold; the deadline does not stop the cheapest."""
    from headstart.execution.parts import System, tried

    names = [
        e.name
        for e in catalogue.entries(BASELINES).values()
        if not catalogue.missing(e) and not catalogue.refusal(e.needs, (), part.target)
    ]
    systems = [System(kind=BASELINES, method=n, seed=part.target.seed) for n in names]
    cells = [c for c in part.target.folds.cells() if c[0] == 0]
    must = [s for s in systems if s.method == "majority"]
    first = fit(part, must, cells, run, "baselines", must=True)
    first_start(run)
    share = run.meter.remaining() / 3
    limit = share if share < float("inf") else None
    rest = [s for s in systems if s not in must]
    outcomes = [*first, *fit(part, rest, cells, run, "baselines", limit_seconds=limit)]
    return [tried(part, s, [o]) for s, o in zip([*must, *rest], outcomes, strict=True)]


def first_start(run: Run) -> float:
    """Seconds that the first worker took to start and to fit the class prior; 0 before it did."""
    spent = run.meter.spent_by_stage.get("baselines", 0.0)
    return float(run.decide("first start", lambda: spent)) if spent else 0.0


def probes(part: Part, sources: Sequence[Source], run: Run) -> list[Tried]:
    """The linear probe of each source, out of fold over all cells."""
    from headstart.execution.parts import probe_of, tried

    systems = [probe_of(s) for s in sources]
    outcomes = fit(part, systems, part.target.folds.cells(), run, "probe")
    return [tried(part, s, [o]) for s, o in zip(systems, outcomes, strict=True)]


def cells_of(part: Part, gives: Sequence[str]) -> list[tuple[int, int]]:
    """Cells that a method is scored on: all for cached features, folds 0, 1, 2 of repeat 0 where gradients are paid."""
    from headstart.execution.parts import GRADIENT_FOLDS

    cells = part.target.folds.cells()
    return [c for c in cells if c[0] == 0 and c[1] < GRADIENT_FOLDS] if "gradients" in gives else list(cells)


def route(source: Source, method: str | Fitting, seed: int = 0) -> System:
    """A route with its settings on a source."""
    from headstart.execution.parts import System

    made = catalogue.make(ROUTES, method)
    name, default = catalogue.name_of(made), catalogue.defaults(type(made))
    changed = tuple((k, v) for k, v in catalogue.settings(made).items() if k not in default or v != default[k])
    own = made if name.startswith("?") else None
    return System(kind=ROUTES, method=name, settings=changed, seed=seed, source=source, own=own)


def fit(
    part: Part,
    systems: Sequence[System],
    cells: Sequence[tuple[int, int]] | str,
    run: Run,
    stage: str,
    *,
    limit_seconds: float | None = None,
    keep: bool = False,
    must: bool = False,
    steps: dict[str, Any] | None = None,
) -> list[Outcome]:
    """One barrier of fits."""
    from headstart.execution.parts import fit_job

    jobs = [fit_job(part, s, cells, limit_seconds=limit_seconds, keep=keep, steps=steps) for s in systems]
    return run.do(jobs, stage, must=must) if jobs else []


def halving(
    part: Part, systems: Sequence[System], run: Run, *, survivors: int, keep: bool, horizon: int | None = None
) -> list[Tried]:
    """Routes with gradients by successive halving: all on fold 0, the best `survivors` on the other folds.

    With one validation split there are no more folds, and all are fitted to the end. Those that left keep their one
    fold in the report and are not compared with what has more.
    """
    from headstart.execution.parts import better, fit_job, out_of_fold_score, tried

    cells = cells_of(part, ("gradients",))
    share = run.meter.remaining() / 2
    limit = share if share < float("inf") else None
    steps = {"early_stop": True, **({"horizon": horizon} if horizon else {})}
    first = fit(part, systems, cells[:1], run, "adapt", limit_seconds=limit, keep=keep, steps=steps)
    rung = [tried(part, s, [o]) for s, o in zip(systems, first, strict=True)]
    if len(cells) == 1:
        return rung
    scores = {t.system: better(part.target, out_of_fold_score(part.target, t.cells())) for t in rung if t.usable}
    stay = sorted(scores, key=lambda s: -scores[s])[:survivors]
    run.note("rung", part=part.folder, stay=[s.name for s in stay], scores={s.name: scores[s] for s in scores})
    jobs = [fit_job(part, s, [c], limit_seconds=limit, keep=keep, steps=steps) for s in stay for c in cells[1:]]
    later = run.do(jobs, "adapt") if jobs else []  # a job for each fold, so that no worker waits
    ends = {s: [first[at]] for at, s in enumerate(systems)}
    for job, (system, _) in zip(later, itertools.product(stay, cells[1:]), strict=True):
        ends[system].append(job)
    return [tried(part, s, ends[s]) for s in systems]


def refit(part: Part, trials: Sequence[Tried], run: Run, *, test: str | None = None) -> list[Outcome]:
    """Each system on all labelled rows, for the median fraction of its schedule; test: rows to predict."""
    from headstart.execution.parts import fit_job

    rows = len(part.target.labelled)
    jobs = [fit_job(part, t.system, "all", steps=_whole_steps(t, rows), test=test) for t in trials]
    return run.do(jobs, "refit", must=True) if jobs else []


def _whole_steps(trial: Tried, rows: int) -> dict[str, Any] | None:
    """The median chosen fraction of the schedule, whose horizon is scaled by rows; None for a method's own schedule."""
    told = [f["facts"] for f in trial.folds if {"horizon", "rows"} <= set(f.get("facts", {}))]
    if not told:
        return None
    first = told[0]
    return {"horizon": round(first["horizon"] * rows / first["rows"]), "until": trial.fraction}
