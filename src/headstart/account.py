"""The account of a journey: its summary, warnings and receipt, and what the report shows. Writes no file."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Budget, Measured, Problem, Receipt, Target

if TYPE_CHECKING:
    from headstart.evidence.report import ReportData
    from headstart.execution.run import Run
    from headstart.flow import Final
    from headstart.outcome import Known

NAMED = 5  # sources that one warning names


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


def summary_of(final: Final, run: Run, target: Target, out: Path) -> dict[str, Any]:
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


def warnings_of(
    final: Final, run: Run, known: Known, target: Target, failed: Sequence[tuple[str, Problem]]
) -> list[str]:
    """What a reader of the report must know."""
    found = list(target.notes)
    alike: dict[str, list[str]] = {}
    for name, problem in failed:
        alike.setdefault(problem.what, []).append(f"`{name}`")
    for what, names in alike.items():
        some = ", ".join(names[:NAMED]) + (" …" if len(names) > NAMED else "")
        which = f"source {names[0]} was" if len(names) == 1 else f"{len(names)} sources were"
        found.append(f"{which} left out: {what}" + (f" ({some})" if len(names) > 1 else ""))
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
    if "routes" in run.journal.decisions and final.choice.ranked:
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


def receipt_of(
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


def predictions_of(final: Final, target: Target) -> Any:
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


def report_data_of(
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
