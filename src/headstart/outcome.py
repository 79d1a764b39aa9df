"""What a journey leaves: the saved folder with its report and card, and what the bank learns."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Budget, Measured, Prediction, Problem, Receipt, Refused, Result, Source, Target, Unfit

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from headstart.evidence.report import ReportData
    from headstart.execution.run import Run
    from headstart.flow import Final
    from headstart.inventory import Inventory
    from headstart.io.results import Member

    Array = np.ndarray[Any, Any]

REPORT = "report.json"  # what the page and the card are drawn from


@dataclass(frozen=True, eq=False, slots=True)
class Known:
    """What the bank said when the run began; read once, and journalled.

    order: ids, best prospects first. contaminated: ids that cannot win. left_out: content of rows scored for no system.
    test: fingerprint of the test inputs. openings: how often this test was opened before.
    """

    run: str
    test: str
    order: tuple[str, ...] = ()
    contaminated: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    marks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    openings: int | None = None
    recalled: tuple[Mapping[str, Any], ...] = ()

    def ordered(self, sources: Sequence[Source]) -> list[Source]:
        """Those that did well on targets near this one first; the others in the order given."""
        at = {name: i for i, name in enumerate(self.order)}
        return sorted(sources, key=lambda s: at.get(s.id, len(at)))

    def refusal(self, source: Source) -> Refused:
        """Why a contaminated source stays away."""
        fix = "it may help targets whose test it has not seen"
        return Refused(str(self.marks[source.id]["sentence"]), where=f"source `{source.name}`", fix=fix)


def banked(inventory: Inventory | None, target: Target, out: Path) -> list[Source]:
    """The bank's sources that read what the target has; not what an earlier session of this run saved in `out`."""
    if inventory is None:
        return []
    own = Path(out).resolve()
    return [s for s in inventory.sources(target.modality) if not Path(s.where).resolve().is_relative_to(own)]


def refuse_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Raises a `Problem` now that saving would raise later; an old run is cleared away where it may be replaced."""
    import shutil

    from headstart.io import results

    results.admit(out, overwrite=overwrite or resume)
    if overwrite and not resume:
        shutil.rmtree(out / "run", ignore_errors=True)
    elif not resume and (out / "run" / "journal.jsonl").exists():
        raise Refused(
            "the folder holds a run that was begun before", where=f"`{out}`", fix="add `--resume` or `--overwrite`"
        )


def inputs_of(target: Target, shelf: Sequence[Source], budget: Budget, **settings: Any) -> dict[str, Any]:
    """What a run rests on; a change in any of it refuses to resume. Not the minutes: more may be given."""
    from headstart import __version__

    return {
        "target": target.fingerprint,
        "shelf": [s.identity for s in shelf],
        "settings": {**settings, "trials": budget.trials, "labels": budget.labels, "metric": target.metric.name},
        "version": __version__,
    }


def bank_snapshot(run: Run, inventory: Inventory | None, target: Target, shelf: Sequence[Source]) -> Known:
    """Everything that is read from the bank, once for a run and all that resume it."""
    import uuid

    from headstart.inventory import contamination
    from headstart.inventory.records import fingerprint_of_test

    name = run.decide("run", lambda: uuid.uuid4().hex)
    outer = target.protocol == "outer_cv"
    rows = target.labelled.content if outer else target.seal.content

    def read() -> dict[str, Any]:
        if inventory is None:  # what sources say of themselves is known without a bank
            marks = contamination.marks(contamination.told_by(shelf), rows, outer=outer).as_dict()
            test = fingerprint_of_test(target)
            return {"order": [s.id for s in shelf], "marks": marks, "test": test, "openings": None, "recalled": []}
        found = inventory.snapshot(target, shelf, _signature(target))
        return {k: found[k] for k in ("order", "marks", "test", "openings", "recalled")}

    found = run.decide("bank", read)
    marks = found["marks"]["of"]
    return Known(
        run=name,
        test=found["test"],
        order=tuple(found["order"]),
        contaminated=frozenset(k for k, m in marks.items() if not m["can_win"]),
        left_out=frozenset(rows[i] for i in found["marks"]["left_out"]),
        marks=marks,
        openings=found["openings"],
        recalled=tuple(found["recalled"]),
    )


def _signature(target: Target) -> Array | None:
    from headstart.io.images import RawRows
    from headstart.numerics.signatures import BLOCKS, signature

    if target.modality not in BLOCKS or not len(target.labelled):
        return None
    return signature(RawRows(target.labelled.inputs), target.labelled.labels, target.task.type, target.modality)


def save(
    final: Final,
    run: Run,
    *,
    out: Path,
    target: Target,
    inventory: Inventory | None,
    known: Known,
    failed: Sequence[tuple[str, Problem]],
    examples: bool,
    budget: Budget,
    asked: Mapping[str, Any],
    replace_old: bool,
) -> Result:
    """Write the folder, whole or not at all, then tell the bank; gives the result as it was read back."""
    import dataclasses

    from headstart.io import results

    run.progress.stage("save", 1)
    warnings = _warnings(final, run, known, target, failed)
    summary = _summary(final, run, target, out)
    receipt = _receipt(final, run, target, summary, warnings, asked)
    data = _report_data(final, run, target, summary, warnings, known, budget, asked, failed, out)
    mine = final.chosen if final.returned == "chosen" else final.no_transfer
    common: dict[str, Any] = {
        "task": target.task,
        "modality": target.modality,
        "metric": target.metric.name,
        "columns": target.columns,
        "name": target.name,
        "rows": {"train": target.labelled.content, "test": target.seal.content},
    }

    def beside(folder: Path) -> None:
        if final.chosen and final.returned != "chosen":
            kept = {**summary, "returned": "chosen", "score": summary["candidate"]}
            results.write(folder / "candidate", members=_members(final.chosen), receipt=receipt, summary=kept, **common)
        told = data if examples else dataclasses.replace(data, examples=())
        (folder / REPORT).write_text(json.dumps(told.as_dict(), ensure_ascii=False, default=_plain), encoding="utf-8")
        _draw(told, folder, examples=examples)

    results.write(
        out,
        members=_members(mine),
        receipt=receipt,
        summary=summary,
        predictions=_predictions(final, target),
        beside=beside,
        overwrite=replace_old,
        event=run.hook,
        **common,
    )
    if inventory is not None:
        _remember(inventory, final, run, target, summary, receipt, known, out)
    return load(out)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _members(systems: Sequence[tuple[Any, float, Any]]) -> list[Member]:
    from headstart.io import artifacts
    from headstart.io.results import Member

    return [
        Member(artifact=artifacts.read(o.files / "artifact"), weight=w, name=s.name, source=s.source)
        for s, w, o in systems
    ]


def _draw(data: ReportData, folder: Path, *, examples: bool) -> None:
    from headstart.evidence import report
    from headstart.io.atomic import write_text

    write_text(folder / "report.html", report.render(data, examples=examples))
    write_text(folder / "README.md", report.card(data))


def rewrite_report(result: str | Path, *, examples: bool = True) -> Path:
    """Draw the report and the card of a saved result again; gives the page's path."""
    folder = Path(result)
    _draw(report_data(folder), folder, examples=examples)
    return folder / "report.html"


def report_data(folder: Path) -> ReportData:
    """What the report of a saved result was drawn from. Raises `Unreadable` where it is missing or damaged."""
    from headstart.core import Unreadable
    from headstart.evidence.report import ReportData
    from headstart.io import results

    results.read(folder)  # says what is wrong with the folder, if anything is
    try:
        return ReportData.from_dict(json.loads((folder / REPORT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise Unreadable(
            f"what the report is drawn from cannot be read ({type(error).__name__})",
            where=f"`{folder / REPORT}`",
            fix="run `headstart solve … --resume` to write it again",
        ) from error


def load(result: str | Path) -> Result:
    """A saved result, ready to predict, from nothing but its folder."""
    from headstart.inspection import read_rows
    from headstart.io import results

    saved = results.read(result)
    classes = saved.task.classes

    def predict(rows: Any) -> Prediction:
        found = read_rows(rows, saved.columns, saved.modality, saved.task)
        table = saved.predict_rows(found.inputs) if len(found) else None
        if table is None:
            return Prediction(labels=(), classes=classes)
        names = _names(rows, found.inputs) if saved.modality == "image" else ()
        if not classes:
            return Prediction(labels=tuple(float(v) for v in table[:, 0]), names=names)
        labels = tuple(classes[i] for i in table.argmax(axis=1))
        chances = tuple(map(tuple, table.tolist()))
        return Prediction(labels=labels, probabilities=chances, classes=classes, names=names)

    summary = saved.meta["summary"]
    return Result(
        where=str(saved.folder),
        verdict=summary.get("verdict"),
        summary=summary,
        receipt=saved.receipt,
        predictor=predict,
    )


def _names(given: Any, inputs: pa.Table) -> tuple[str, ...]:
    """Paths of images, within the folder that was given where they lie in it; none where any image has no path."""
    paths = [row["path"] for row in inputs["image"].to_pylist()]
    if not isinstance(given, (str, Path)) or not all(paths):
        return ()
    place = Path(given).expanduser().absolute()
    root = place if place.is_dir() else place.parent
    return tuple(str(Path(p).relative_to(root) if Path(p).is_relative_to(root) else p) for p in paths)


def admit_predictions(out: Path, *, overwrite: bool = False) -> None:
    """Raises a `Problem` now that `write_predictions` would raise later."""
    from headstart.core import Refused

    if out.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise Unfit(f"`{out.name}` ends in no known format", where="`--out`", fix="end it in .csv, .jsonl or .parquet")
    if out.exists() and not overwrite:
        raise Refused("the file is there already", where=f"`{out}`", fix="add --overwrite, or name another file")


def prediction_columns(found: Prediction) -> dict[str, list[Any]]:
    """By column: the images' names where there are any, the labels, and the probabilities of each class.

    >>> list(prediction_columns(Prediction(labels=("label",), probabilities=((0.6, 0.4),), classes=("label", "b"))))
    ['label', 'p_label', 'b']
    """
    columns: dict[str, list[Any]] = {"image": list(found.names)} if found.names else {}
    columns["label"] = list(found.labels)
    for at, name in enumerate(found.classes):
        while name in columns:
            name = f"p_{name}"
        columns[name] = [p[at] for p in found.probabilities]
    return columns


def write_predictions(found: Prediction, out: Path, *, overwrite: bool = False) -> None:
    """A CSV, JSONL or parquet file, by its ending; whole or not at all."""
    import io

    import pyarrow as pa
    from pyarrow import csv, parquet

    from headstart.io.atomic import write_bytes, writing

    admit_predictions(out, overwrite=overwrite)
    held = io.BytesIO()
    table = pa.table(prediction_columns(found))
    kind = out.suffix.lower()
    if kind == ".parquet":
        parquet.write_table(table, held)
    elif kind == ".jsonl":
        held.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode())
    else:
        csv.write_csv(table, held)
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, held.getvalue())


def _span(score: Measured | Mapping[str, Any]) -> dict[str, float]:
    values = score if isinstance(score, Mapping) else asdict(score)
    return {k: values[k] for k in ("value", "low", "high")}


def _out_of_fold(final: Final, target: Target) -> dict[str, Measured]:
    """Validation scores with intervals, of the chosen system and of the no-transfer one."""
    from headstart.execution.parts import Tried, measured_out_of_fold

    found = {}
    if final.choice.chosen is not None:
        first = final.choice.chosen.members[0][0]
        found["chosen"] = measured_out_of_fold(target, Tried(first.system, final.choice.chosen.table))
    if final.choice.no_transfer.table is not None:
        found["no-transfer"] = measured_out_of_fold(target, final.choice.no_transfer)
    return found


def _summary(final: Final, run: Run, target: Target, out: Path) -> dict[str, Any]:
    """The content of `solve --json`."""
    verdict = final.verdict.verified if final.verdict else None
    scores = _out_of_fold(final, target)
    candidate: dict[str, Any] | None = None
    if final.choice.chosen is not None:
        measured = verdict.chosen.score if verdict and verdict.chosen else scores["chosen"]
        candidate = {"name": final.choice.chosen.name, **_span(measured)}
    if verdict is not None:
        plain = _span(verdict.no_transfer.score)
    else:
        plain = _span(scores["no-transfer"]) if "no-transfer" in scores else {}
    score = candidate if final.returned == "chosen" else plain
    return {
        "verdict": verdict.verdict if verdict else None,
        "returned": final.returned,
        "metric": target.metric.name,
        "protocol": target.protocol,
        "score": _span(score) if score else None,
        "candidate": candidate,
        "gain": _judged(verdict.gain) if verdict else None,
        "choice_gain": _judged(verdict.choice_gain) if verdict else None,
        "baselines": [{"name": n, **_span(m)} for n, m in verdict.baselines.items()] if verdict else [],
        "sources": sorted({s.source.id for s, _, _ in final.chosen if s.source}) if final.returned == "chosen" else [],
        "seconds": round(run.meter.spent(), 3),
        "time_bound": bool(run.meter.bound),
        "interrupted": final.interrupted,
        "out": str(out),
    }


def _judged(gain: Any) -> dict[str, Any] | None:
    return None if gain is None else {"verdict": gain.verdict, **_span(asdict(gain)), "opponent": gain.opponent}


def _warnings(final: Final, run: Run, known: Known, target: Target, failed: Sequence[tuple[str, Problem]]) -> list[str]:
    """What a reader of the report must know."""
    found = list(target.notes)
    found += [f"source `{name}` was left out: {problem.what}" for name, problem in failed]
    if all(r.error is not None for r in final.choice.ranked):
        found.append("no source on the shelf could be used, so this is the best system without transfer")
    found += [f"source `{r.source.name}` failed: {r.error.what}" for r in final.choice.ranked if r.error]
    for trial in [*final.choice.baselines, *final.choice.tuned]:
        if trial.error is not None:
            found.append(f"`{trial.system.name}` failed: {trial.error.what}")
        elif trial.stopped:
            found.append(f"`{trial.system.name}` was cut by {trial.stopped}, and did not compete")
    for system, end in final.unfitted:
        why = end.error.what if end.error else f"it was cut by {end.stopped}"
        found.append(f"`{system.name}` could not be fitted on all rows: {why}")
    found += [
        f"`{r.source.name}`: {known.marks[r.source.id]['sentence']}"
        for r in final.choice.ranked
        if known.marks[r.source.id]["shared"]
    ]
    if "routes" in run.journal.decisions:
        plan = run.journal.decisions["routes"]["value"]
        if not plan.get("routes"):
            found.append(f"routes that train weights did not compete: {plan['reason']}")
        elif plan.get("horizon"):
            found.append(f"schedules were shortened: {plan['reason']}")
    for note in run.noted("outer folds"):
        if note["opened"] == 0:
            found.append("the time allowed no outer fold, so nothing was verified")
        elif note["opened"] < note["of"]:
            some = f"{note['opened']} of {note['of']} outer folds"
            found.append(f"the time allowed {some}: the verdict rests on their rows")
    if run.meter.bound:
        found.append("the time limit cut this run short; more minutes may find more")
    if final.interrupted:
        found.append("the run was stopped by Ctrl-C; `--resume` goes on with it")
    if known.openings:
        times = "once" if known.openings == 1 else f"{known.openings} times"
        found.append(f"this test was opened {times} before: each opening makes a lucky result likelier")
    return list(dict.fromkeys(found))


def _receipt(
    final: Final,
    run: Run,
    target: Target,
    summary: Mapping[str, Any],
    warnings: Sequence[str],
    asked: Mapping[str, Any],
) -> Receipt:
    from headstart.io.results import versions

    mine = final.chosen if final.returned == "chosen" else final.no_transfer
    rows = final.verdict.verified.rows if final.verdict else len(target.labelled)
    scores = {target.metric.name: Measured(**_span(summary["score"]), rows=rows)} if summary["score"] else {}
    return Receipt(
        step="solve",
        method=" + ".join(s.method for s, _, _ in mine),
        settings=dict(asked),
        inputs=(target.fingerprint, *(s.source.identity for s, _, _ in mine if s.source)),
        seeds=(target.seed,),
        threads=int(run.journal.decisions["workers"]["value"]["cores"]),
        versions={**versions(), "system": platform.platform()},
        protocol=target.protocol,
        scores=scores,
        seconds=float(summary["seconds"]),
        warnings=tuple(warnings),
        facts={
            "verdict": summary["verdict"],
            "gain": summary["gain"],
            "choice_gain": summary["choice_gain"],
            "returned": final.returned,
            "members": [
                {"system": s.name, "method": s.method, "settings": dict(s.settings), "seed": s.seed, "weight": w}
                for s, w, _ in mine
            ],
            "stages": {k: round(v, 3) for k, v in run.meter.spent_by_stage.items()},
        },
    )


def _predictions(final: Final, target: Target) -> Any:
    """The test rows: id, label, and what the returned system and its opponent said."""
    if final.verdict is None:
        return None
    import pyarrow as pa

    tables, classes = final.verdict.tables, target.task.classes
    columns: dict[str, Any] = {"id": list(final.verdict.ids)}
    columns["label"] = [classes[i] for i in final.verdict.labels] if classes else final.verdict.labels.tolist()
    for name in ("chosen", "no-transfer"):
        if name in tables:
            table = tables[name]
            columns[f"{name}: predicted"] = [classes[i] for i in table.argmax(1)] if classes else table[:, 0].tolist()
            for at, label in enumerate(classes):
                columns[f"{name}: p({label})"] = table[:, at].tolist()
    return pa.table(columns)


def _report_data(
    final: Final,
    run: Run,
    target: Target,
    summary: Mapping[str, Any],
    warnings: Sequence[str],
    known: Known,
    budget: Budget,
    asked: Mapping[str, Any],
    failed: Sequence[tuple[str, Problem]],
    out: Path,
) -> ReportData:
    from headstart.evidence.report import ReportData
    from headstart.inspection import inspect
    from headstart.io.results import versions

    stages = sorted({*run.meter.spent_by_stage, *run.meter.forecasts})
    command = str(asked.get("command", f"headstart solve {target.name} --out {out}"))
    return ReportData(
        title=target.name,
        summary=summary,
        card=inspect(target),
        verified=final.verdict.verified.as_dict() if final.verdict else None,
        race=_race(final, target, failed),
        trials=_trials(final, target),
        agreement=_agreement(final, target),
        examples=_examples(final, target),
        stages=[
            {
                "stage": s,
                "forecast_seconds": run.meter.forecasts.get(s),
                "seconds": run.meter.spent_by_stage.get(s, 0.0),
            }
            for s in stages
        ],
        minutes=budget.minutes if budget.minutes < float("inf") else None,
        sources=_sources(final, known),
        warnings=warnings,
        test_openings=None if known.openings is None or final.verdict is None else known.openings + 1,
        use=[f"headstart predict {out} new.csv --out predictions.csv"],
        use_python=["import headstart as hs", f"result = hs.load({str(out)!r})", "result.predict(rows)"],
        reproduce=[command],
        versions=versions(),
        seeds=[target.seed],
        classes=list(target.task.classes),
    )


def _race(final: Final, target: Target, failed: Sequence[tuple[str, Problem]]) -> list[dict[str, Any]]:
    from headstart.execution.parts import better, out_of_fold_score

    plain = final.choice.no_transfer
    bar = out_of_fold_score(target, plain.table) if plain.table is not None else float("nan")
    rows = []
    for r in final.choice.ranked:
        harm = None
        if r.score is not None and better(target, r.score.value) < better(target, bar):
            harm = (
                f"`{r.source.name}` as it is would be worse than no transfer: {target.metric.title} "
                f"{r.score.value:.3f} against {bar:.3f} of {plain.system.name}, out of fold"
            )
        span = _span(r.score) if r.score else {"value": None, "low": None, "high": None}
        rows.append(
            {
                "id": r.source.id,
                "name": r.source.name,
                "score": span["value"],
                "low": span["low"],
                "high": span["high"],
                "rows": r.rows,
                "cost_seconds": r.seconds,
                "dropped": r.dropped or (r.error.what if r.error else None),
                "harm": harm,
                "proxies": dict(r.proxies),
            }
        )
    for name, problem in failed:
        empty = dict.fromkeys(("score", "low", "high", "harm"))
        rows.append(
            {"id": "", "name": name, "rows": 0, "cost_seconds": 0.0, "dropped": problem.what, "proxies": {}, **empty}
        )
    return rows


def _trials(final: Final, target: Target) -> list[dict[str, Any]]:
    from headstart.execution.parts import better, measured_out_of_fold

    probes = [r.probe for r in final.choice.ranked if r.probe is not None]
    rows = []
    for trial in [*final.choice.baselines, *probes, *final.choice.tuned]:
        score = measured_out_of_fold(target, trial) if trial.table is not None else None
        cut = f"cut by {trial.stopped}" if trial.stopped else None
        rows.append(
            {
                "name": trial.system.name,
                "source": trial.system.source.name if trial.system.source else None,
                "route": trial.system.method,
                "score": score.value if score else None,
                "low": score.low if score else None,
                "high": score.high if score else None,
                "seconds": trial.seconds,
                "error": trial.error.what if trial.error else cut,
            }
        )
    return sorted(rows, key=lambda r: -better(target, float("nan") if r["score"] is None else r["score"]))


def _agreement(final: Final, target: Target) -> list[dict[str, Any]]:
    """What validation predicted beside what the test measured."""
    from headstart.execution.parts import out_of_fold_score

    if final.verdict is None:
        return []
    verified, rows = final.verdict.verified, []
    if verified.chosen is not None and final.choice.chosen is not None:
        rows.append(
            {
                "name": f"chosen: {final.choice.chosen.name}",
                "predicted": final.choice.chosen.score,
                **_span(verified.chosen.score),
            }
        )
    tables = {t.system.name: t for t in final.choice.baselines if t.table is not None}
    if final.choice.naive is not None:
        tables[final.choice.naive.system.name] = final.choice.naive
    for name, measured in verified.baselines.items():
        if name in tables:
            rows.append({"name": name, "predicted": out_of_fold_score(target, tables[name].cells()), **_span(measured)})
    return rows


def _examples(final: Final, target: Target) -> list[dict[str, Any]]:
    """The worst errors of what is returned, with their inputs."""
    if final.verdict is None:
        return []
    verdict = final.verdict
    name = "chosen" if final.returned == "chosen" else "no-transfer"
    portrait = verdict.verified.chosen if name == "chosen" else verdict.verified.no_transfer
    if portrait is None:
        return []
    classes, table = target.task.classes, verdict.tables[name]
    found = []
    for at in portrait.worst:
        guess = int(table[at].argmax())
        found.append(
            {
                "row": verdict.ids[at],
                "label": classes[verdict.labels[at]] if classes else float(verdict.labels[at]),
                "predicted": classes[guess] if classes else float(table[at, 0]),
                "probability": float(table[at, guess]) if classes else None,
                **_shown(target.modality, verdict.inputs.slice(at, 1).to_pylist()[0]),
            }
        )
    return found


def _shown(modality: str, row: Mapping[str, Any]) -> dict[str, Any]:
    if modality == "text":
        return {"text": str(row["text"])[:4000]}
    if modality == "image":
        from headstart.evidence.figures import thumbnail
        from headstart.io.images import decode

        return {"thumbnail": thumbnail(decode(row["image"]))}
    return {"cells": {str(k): v for k, v in row.items()}}


def _sources(final: Final, known: Known) -> list[dict[str, Any]]:
    used = {s.source.id for s, _, _ in final.chosen if s.source}
    rows = []
    for r in final.choice.ranked:
        s = r.source
        mark = known.marks.get(s.id, {})
        rows.append(
            {
                "id": s.id,
                "name": s.name,
                "kind": s.kind,
                "origin": s.origin or s.where,
                "licence": s.licence,
                "base": s.base,
                "lineage": list(s.lineage),
                "used": s.id in used,
                "trained_on": mark.get("sentence", "its training rows are unknown"),
                "loads_with": None,
            }
        )
    return rows


def _remember(
    inventory: Inventory,
    final: Final,
    run: Run,
    target: Target,
    summary: Mapping[str, Any],
    receipt: Receipt,
    known: Known,
    out: Path,
) -> None:
    """Tell the bank: the target, every trial and proxy, what it cost, and the new source."""
    from headstart.execution.parts import measured_out_of_fold
    from headstart.inventory.records import Cost, ProxyScore, Trial
    from headstart.inventory.records import Run as Record
    from headstart.io.places import CACHE_BYTES, cache_folder

    inventory.record_target(target, _signature(target))
    probes = [r.probe for r in final.choice.ranked if r.probe is not None]
    trials = [
        Trial(
            name=t.system.name,
            kind=t.system.kind,
            method=t.system.method,
            source=t.system.source.identity if t.system.source else None,
            seed=t.system.seed,
            settings=dict(t.system.settings),
            status="failed" if t.error else "stopped" if t.stopped else "done",
            error=t.error.as_dict() if t.error else None,
            valid=measured_out_of_fold(target, t) if t.table is not None else None,
            seconds=t.seconds,
            curve=tuple(
                (int(f["repeat"]), int(f["fold"]), int(p[0]), p[1], p[2]) for f in t.folds for p in f.get("curve", ())
            ),
        )
        for t in [*final.choice.baselines, *probes, *final.choice.tuned]
    ]
    scores = [
        ProxyScore(
            source=r.source.identity, estimator=name, value=value, rows=r.rows, dropped=r.dropped, seconds=r.seconds
        )
        for r in final.choice.ranked
        for name, value in r.proxies.items()
    ]
    costs = [
        Cost(stage=s, seconds=v, forecast_seconds=run.meter.forecasts.get(s))
        for s, v in run.meter.spent_by_stage.items()
    ]
    record = Record(
        id=known.run,
        target=target.fingerprint,
        seed=target.seed,
        settings=dict(receipt.settings),
        protocol=target.protocol,
        version=receipt.versions.get("headstart", ""),
        status="done" if summary["verdict"] else "cut",
        verdict=summary["verdict"],
        summary=summary,
        receipt=receipt,
        seconds=float(summary["seconds"]),
    )
    inventory.record_run(record, trials=trials, scores=scores, costs=costs)
    if final.returned == "chosen" and target.modality != "table":
        inventory.add(out)
    with closing(inventory.feature_cache(cache_folder(), CACHE_BYTES)) as cache:
        cache.evict()
