"""What a journey leaves: the saved folder with its report and card, and what the bank learns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Budget, Prediction, Problem, Receipt, Refused, Result, Source, Target, Unfit

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

    begun = (out / "run" / "journal.jsonl").exists()
    results.admit(out, overwrite=overwrite or (resume and begun))
    if overwrite and not resume:
        shutil.rmtree(out / "run", ignore_errors=True)
    elif begun and not resume:
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
    from headstart.inventory.recall import signature_of
    from headstart.inventory.records import fingerprint_of_test

    name = run.decide("run", lambda: uuid.uuid4().hex)
    outer = target.protocol == "outer_cv"
    rows = target.labelled.content if outer else target.seal.content

    def read() -> dict[str, Any]:
        if inventory is None:  # what sources say of themselves is known without a bank
            marks = contamination.marks(contamination.told_by(shelf), rows, outer=outer).as_dict()
            test = fingerprint_of_test(target)
            return {"order": [s.id for s in shelf], "marks": marks, "test": test, "openings": None, "recalled": []}
        found = inventory.snapshot(target, shelf, signature_of(target))
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

    from headstart import account
    from headstart.io import results

    run.progress.stage("save", 1)
    warnings = account.warnings_of(final, run, known, target, failed)
    summary = account.summary_of(final, run, target, out)
    receipt = account.receipt_of(final, run, target, summary, warnings, asked)
    data = account.report_data_of(final, run, target, summary, warnings, known, budget, asked, failed, out)
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
        predictions=account.predictions_of(final, target),
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


def load(result: str | Path, *, task: str | None = None) -> Result:
    """A saved result, ready to predict, from nothing but its folder.

    It may be a merge with parts that stay apart. task: of that, whose rows are to be predicted; None lets its router
    say, row by row.
    """
    from headstart.inspection import read_rows
    from headstart.io import results, routing_files

    if routing_files.is_routed(Path(result)):
        return _routed(Path(result), task)
    if task is not None:
        raise Unfit(f"the result has no task `{task}`: it has one only", where=f"`{result}`", fix="leave out the task")
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


def _routed(folder: Path, task: str | None) -> Result:
    """A merge with parts that stay apart, as a result. Raises `Unreadable` for what is damaged or newer."""
    from headstart.core import RECEIPT_VERSION
    from headstart.inspection import read_unlabelled
    from headstart.io import artifacts
    from headstart.io.routed import RoutedModel

    model = RoutedModel(folder)
    model.check_task(task)
    classes = tuple(dict.fromkeys(label for head in model.heads for label in head.labels))
    path = folder / "merge.json"
    try:
        receipt = Receipt.from_dict(artifacts.read_described(path, RECEIPT_VERSION, "version"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise artifacts.damaged(path, f"{type(error).__name__}: {error}") from error

    def predict(rows: Any) -> Prediction:
        if isinstance(rows, (list, tuple)) and not rows:
            return Prediction(labels=(), classes=classes)
        inputs = read_unlabelled(rows).inputs
        table, tasks = model.table(inputs, classes, task)
        labels = tuple(classes[i] for i in table.argmax(axis=1))
        names = _names(rows, inputs) if "image" in inputs.column_names else ()
        return Prediction(
            labels=labels, probabilities=tuple(map(tuple, table.tolist())), classes=classes, names=names, tasks=tasks
        )

    summary = {"tasks": model.tasks, "router": model.parts.router is not None}
    return Result(where=str(folder), verdict=None, summary=summary, receipt=receipt, predictor=predict)


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
    """By column: the images' names and the tasks where there are any, the labels, and each class's probabilities.

    >>> list(prediction_columns(Prediction(labels=("label",), probabilities=((0.6, 0.4),), classes=("label", "b"))))
    ['label', 'p_label', 'b']
    """
    columns: dict[str, list[Any]] = {"image": list(found.names)} if found.names else {}
    if found.tasks:
        columns["task"] = list(found.tasks)
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
    from headstart.inventory.recall import signature_of
    from headstart.inventory.records import Cost, ProxyScore, Trial
    from headstart.inventory.records import Run as Record
    from headstart.io.places import CACHE_BYTES, cache_folder

    inventory.record_target(target, signature_of(target))
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
        version=receipt.versions["headstart"],
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
