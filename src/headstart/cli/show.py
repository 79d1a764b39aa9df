"""What commands print: for people with Rich, for machines one JSON document."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import KINDS, Prediction, Problem, Result, Source, Target, Unfit
from headstart.numerics.plain_text import plain

if TYPE_CHECKING:
    from rich.table import Table

PREVIEW = 20  # rows that `predict` shows on a terminal


def process_start() -> float:
    """`time.monotonic()` as it was when this process began."""
    import psutil

    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())


def command_line() -> dict[str, Any]:
    """What was typed, for the report: without the folder that Python lies in."""
    return {"command": shlex.join(["headstart", *sys.argv[1:]])}


def emit(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout; numbers that JSON has no word for become null."""
    print(json.dumps(_finite(document), ensure_ascii=False, indent=1))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def warn(text: str) -> None:
    """A line on stderr."""
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\x1b[33mwarning:\x1b[0m {plain(text)}" if colour else f"warning: {plain(text)}", file=sys.stderr)


def made(document: Mapping[str, Any], sentence: str, *, machine: bool) -> None:
    """What was made and where."""
    if machine:
        emit(document)
    else:
        print(plain(sentence))


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` as typed: JSON where it is JSON, else text.

    >>> settings(["epochs=3", "name=x"])
    {'epochs': 3, 'name': 'x'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Unfit(f"`{pair}` is not a setting", where="`--set`", fix="write it like --set epochs=3")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in columns:
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return table


def _print(*things: Any) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 120)
    for thing in things:
        console.print(Text(plain(thing)) if isinstance(thing, str) else thing)


def _number(value: Any) -> str:
    return "" if value is None or value != value else f"{value:.3f}"


def _span(score: Mapping[str, Any] | None) -> str:
    return "" if not score else f"{score['value']:.3f}  [{score['low']:.3f}, {score['high']:.3f}]"


def card(found: Mapping[str, Any], *, machine: bool) -> None:
    """The target card."""
    if machine:
        emit(found)
        return
    from rich.text import Text

    rows = _table("", "", "")
    task = found["task"]
    kind = task["type"] if isinstance(task, Mapping) else str(task)
    rows.add_row("task", f"{kind.replace('_', '-')} over {found['modality']}, measured by {found['metric']}")
    told = [
        (
            "rows",
            f"{found['rows']}: {found['labelled']} labelled, {found['unlabelled']} unlabelled, {found['test']} test",
        )
    ]
    for name in (
        "columns",
        "imbalance",
        "lengths",
        "sizes",
        "duplicates",
        "conflicting_labels",
        "label_variants",
        "leaks",
    ):
        if found.get(name):
            told.append((name.replace("_", " "), _plainly(found[name])))
    told.append(("smallest difference", _plainly(found["smallest_difference"])))
    told.append(("protocol", found["protocol"]["sentence"]))
    for name, value in told:
        rows.add_row(Text(name), Text(plain(value)))
    _print(f"target `{found['name']}`", rows)
    if found.get("classes"):
        classes = _table("", "class", ">rows")
        for one in found["classes"][:40]:
            classes.add_row(Text(plain(str(one["name"]))), str(one["rows"]))
        if len(found["classes"]) > 40:
            classes.add_row(f"… and {len(found['classes']) - 40} more", "")
        _print(classes)
    for note in found.get("notes", ()):
        warn(note)


def _plainly(value: Any) -> str:
    """A JSON value as one or more short lines."""
    if isinstance(value, Mapping):
        if "sentence" in value:
            return str(value["sentence"])
        return ", ".join(f"{k.replace('_', ' ')} {_plainly(v)}" for k, v in value.items() if v not in (None, [], {}))
    if isinstance(value, (list, tuple)):
        shown = "; ".join(_plainly(v) for v in value[:5])
        return shown + (f"; … {len(value) - 5} more" if len(value) > 5 else "")
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ranking(
    ranked: Sequence[Source], failed: Sequence[tuple[str, Problem]], target: Target, seconds: float, *, machine: bool
) -> None:
    """The race: who is expected to help, and who left when and why."""
    listed, broken = [], [{"id": None, "name": name, "error": problem.what} for name, problem in failed]
    for source in ranked:
        assert source.receipt is not None
        facts = source.receipt.facts
        if facts["error"]:
            broken.append({"id": source.id, "name": source.name, "error": facts["error"]["what"]})
            continue
        score = source.receipt.scores.get("score")
        listed.append(
            {
                "id": source.id,
                "name": source.name,
                "score": score.value if score else None,
                "low": score.low if score else None,
                "high": score.high if score else None,
                "proxies": facts["proxies"],
                "cost_seconds": source.receipt.seconds,
                "dropped": facts["dropped"],
            }
        )
    if machine:
        emit({"sources": listed, "failed": broken})
        return
    from rich.text import Text

    names = [*dict.fromkeys(n for one in listed for n in one["proxies"])]
    columns = ["source", f">{target.metric.title} of a probe", *(f">{n}" for n in names), ">seconds", "left because"]
    table = _table("", *columns)
    for one in listed:
        proxies = [_number(one["proxies"].get(n)) for n in names]
        span = _span({"value": one["score"], **one}) if one["score"] is not None else ""
        table.add_row(
            Text(plain(one["name"])), span, *proxies, f"{one['cost_seconds']:.1f}", Text(plain(one["dropped"] or ""))
        )
    _print(table)
    for one in broken:
        warn(f"`{one['name']}`: {one['error']}")
    _print(f"ranked {len(listed)} sources in {seconds:.1f} s")


def solved(result: Result, *, machine: bool, story: bool = False) -> int:
    """The verdict, and the exit code: 3 where the budget ended before verify."""
    from headstart.evidence.report import sentence

    summary = result.summary
    code = 130 if summary.get("interrupted") else 3 if result.verdict is None else 0
    if machine:
        emit({k: v for k, v in summary.items() if k != "interrupted"})
        return code
    from rich.text import Text

    if story:
        _story(result)
    table = _table("", "system", f">{summary['metric']}  [95 % interval]", "")
    if summary["candidate"]:
        given = "returned" if summary["returned"] == "chosen" else "kept in candidate/"
        table.add_row(Text(plain(f"chosen: {summary['candidate']['name']}")), _span(summary["candidate"]), given)
    for one in summary["baselines"]:
        table.add_row(Text(plain(one["name"])), _span(one), "")
    if summary["baselines"] or summary["candidate"]:
        _print(table)
    word = result.verdict or "not verified"
    _print(f"verdict: {word}. {sentence(summary)}")
    size = sum(p.stat().st_size for p in Path(result.where).rglob("*") if p.is_file() and "run" not in p.parts[-3:])
    _print(f"report: `{Path(result.where) / 'report.html'}`")
    _print(f"saved `{result.where}` ({size / 1e6:.1f} MB, {summary['seconds']:.0f} s)")
    return code


def _story(result: Result) -> None:
    """The demo's three scenes: the ranking, the rungs of adaptation, and harm that was caught."""
    from rich.text import Text

    from headstart.outcome import report_data

    data = report_data(Path(result.where))
    table = _table(
        "1. The ranking: a race on growing samples", "source", ">probe, out of fold", ">rows seen", "left because"
    )
    for row in data.race:
        table.add_row(
            Text(plain(row["name"])), _number(row.get("score")), str(row["rows"]), Text(plain(row["dropped"] or ""))
        )
    _print(table)
    rungs = _table("2. Adaptation: routes of rising cost", "system", ">out of fold", ">seconds", "")
    for row in data.trials:
        note = row.get("error") or ""
        rungs.add_row(Text(plain(row["name"])), _number(row.get("score")), f"{row['seconds']:.1f}", Text(plain(note)))
    _print(rungs)
    for row in data.race:
        if row.get("harm"):
            _print(f"3. Harm caught: {row['harm']}")


def predicted(result: Result, found: Prediction, out: Path | None, *, overwrite: bool, machine: bool) -> None:
    """Labels and probabilities as JSON, a file, or CSV on stdout."""
    from headstart.outcome import write_predictions

    if machine:
        lines = (
            [
                {"label": label, "probabilities": dict(zip(found.classes, p, strict=True))}
                for label, p in zip(found.labels, found.probabilities or [()] * len(found), strict=True)
            ]
            if found.classes
            else [{"label": label} for label in found.labels]
        )
        document: dict[str, Any] = {"result": result.where, "rows": len(found), "predictions": lines}
        if out is not None:
            write_predictions(found, out, overwrite=overwrite)
            document["out"] = str(out)
        emit(document)
    elif out is not None:
        write_predictions(found, out, overwrite=overwrite)
        print(plain(f"saved `{out}` ({len(found)} rows)"))
    else:
        import csv

        writer = csv.writer(sys.stdout)
        writer.writerow(["label", *found.classes])
        for at, label in enumerate(found.labels):
            chances = [f"{p:.6g}" for p in found.probabilities[at]] if found.classes else []
            writer.writerow([plain(str(label)), *chances])


def adapted(source: Source, target: Target, out: Path, *, machine: bool) -> None:
    """Where the fitted source lies, and its out-of-fold score."""
    assert source.receipt is not None
    score = source.receipt.scores[target.metric.name]
    document = {
        "id": source.id,
        "name": source.name,
        "method": source.receipt.method,
        "metric": target.metric.name,
        "score": {"value": score.value, "low": score.low, "high": score.high},
        "seconds": source.receipt.seconds,
        "out": str(out),
    }
    said = (
        f"{target.metric.title} {_span(document['score'])} out of fold\nsaved `{out}` ({source.receipt.seconds:.0f} s)"  # type: ignore[arg-type]  # it is a mapping
    )
    if machine:
        emit(document)
    else:
        for line in said.splitlines():
            print(plain(line))


def methods(stage: str | None, fits: Sequence[str], bank: str | None, *, machine: bool) -> None:
    """The catalogue."""
    from headstart import catalogue

    kinds = [k for k in KINDS if stage is None or k == stage or k.split(".")[0] == stage]
    if not kinds:
        stages = sorted({k.split(".")[0] for k in KINDS} | set(KINDS))
        raise Unfit(
            f"no stage is called `{stage}`", where="`headstart methods`", fix=f"use one of: {', '.join(stages)}"
        )
    sources = _named(fits, bank)
    lines = []
    for kind in kinds:
        for entry in catalogue.entries(kind).values():
            if sources and (not entry.needs.gives or catalogue.refusal(entry.needs, sources)):
                continue
            lines.append(
                {
                    "stage": entry.stage,
                    "kind": kind,
                    "name": entry.name,
                    "title": entry.summary,
                    "needs": list(entry.needs.gives),
                    "tasks": list(entry.needs.tasks),
                    "modalities": list(entry.needs.modalities),
                    "citation": entry.cites,
                }
            )
    if machine:
        emit({"methods": lines})
        return
    table = _table("", "kind", "name", "what it does", "needs", "from")
    for one in lines:
        table.add_row(
            *(str(one[k]) for k in ("kind", "name", "title")),
            ", ".join(one["needs"]) or "rows only",
            str(one["citation"]),
        )
    _print(table)


def _named(wanted: Sequence[str], bank: str | None) -> list[Source]:
    if not wanted:
        return []
    from headstart.inventory import Inventory
    from headstart.io.sources import scan

    found: list[Source] = []
    for name in wanted:
        if Path(name).exists() or name.startswith("hub:"):
            here, failed = scan(name)
            if failed and not here:
                raise failed[0][1]
            found += here
        else:
            found.append(Inventory(bank).show(name))
    return found


def _source_line(source: Source) -> dict[str, Any]:
    return {
        "id": source.id,
        "name": source.name,
        "kind": source.kind,
        "modality": source.modality,
        "gives": list(source.gives),
        "where": source.where,
        "origin": source.origin,
        "licence": source.licence,
    }


def sources(listed: Iterable[Source], *, machine: bool) -> None:
    """What is on the shelf."""
    lines = [_source_line(s) for s in listed]
    if machine:
        emit({"sources": lines})
        return
    from rich.text import Text

    table = _table("", "id", "name", "kind", "reads", "gives", "licence")
    for one in lines:
        cells = (one["id"], one["name"], one["kind"], one["modality"], ", ".join(one["gives"]), one["licence"] or "")
        table.add_row(*(Text(plain(c)) for c in cells))
    _print(table, f"{len(lines)} sources")


def source(one: Source, *, machine: bool) -> None:
    """Everything about one source."""
    known = _source_line(one)
    document = {
        **known,
        "weights": one.weights,
        "identity": one.identity,
        "base": one.base,
        "lineage": list(one.lineage),
        "facts": dict(one.facts),
        "trained_on": None if one.trained_on is None else len(one.trained_on),
    }
    if machine:
        emit({"source": document})
        return
    from rich.text import Text

    table = _table("", "", "")
    for name, value in document.items():
        table.add_row(name.replace("_", " "), Text(plain(_plainly(value))) if value is not None else "unknown")
    _print(table)


def added(found: Sequence[Source], failed: Sequence[tuple[str, Problem]], where: str, *, machine: bool) -> int:
    """What came onto the shelf; 1 where nothing did."""
    if machine:
        broken = [{"id": None, "name": name, "error": p.what, "fix": p.fix} for name, p in failed]
        emit({"sources": [_source_line(s) for s in found], "failed": broken})
    else:
        for one in found:
            print(plain(f"added `{one.name}` ({one.kind}, reads {one.modality}, {one.id})"))
        for name, problem in failed:
            warn(f"`{name}`: {problem.what}; {problem.fix}")
        print(plain(f"saved {len(found)} sources in {where}"))
    return 0 if found or not failed else 1


def damage(found: Sequence[Any], count: int, *, machine: bool) -> int:
    """What is missing or changed on the shelf; 1 where something is."""
    lines = [
        {"id": d.source.id, "name": d.source.name, "missing": list(d.missing), "changed": list(d.changed)}
        for d in found
    ]
    if machine:
        emit({"damage": lines, "sources": count})
    else:
        for one in lines:
            missing, changed = (", ".join(one[k]) or "nothing" for k in ("missing", "changed"))
            warn(f"`{one['name']}`: missing {missing}; changed {changed}")
        print(f"{count} sources read, {len(lines)} damaged")
    return 1 if lines else 0


def doctor(*, machine: bool) -> None:
    """What works here, and what would make the rest work."""
    from headstart.cli.examination import examine

    found = examine()
    if machine:
        emit(found)
        return
    from rich.text import Text

    table = _table("", "", "", "")
    marks = {True: "ok", False: "missing", None: ""}
    for line in found["checks"]:
        table.add_row(line["name"], marks[line["ok"]], Text(plain(line["what"])))
    _print(table)
    for line in found["checks"]:
        if line["ok"] is False and line["fix"]:
            _print(f"{line['name']}: {line['fix']}")
