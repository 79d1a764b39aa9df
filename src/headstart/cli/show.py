"""What each command prints: for people lines and tables, for machines one JSON document."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli.printing import (
    YELLOW,
    cell,
    draw,
    emit,
    facts,
    interval,
    line,
    note,
    number,
    saved,
    table,
    warn,
    write,
)
from headstart.core import KINDS, METRICS, Prediction, Problem, Result, Source, Target, Unfit
from headstart.numerics.plain_text import plain

if TYPE_CHECKING:
    from headstart.inventory.imports import Imported, Origin
    from headstart.inventory.maps import Mapped
    from headstart.inventory.recall import Ended, Past

LONG = 44  # characters of a name in a table
SHOWN = 5  # entries of a list on one line


def process_start() -> float:
    """`time.monotonic()` as it was when this process began."""
    import psutil

    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())


def command_line(words: Sequence[str]) -> dict[str, Any]:
    """What was typed, for the report: without the folder that Python lies in."""
    return {"command": shlex.join(["headstart", *words])}


def settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` as typed: JSON where it is JSON, a list where there are commas, else text.

    >>> settings(["epochs=3", "name=x", "weights=0.7,0.3"])
    {'epochs': 3, 'name': 'x', 'weights': [0.7, 0.3]}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Unfit(f"`{pair}` is not a setting", where="`--set`", fix="write it like --set epochs=3")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [_value(part) for part in text.split(",")] if "," in text else text


def made(document: Mapping[str, Any], sentence: str, *, machine: bool) -> None:
    """What was made and where."""
    if machine:
        emit(document)
    else:
        saved(sentence)


def unread(failed: Iterable[tuple[str, Problem]], what: str = "source") -> None:
    """Sources, or data sets, that could not be read, each with what to do."""
    for name, problem in failed:
        warn(f"{what} `{name}` is left out: {problem.what}; {problem.fix}")


def error_of(name: str, problem: Mapping[str, str]) -> dict[str, Any]:
    return {"id": None, "name": name, "error": problem["what"], "fix": problem["fix"]}


def short(text: object) -> str:
    return plain(text, limit=LONG)


def counted(number_of: int, noun: str) -> str:
    """
    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number_of:,} {noun}" + ("" if number_of == 1 else "s")


def solved(result: Result, *, machine: bool, story: bool = False) -> int:
    """The verdict, and the exit code: 3 where the budget ended before verify."""
    from headstart.evidence.report import sentence

    summary = result.summary
    code = 130 if summary.get("interrupted") else 3 if result.verdict is None else 0
    if machine:
        emit(summary)
        return code
    if story:
        _story(result)
    systems = _systems(summary)
    if systems:
        metric = str(summary["metric"])
        title = METRICS[metric].title if metric in METRICS else metric
        draw(table("system", f">{title}", "95 % interval", "", rows=systems), "")
    word = result.verdict or "not verified"
    draw(f"verdict: {word}", sentence(summary))
    for warning in result.receipt.warnings:
        warn(warning)
    where = Path(result.where)
    line(f"report: `{where / 'report.html'}`")
    size = sum(p.stat().st_size for p in where.rglob("*") if p.is_file() and p.relative_to(where).parts[0] != "run")
    saved(f"saved `{where}` ({size / 1e6:.1f} MB, {summary['seconds']:.0f} s)")
    return code


def _systems(summary: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """The candidate and the systems that it met, with what became of the two between which verify decides."""
    rows: list[tuple[object, ...]] = []
    taken = summary["returned"] == "chosen"
    if summary["candidate"]:
        fate = "returned" if taken else "kept in candidate/"
        rows.append((f"chosen: {summary['candidate']['name']}", *_measured(summary["candidate"]), fate))
    for at, one in enumerate(summary["baselines"]):
        rows.append((one["name"], *_measured(one), "returned" if at == 0 and not taken else ""))
    if not rows and summary["score"]:
        rows.append(("the best system without transfer", *_measured(summary["score"]), "returned"))
    return rows


def _measured(score: Mapping[str, Any]) -> tuple[str, str]:
    return number(score["value"]), interval(score)


def _story(result: Result) -> None:
    """The demo's three scenes: the ranking, the rungs of adaptation, and harm that was caught."""
    from headstart.outcome import report_data

    data = report_data(Path(result.where))
    race = [(short(r["name"]), number(r.get("score")), str(r["rows"]), r["dropped"] or "") for r in data.race]
    rungs = [
        (short(r["name"]), number(r.get("score")), f"{r['seconds']:.1f} s", r.get("error") or "") for r in data.trials
    ]
    rows = data.card
    line(f"The task: {data.title}, {rows['labelled']:,} labelled rows, {rows['test']:,} test rows")
    draw(
        "",
        "1. The ranking: a race on growing samples",
        "",
        table("source", ">probe, out of fold", ">rows seen", "left because", rows=race),
        "",
        "2. Adaptation: routes of rising cost",
        "",
        table("system", ">out of fold", ">cost", "", rows=rungs),
        "",
    )
    harms = [(short(row["name"]), number(row["score"])) for row in data.race if row.get("harm")]
    if harms:
        said = "3. Harm caught: used as they are, these would be worse than the best system without transfer"
        draw(said, "", table("source", ">probe, out of fold", rows=harms), "")


def predicted(result: Result, found: Prediction, out: Path | None, *, overwrite: bool, machine: bool) -> None:
    """Labels and probabilities as JSON, a file, or CSV on stdout."""
    from headstart.outcome import prediction_columns, write_predictions

    if out is not None:
        write_predictions(found, out, overwrite=overwrite)
    rows = counted(len(found), "row")
    if machine:
        named = [{"image": name} for name in found.names] or [{} for _ in found.labels]
        named = [{**n, "task": t} for n, t in zip(named, found.tasks, strict=True)] if found.tasks else named
        chances: list[Any] = [dict(zip(found.classes, p, strict=True)) for p in found.probabilities]
        lines = [
            {**name, "label": label, "probabilities": p}
            for name, label, p in zip(named, found.labels, chances or [None] * len(found), strict=True)
        ]
        written = None if out is None else str(out)
        emit({"result": result.where, "rows": len(found), "predictions": lines, "out": written})
    elif out is not None:
        saved(f"saved `{out}` ({rows})")
    else:
        _csv(prediction_columns(found))
        note(f"predicted {rows} with `{result.where}`; --out FILE keeps them")


def _csv(columns: Mapping[str, Sequence[Any]]) -> None:
    """As a file would hold it; on a terminal nothing in a name can steer it."""
    import csv
    import io

    safe = plain if sys.stdout.isatty() else str
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(map(safe, columns))
    for row in zip(*columns.values(), strict=True):
        writer.writerow(f"{v:.8g}" if isinstance(v, float) else safe(v) for v in row)
    write(held.getvalue())


def adapted(source: Source, target: Target, out: Path, *, machine: bool) -> None:
    """Where the fitted source lies, and its out-of-fold score."""
    assert source.receipt is not None
    score = source.receipt.scores[target.metric.name]
    measured = {"value": score.value, "low": score.low, "high": score.high}
    if machine:
        emit(
            {
                "id": source.id,
                "name": source.name,
                "method": source.receipt.method,
                "metric": target.metric.name,
                "score": measured,
                "seconds": source.receipt.seconds,
                "out": str(out),
            }
        )
        return
    rows = counted(score.rows, "row")
    line(f"{target.metric.title} {number(score.value)} ({interval(measured)}) out of fold, in {rows}")
    saved(f"saved `{out}` ({source.receipt.seconds:.0f} s)")


def stage_and_sources(words: Sequence[str], fits: Sequence[str] | None) -> tuple[str | None, list[str]]:
    """`methods STAGE --fits A B`: words that follow the first source are sources too.

    >>> stage_and_sources(["combination", "b"], ["a"]), stage_and_sources(["ranking"], None)
    (('combination', ['a', 'b']), ('ranking', []))
    """
    stages = {part for kind in KINDS for part in (*kind.split("."), kind)}
    if not fits and len(words) > 1:
        raise Unfit(f"`{words[1]}` is one word too many", where="`headstart methods`", fix="name one stage, or a kind")
    named = list(words[:1]) if words and (not fits or words[0] in stages) else []
    return (named[0] if named else None), [*(fits or []), *words[len(named) :]]


def methods(stage: str | None, fits: Sequence[str], bank: str | None, *, machine: bool) -> None:
    """The catalogue."""
    from headstart import catalogue

    wanted = _kinds(stage)
    sources = _named(fits, bank)
    lines = []
    for kind in wanted:
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
                    "same_base": entry.needs.same_base,
                    "rows": entry.rows,
                    "holds": entry.holds,
                    "fewest": entry.needs.fewest if entry.holds else None,
                    "most": entry.needs.most,
                    "tasks": list(entry.needs.tasks),
                    "modalities": list(entry.needs.modalities),
                    "citation": entry.cites,
                }
            )
    if machine:
        emit({"methods": lines})
        return
    for kind in wanted:
        here = [one for one in lines if one["kind"] == kind]
        if here:
            rows = [(o["name"], _what(o), _needs(o), o["citation"]) for o in here]
            draw(kind, table("name", "what it does", "needs", "from", rows=rows), "")
    fitting = f" that fit {', '.join(f'`{s.name}`' for s in sources)}" if sources else ""
    saved(f"listed {counted(len(lines), 'method')}{fitting}")


def _needs(method: Mapping[str, Any]) -> str:
    """
    >>> _needs({"needs": ["weights"], "same_base": True}), _needs({"needs": [], "same_base": False})
    ('weights, a base', 'rows only')
    """
    return ", ".join([*method["needs"], *(["a base"] if method["same_base"] else [])]) or "rows only"


def _what(method: Mapping[str, Any]) -> str:
    from headstart.core import MODALITIES

    only = "" if len(method["modalities"]) == len(MODALITIES) else f" ({', '.join(method['modalities'])})"
    return f"{str(method['title']).rstrip('.')}{only}"


def _kinds(stage: str | None) -> list[str]:
    """The kinds of a stage, or all. Raises `Unfit` with near names."""
    name = stage.strip().lower().replace("-", "_").replace("/", ".") if stage else None
    found = [k for k in KINDS if name is None or k == name or name in k.split(".")]
    if found:
        return found
    known = [*dict.fromkeys(part for k in KINDS for part in (*k.split("."), k))]
    near = get_close_matches(str(name), known, n=2, cutoff=0.5)
    stages = ", ".join(dict.fromkeys(k.split(".")[0] for k in KINDS))
    fix = f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"the stages are: {stages}"
    raise Unfit(f"no stage is called `{stage}`", where="`headstart methods`", fix=fix)


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


def sources(listed: Iterable[Source], where: str, *, machine: bool) -> None:
    """What is on the shelf."""
    lines = [_source_line(s) for s in listed]
    if machine:
        emit({"sources": lines})
        return
    rows = [
        (o["id"], short(o["name"]), o["kind"], o["modality"], ", ".join(o["gives"]), o["licence"] or "unknown")
        for o in lines
    ]
    if rows:
        draw(table("id", "name", "kind", "reads", "gives", "licence", rows=rows), "")
    hint = "" if rows else "; add some with `headstart inventory add FOLDER`"
    saved(f"listed {counted(len(rows), 'source')} of {where}{hint}")


def imported(found: Imported, where: str, *, machine: bool) -> None:
    """What an import added."""
    document = {"rows": found.rows, "added": found.added, "origins": list(found.origins)}
    named = ", ".join(f"`{short(name)}`" for name in found.origins[:SHOWN])
    known = f"; {found.rows - found.added} were known" if found.added < found.rows else ""
    made(document, f"imported {counted(found.added, 'record')} of {named} into {where}{known}", machine=machine)


def mapped(
    found: Sequence[Mapped],
    failed: Sequence[tuple[str, Problem]],
    sources: Sequence[Source],
    base: Source,
    where: str,
    *,
    machine: bool,
) -> int:
    """Maps that were made; 1 where none was."""
    names = {source.identity: source for source in sources}
    lines = [
        {"id": names[m.source].id, "name": names[m.source].name, "r2": m.r2, "rows": m.rows, "width": len(m.map.bias)}
        for m in found
    ]
    if machine:
        broken = [error_of(name, problem.as_dict()) for name, problem in failed]
        emit({"base": {"id": base.id, "name": base.name}, "maps": lines, "failed": broken})
    else:
        rows = [(short(o["name"]), number(o["r2"]), f"{o['rows']:,}") for o in lines]
        if rows:
            draw(table("source", ">R² on other rows", ">rows", rows=rows), "")
        for name, problem in failed:
            warn(f"source `{name}` has no map: {problem.what}; {problem.fix}")
        saved(f"saved {counted(len(lines), 'map')} from `{base.name}` in {where}")
    return 0 if found or not failed else 1


def asked(
    answered: Sequence[str],
    failed: Sequence[tuple[str, Problem]],
    sources: Sequence[Source],
    where: str,
    *,
    machine: bool,
) -> int:
    """Sources that answered; 1 where none did."""
    by_identity = {source.identity: source for source in sources}
    if machine:
        lines = [{"id": by_identity[key].id, "name": by_identity[key].name} for key in answered]
        broken = [error_of(by_identity[key].name, problem.as_dict()) for key, problem in failed]
        emit({"sources": lines, "failed": broken})
    else:
        shared = Counter(source.name for source in sources)
        for key, problem in failed:
            source = by_identity[key]
            called = source.name if shared[source.name] == 1 else source.where
            warn(f"source `{called}` has no answers: {problem.what}; {problem.fix}")
        saved(f"saved what {counted(len(answered), 'source')} decided in {where}")
    return 0 if answered or not failed else 1


def origins(listed: Sequence[Origin], where: str, *, machine: bool) -> None:
    """What was imported."""
    if machine:
        emit(
            {
                "origins": [
                    {
                        "name": one.name,
                        "records": one.records,
                        "valid": one.valid,
                        "targets": one.targets,
                        "sources": one.sources,
                        "keys": [{"method": method, "metric": metric} for method, metric in one.keys],
                    }
                    for one in listed
                ]
            }
        )
        return
    rows = []
    for one in listed:
        shown = ", ".join(f"{method}: {metric}" for method, metric in one.keys[:SHOWN])
        more = f" and {len(one.keys) - SHOWN} more" if len(one.keys) > SHOWN else ""
        rows.append((short(one.name), one.records, one.targets, one.sources, shown + more))
    if rows:
        draw(table("origin", ">records", ">targets", ">sources", "what was measured", rows=rows), "")
    hint = "" if rows else "; add some with `headstart inventory import FILE`"
    saved(f"listed records of {counted(len(rows), 'origin')} in {where}{hint}")


def similar(past: Sequence[Past], where: str, *, machine: bool) -> None:
    """Past targets with what was tried on each."""
    if machine:
        emit(
            {
                "targets": [
                    {
                        "fingerprint": one.target,
                        "name": one.name,
                        "metric": one.metric,
                        "similarity": one.similarity,
                        "near": one.near,
                        "systems": [asdict(system) for system in one.systems],
                        "verdicts": [asdict(ended) for ended in one.verdicts],
                    }
                    for one in past
                ]
            }
        )
        return
    rows: list[tuple[object, ...]] = []
    for one in past:
        tried = [(short(s.name), number(s.value), interval(asdict(s)) or "unknown") for s in one.systems]
        first, *others = tried or [("nothing was measured", "", "")]
        title = METRICS[one.metric].title if one.metric in METRICS else one.metric
        rows.append((short(one.name), f"{one.similarity:.2f}", "near" if one.near else "", *first, title))
        rows += [("", "", "", *other, "") for other in others]
    if rows:
        draw(table("target", ">alike", "", "what was tried", ">score", "95 % interval", "metric", rows=rows), "")
        ended = [(short(one.name), *_ended(one.verdicts[0])) for one in past if one.verdicts]
        draw(table("target", "its last verdict", "is of", rows=ended), "")
        note("near: more alike than nine in ten pairs of targets that have nothing to do with each other")
        note("score: on validation rows; verdict: of one system with a source against the best without, on test rows")
    hint = "" if past else "; the bank learns one from every `headstart solve`"
    saved(f"found {counted(len(past), 'past target')} in {where}{hint}")


def _ended(one: Ended) -> tuple[str, str]:
    """A verdict, and the system that it is of."""
    none = "" if one.verdict is None else "no system: none with a source was a candidate"
    return one.verdict or "cut", none if one.of is None else short(one.of)


def source(one: Source, *, machine: bool) -> None:
    """Everything about one source."""
    document = {
        **_source_line(one),
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
    trained = "unknown rows" if one.trained_on is None else counted(len(one.trained_on), "known row")
    told: list[tuple[str, object]] = [
        ("id", one.id),
        ("kind", f"{one.kind}, reads {one.modality}"),
        ("gives", ", ".join(one.gives) or "nothing"),
        ("where", one.where),
        *([("origin", one.origin)] if one.origin not in ("", one.where) else []),
        ("licence", one.licence or "unknown"),
        ("base", one.base or "unknown"),
        ("lineage", ", ".join(one.lineage) or "unknown"),
        ("trained on", trained),
        *((name.replace("_", " "), _plainly(value)) for name, value in one.facts.items() if value not in (None, {})),
        ("weights", one.weights),
        ("identity", one.identity),
    ]
    line(one.name)
    draw("", facts(told))


def _plainly(value: Any) -> str:
    """A JSON value on one short line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k.replace('_', ' ')} {_plainly(v)}" for k, v in value.items() if v not in (None, [], {}))
    if isinstance(value, (list, tuple)):
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return ", ".join(_plainly(v) for v in value[:SHOWN]) + more
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def added(found: Sequence[Source], failed: Sequence[tuple[str, Problem]], where: str, *, machine: bool) -> int:
    """What came onto the shelf; 1 where nothing did."""
    if machine:
        broken = [error_of(name, problem.as_dict()) for name, problem in failed]
        emit({"sources": [_source_line(s) for s in found], "failed": broken})
    else:
        for one in found:
            line(f"added `{one.name}` ({one.kind}, reads {one.modality}, {one.id})")
        unread(failed)
        saved(f"saved {counted(len(found), 'source')} in {where}")
    return 0 if found or not failed else 1


def damage(found: Sequence[Any], count: int, *, machine: bool) -> int:
    """What is missing or changed on the shelf; 1 where something is."""
    lines = [d.as_dict() for d in found]
    if machine:
        emit({"damage": lines, "sources": count})
        return 1 if lines else 0
    for one in lines:
        files = ", ".join(f"`{n}`" for n in one["files"][:SHOWN])
        warn(f"source `{one['name']}` ({one['id']}) is {one['what']}: {files}; {one['fix']}")
    said = f"read {counted(count, 'source')}, {len(lines) or 'none'} damaged"
    line(said, colour=YELLOW) if lines else saved(said)
    return 1 if lines else 0


def converted(files: Sequence[Path], *, machine: bool) -> None:
    """The new files."""
    if machine:
        emit({"made": [str(f) for f in files]})
        return
    for one in files:
        saved(f"wrote `{one}` ({one.stat().st_size / 1e6:.1f} MB)")


def doctor(*, machine: bool) -> None:
    """What works here, and what would make the rest work."""
    from headstart.cli.examination import examine

    found = examine()
    if machine:
        emit(found)
        return
    marks = {True: "ok", False: "missing", None: ""}
    rows = []
    for check in found["checks"]:
        hint = f"\n{check['fix']}" if check["ok"] is False and check["fix"] else ""
        mark = "optional" if check["ok"] is False and check["optional"] else marks[check["ok"]]
        rows.append((check["name"], mark, cell([*(check["what"] + hint).split("\n")])))
    draw(table("part", "", "what was found", rows=rows), "")
    missing = sum(c["ok"] is False and not c["optional"] for c in found["checks"])
    saved("everything needed is here") if not missing else line(
        f"{counted(missing, 'part')} missing; the table says how to get them", colour=YELLOW
    )
