"""What each command prints: for people lines and tables, for machines one JSON document."""

from __future__ import annotations

import json
import shlex
import sys
import time
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
from headstart.core import KINDS, METRICS, Measured, Prediction, Problem, Receipt, Result, Source, Target, Unfit, called
from headstart.numerics.plain_text import plain
from headstart.ranking.certainty import GOES_ON, STOPS, brief, words
from headstart.ranking.racing import trunk_of

if TYPE_CHECKING:
    from headstart.inventory.imports import Imported, Origin
    from headstart.inventory.maps import Mapped
    from headstart.inventory.recall import Past
    from headstart.io.layers import Layers
    from headstart.ranking.datasets import Near
    from headstart.ranking.gather import Gathered

LONG = 44  # characters of a name in a table
SHOWN = 5  # entries of a list on one line
EXPLAINED = 3  # sources whose scores are put in sentences; the others have a row of a table
ROOMY = 3  # proxies that leave room for their errors in 100 columns


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


def _error(name: str, problem: Mapping[str, str]) -> dict[str, Any]:
    return {"id": None, "name": name, "error": problem["what"], "fix": problem["fix"]}


def _parted(
    ranked: Sequence[Source], failed: Sequence[tuple[str, Problem]]
) -> tuple[list[tuple[Source, Receipt]], list[dict[str, Any]]]:
    """Sources with their receipts; and those that could not be ranked, after those that could not be read."""
    able, broken = [], [_error(name, problem.as_dict()) for name, problem in failed]
    for source in ranked:
        assert source.receipt is not None
        error = source.receipt.facts["error"]
        if error and not source.receipt.facts.get("stopped"):
            broken.append({**_error(source.name, error), "id": source.id})
        else:
            able.append((source, source.receipt))
    return able, broken


def _short(text: object) -> str:
    return plain(text, limit=LONG)


def _called(sources: Iterable[Source]) -> dict[str, str]:
    """By id, names for a table, whole where they must tell two sources apart."""
    known = [*sources]
    names = called(known)
    return {s.id: _short(s.name) + (f" ({s.id})" if names[s.identity] != s.name else "") for s in known}


def ranking(
    ranked: Sequence[Source],
    failed: Sequence[tuple[str, Problem]],
    target: Target,
    seconds: float,
    gathered: Sequence[Gathered] = (),
    *,
    routes: bool = False,
    machine: bool,
) -> int:
    """The race: who is expected to help, who left when and why, and which sets are better than one.

    routes: with what to expect of each source by each of them, besides the best. Gives 130 where Ctrl-C stopped it, and
    3 where the time did.
    """
    listed = []
    able, broken = _parted(ranked, failed)
    names = _called(ranked)
    for source, receipt in able:
        known = receipt.facts
        score = receipt.scores.get("score")
        tap = source.facts.get("tap") or {}
        listed.append(
            {
                "id": source.id,
                "name": source.name,
                "layer": tap.get("layer"),
                "pooling": source.facts.get("pooling"),
                "rows": known["rows"],
                "predicted": known["predicted"],
                "score": score.value if score else None,
                "low": score.low if score else None,
                "high": score.high if score else None,
                "proxies": known["proxies"],
                "errors": known["errors"],
                "certainty": known["certainty"],
                "expected": known["expected"] if routes else [],
                "words": list(words(source, target)),
                "refused": {name: problem["what"] for name, problem in known["refused"].items()},
                "cost_seconds": receipt.seconds,
                "dropped": known["dropped"],
                "stopped": known["stopped"],
                "loss": known["loss"],
                "lost_words": known["lost_words"],
                "lower": dict(zip(("dtype", "rows"), known["lower"], strict=True)) if known["lower"] else None,
            }
        )
    passes = _passes(ranked, len(target.labelled))
    stops = {one["stopped"] for one in listed} | {one.stopped for one in gathered}
    code = 130 if "interrupt" in stops else 3 if "time" in stops else 0
    if machine:
        sets = [_gathered(one) for one in gathered]
        emit({"sources": listed, "failed": broken, "passes": passes, "sets": sets})
        return code
    scored = [one for one in listed if one["score"] is not None]
    cut = [one for one in listed if one["stopped"]]
    left = [one for one in listed if one["dropped"]]
    title = target.metric.title
    rows: list[tuple[object, ...]] = [
        (names[o["id"]], *_prediction(o["predicted"]), _share(o["certainty"]), f"{o['cost_seconds']:.1f} s")
        for o in scored
    ]
    if scored or not cut:
        value = f">predicted\n{title}"
        draw(table("source", value, "90 % interval", "by", ">probe\nis first", ">cost", rows=rows))
    _tell_expected(scored, title, names)
    probed = [*scored, *(one for one in cut if one["proxies"])]
    proxies = [*dict.fromkeys(n for one in probed for n in one["proxies"])]
    if proxies:
        heads = [">" + n.replace("_", " ", 1).replace(" ", "\n") for n in proxies]
        shown = _give_or_take if len(proxies) <= ROOMY else _alone
        rows = [(names[o["id"]], *(shown(o, n) for n in proxies)) for o in probed]
        draw("", table("proxies (higher is better)", *heads, rows=rows))
    for one in scored[:EXPLAINED]:
        saw, sure, better = one["words"]
        draw("")
        note(f"`{names[one['id']]}`: {saw}")
        note(f"  {sure}")
        note(f"  {better}")
    others = [source for source, receipt in able if "score" in receipt.scores][EXPLAINED:]
    if others:
        rows = [
            (names[s.id], number(gap.value), interval(asdict(gap)), told) for s in others for gap, told in [brief(s)]
        ]
        draw("", table("the others", ">gap to its rival", "95 % interval", "what tells them apart", rows=rows))
    for method, reasons in _grouped(probed, names).items():
        for reason, of in reasons.items():
            some = ", ".join(f"`{name}`" for name in of[:SHOWN]) + (" …" if len(of) > SHOWN else "")
            warn(f"`{method}` says nothing of {some}: {reason}")
    for source in ranked:
        if source.receipt is not None and source.receipt.facts["lost_words"]:
            warn(f"of `{names[source.id]}`, {source.receipt.warnings[-1]}")
    if cut:
        rows = [(names[o["id"]], *_last_loss(o), f"{o['rows']:,}", STOPS[o["stopped"]]) for o in cut]
        draw("", table("was stopped", ">loss", "95 % interval", ">rows", "by", rows=rows))
    if left:
        rows = [(names[o["id"]], *_last_loss(o), str(o["dropped"])) for o in left]
        draw("", table("left the race", ">loss", "95 % interval", "because", rows=rows))
    if any(one["loss"] for one in (*cut, *left)):
        note("loss: squared error a row of a linear probe, where the race last judged it; smaller is better")
    lowered = [one for one in listed if one["lower"]]
    if lowered:
        kinds = " or ".join(dict.fromkeys(one["lower"]["dtype"] for one in lowered))
        note(f"the race read {_count(len(lowered), 'source')} in {kinds}, which scored as in float32 on a batch")
    for found in gathered:
        _tell_set(found, title, names)
    for one in broken:
        name = names.get(one["id"], one["name"])
        warn(f"source `{name}` was not ranked: {one['error']}; {one['fix']}")
    best = f": `{names[scored[0]['id']]}` looks best" if scored else ""
    spared = "" if passes["rows"] == passes["full"] else f", {passes['rows'] / passes['full']:.0%} of all passes"
    if cut:
        warn(f"{_count(len(cut), 'source')} not ranked to the end; {GOES_ON}")
    done = f"{len(listed) - len(cut)} of " if cut else ""
    saved(f"ranked {done}{_count(len(listed), 'source')} in {seconds:.1f} s{spared}{best}")
    return code


def _last_loss(one: Mapping[str, Any]) -> tuple[str, str]:
    return (number(one["loss"]["value"]), interval(one["loss"])) if one["loss"] else ("", "")


def _prediction(one: Mapping[str, Any]) -> tuple[str, str, str]:
    """A value with its interval, and what it rests on in words, with the route where it is not the probe."""
    return number(one["value"]), interval(one), (f"{one['route']}, " if one["targets"] else "") + one["basis"]


def _share(certainty: Mapping[str, Any] | None) -> str:
    return "" if certainty is None else f"{certainty['first']:.0%}"


def _alone(one: Mapping[str, Any], name: str) -> str:
    return number(one["proxies"].get(name))


def _give_or_take(one: Mapping[str, Any], name: str) -> str:
    """A proxy with its standard error, where it tells one."""
    error = one["errors"].get(name)
    return number(one["proxies"].get(name)) + (f" ±{error:.1g}" if error is not None else "")


def _tell_expected(scored: Sequence[Mapping[str, Any]], title: str, names: Mapping[str, str]) -> None:
    """What past runs let expect of each source by each route, the best first; and what cannot be said."""
    told = [(names[one["id"]], e) for one in scored for e in one["expected"]]
    known = [(name, e) for name, e in told if e["value"] is not None]
    if not told:
        return
    rows: list[tuple[object, ...]] = [
        (name, e["route"], number(e["value"]), interval(e), e["basis"]) for name, e in known
    ]
    draw("", table("source", "route", f">{title} to expect", "90 % interval", "basis", rows=rows))
    silent: dict[str, str] = {e["route"]: e["basis"] for _, e in told if e["value"] is None}
    for reason in dict.fromkeys(silent.values()):
        routes = ", ".join(f"`{route}`" for route, why in silent.items() if why == reason)
        note(f"nothing can be said of {routes}: {reason}")


def datasets(ranked: Sequence[Near], failed: Sequence[tuple[str, Problem]], seconds: float, *, machine: bool) -> None:
    """Data sets, nearest first, and those that could not be compared."""
    able = [one for one in ranked if not one.error]
    broken = [*((one.dataset.name, one.error) for one in ranked if one.error), *failed]
    receipt = able[0].receipt
    assert receipt is not None
    facts, names = receipt.facts, receipt.method.split(", ")
    if machine:
        listed = [
            {
                "name": one.dataset.name,
                "rank": one.rank,
                "nearest": one.nearest,
                "divergences": dict(one.divergences),
                "similarities": dict(one.similarities),
                "refused": {name: problem.what for name, problem in one.refused.items()},
                "rows": one.rows,
                "classes": one.classes,
                "shared": one.shared,
                "shared_test": one.shared_test,
                "cost_seconds": one.seconds,
            }
            for one in able
        ]
        problems = [{"name": name, "error": problem.what, "fix": problem.fix} for name, problem in broken]
        emit({"datasets": listed, "failed": problems, "embedding": facts["embedding"], "draws": facts["draws"]})
        return
    rows: list[tuple[object, ...]] = [
        (
            _short(one.dataset.name), f"{one.rank:.1f}", "" if one.nearest is None else f"{one.nearest:.0%}",
            f"{one.rows:,}", one.classes or "", f"{one.shared:,}", f"{one.seconds:.1f} s",
        )
        for one in able
    ]  # fmt: skip
    draw(table("data set", ">mean rank", ">nearest", ">rows", ">classes", ">shared", ">cost", rows=rows), "")
    similar = [n for n in names if any(n in one.similarities for one in able)]
    apart = [n for n in names if n not in similar]
    if apart:
        rows = [(_short(one.dataset.name), *(number(one.divergences.get(n)) for n in apart)) for one in able]
        draw(table("divergences (smaller is nearer)", *_heads(apart), rows=rows))
    if similar:
        rows = [(_short(one.dataset.name), *(number(one.similarities.get(n)) for n in similar)) for one in able]
        draw(table("similarities (1 is the same task)", *_heads(similar), rows=rows))
    drawn = f"; nearest: share of {facts['draws']} draws of half the rows" if facts["draws"] else ""
    note(f"compared by {facts['embedding']}{drawn}")
    for one in able:
        if one.shared_test:
            warn(f"`{one.dataset.name}` holds {_count(one.shared_test, 'test row')} of the target: leave them out")
        for name, problem in one.refused.items():
            warn(f"`{name}` says nothing of `{one.dataset.name}`: {problem.what}")
    unread(broken, "data set")
    saved(f"ranked {_count(len(able), 'data set')} in {seconds:.1f} s: `{able[0].dataset.name}` is nearest")


def _heads(names: Sequence[str]) -> list[str]:
    return [">" + n.replace("_", "\n", 1) for n in names]


def by_maps(
    ranked: Sequence[Source], failed: Sequence[tuple[str, Problem]], base: Source, seconds: float, *, machine: bool
) -> None:
    """Sources as a base sees them through their maps, and those that have none."""
    listed = []
    able, broken = _parted(ranked, failed)
    for source, receipt in able:
        known = receipt.facts
        through = known["map"]
        listed.append(
            {
                "id": source.id,
                "name": source.name,
                "proxies": known["proxies"],
                "refused": {name: problem["what"] for name, problem in known["refused"].items()},
                "map": None if through is None else {"r2": through["r2"], "rows": through["rows"]},
                "cost_seconds": receipt.seconds,
                "warnings": list(receipt.warnings),
            }
        )
    if machine:
        emit({"base": {"id": base.id, "name": base.name}, "sources": listed, "failed": broken})
        return
    names = [*dict.fromkeys(name for one in listed for name in one["proxies"])]
    rows: list[tuple[object, ...]] = []
    shown = _called(ranked)
    for one in listed:
        sure = ("the base", "") if one["map"] is None else (number(one["map"]["r2"]), f"{one['map']['rows']:,}")
        rows.append((shown[one["id"]], *(number(one["proxies"].get(name)) for name in names), *sure))
    heads = [">" + name.replace("_", "\n", 1) for name in names]
    draw(table("source", *heads, ">R² of its map", ">on rows", rows=rows))
    note("R²: share of the source's features that the map explains on rows that it was not fitted on")
    for one in listed:
        for said in (*one["warnings"], *one["refused"].values()):
            warn(f"`{shown[one['id']]}`: {said}")
    for one in broken:
        warn(f"source `{one['name']}` was not ranked: {one['error']}; {one['fix']}")
    best = shown[listed[0]["id"]]
    saved(f"ranked {_count(len(listed), 'source')} by maps from `{base.name}` in {seconds:.1f} s: `{best}` looks best")


def experts(
    ranked: Sequence[Source], failed: Sequence[tuple[str, Problem]], encoder: Source, seconds: float, *, machine: bool
) -> None:
    """Sources by the votes of a target's inputs."""
    listed = []
    for source in ranked:
        assert source.receipt is not None
        listed.append({"id": source.id, "name": source.name, "share": source.receipt.facts["share"]})
    receipt = ranked[0].receipt
    assert receipt is not None
    said = {name: receipt.facts[name] for name in ("inputs", "nearest", "usual", "novel")}
    if machine:
        broken = [_error(name, problem.as_dict()) for name, problem in failed]
        emit({"encoder": {"id": encoder.id, "name": encoder.name}, "sources": listed, "failed": broken, **said})
        return
    names = _called(ranked)
    rows = [(names[o["id"]], "no instances" if o["share"] is None else f"{o['share']:.0%}") for o in listed]
    draw(table("source", ">votes", rows=rows))
    who = _count(said["inputs"], "input")
    note(f"{who} voted, with a median cosine of {said['nearest']:.2f} to the nearest instance")
    note(f"19 in 20 instances have {said['usual']:.2f} or more to another of their own source")
    for text in receipt.warnings:
        warn(text)
    unread(failed)
    first, many = names[listed[0]["id"]], _count(len(listed), "source")
    saved(f"ranked {many} by their instances in {seconds:.1f} s: `{first}` is nearest")


def _passes(ranked: Sequence[Source], rows: int) -> dict[str, int]:
    """Rows that went through a model, and that would have if no source had left; layers and poolings share a pass."""
    used: dict[str, int] = {}
    for source in ranked:
        assert source.receipt is not None
        if not source.receipt.facts["error"] or source.receipt.facts["stopped"]:
            trunk = trunk_of(source)
            facts = source.receipt.facts
            again = facts["lower"][1] if facts["lower"] and not facts["dropped"] else 0  # the race's, besides float32
            used[trunk] = max(used.get(trunk, 0), int(facts["rows"]) + int(again))
    return {"rows": sum(used.values()), "full": rows * len(used)}


def layers(said: str | None) -> Layers | None:
    """`all`, or numbers with commas between them. Raises `Unfit` for anything else."""
    if said is None or said == "all":
        return "all" if said else None
    try:
        return [int(number) for number in said.split(",")]
    except ValueError:
        raise Unfit(
            f"`{said}` is neither `all` nor numbers", where="--layers", fix="write --layers all, or --layers 0,6,-1"
        ) from None


def _gathered(found: Gathered) -> dict[str, Any]:
    return {
        "method": found.method,
        "members": [
            {"id": s.id, "name": s.name, "value": value, "gain": gain}
            for s, value, gain in zip(found.members, found.values, found.gains, strict=True)
        ],
        "score": _span(found.score),
        "best": {"id": found.best.id, "name": found.best.name} if found.best else None,
        "gain": _span(found.gain),
        "verdict": found.verdict,
        "one_base": found.one_base,
        "left_out": [{"id": s.id, "name": s.name, "error": problem.what} for s, problem in found.left_out],
        "error": found.error.what if found.error else None,
        "stopped": found.stopped,
        "own_rows": [
            {"id": s.id, "name": s.name, "rows": None, "reason": one.what}
            if isinstance(one, Problem)
            else {"id": s.id, "name": s.name, "rows": one, "reason": None}
            for s, one in found.own_rows
        ],
    }


def _span(score: Measured | None) -> dict[str, float] | None:
    return {"value": score.value, "low": score.low, "high": score.high} if score else None


def _tell_set(found: Gathered, title: str, names: Mapping[str, str]) -> None:
    """The members in the order in which they joined, and what they reach together."""
    for source, problem in found.left_out:
        warn(f"`{found.method}` cannot judge `{names[source.id]}`: {problem.what}")
    _tell_own_rows(found, names)
    if found.error is not None:
        warn(f"no set by `{found.method}`: {found.error.what}; {found.error.fix}")
        return
    rows = [
        (names[s.id], number(value), number(gain))
        for s, value, gain in zip(found.members, found.values, found.gains, strict=True)
    ]
    draw("", table(f"set by {found.method}", ">value, on its own scale", ">gain", rows=rows))
    score, gain, best = _span(found.score), _span(found.gain), found.best
    assert score is not None
    assert gain is not None
    assert best is not None
    if len(found.members) == 1:
        line(f"no source adds to `{names[found.members[0].id]}`")
        return
    line(f"their probes averaged: {title} {number(score['value'])} ({interval(score)})")
    line(f"over `{names[best.id]}` alone: {number(gain['value'])} ({interval(gain)}), {found.verdict}")
    line(
        "they share one base: their fine-tuned weights can be merged"
        if found.one_base
        else "they share no base that is known: use them as an ensemble"
    )


def _tell_own_rows(found: Gathered, names: Mapping[str, str]) -> None:
    """Of a method that reads rows which sources learned from: where it had some, and why it had none elsewhere."""
    had = [f"`{names[s.id]}` ({one:,})" for s, one in found.own_rows if not isinstance(one, Problem)]
    if had:
        note(f"`{found.method}` saw rows that sources learned from, of {', '.join(had)}")
    lacking: dict[tuple[str, str], list[str]] = {}
    for source, one in found.own_rows:
        if isinstance(one, Problem):
            lacking.setdefault((one.what, one.fix), []).append(f"`{names[source.id]}`")
    tell = warn if had else note  # what is said of some sources by their rows, and of others without, is not the same
    for (what, fix), of in lacking.items():
        some = ", ".join(of[:SHOWN]) + (" …" if len(of) > SHOWN else "")
        tell(f"`{found.method}` saw no rows that {some} learned from: {what}; {fix}")


def _grouped(listed: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Estimator to reason to the names of the sources that it refused."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in listed:
        for method, reason in one["refused"].items():
            found.setdefault(method, {}).setdefault(reason, []).append(names[one["id"]])
    return found


def _count(number_of: int, noun: str) -> str:
    """
    >>> _count(1, "row"), _count(2000, "row")
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
    race = [(_short(r["name"]), number(r.get("score")), str(r["rows"]), r["dropped"] or "") for r in data.race]
    rungs = [
        (_short(r["name"]), number(r.get("score")), f"{r['seconds']:.1f} s", r.get("error") or "") for r in data.trials
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
    harms = [(_short(row["name"]), number(row["score"])) for row in data.race if row.get("harm")]
    if harms:
        said = "3. Harm caught: used as they are, these would be worse than the best system without transfer"
        draw(said, "", table("source", ">probe, out of fold", rows=harms), "")


def predicted(result: Result, found: Prediction, out: Path | None, *, overwrite: bool, machine: bool) -> None:
    """Labels and probabilities as JSON, a file, or CSV on stdout."""
    from headstart.outcome import prediction_columns, write_predictions

    if out is not None:
        write_predictions(found, out, overwrite=overwrite)
    rows = _count(len(found), "row")
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
    rows = _count(score.rows, "row")
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
    saved(f"listed {_count(len(lines), 'method')}{fitting}")


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
        (o["id"], _short(o["name"]), o["kind"], o["modality"], ", ".join(o["gives"]), o["licence"] or "unknown")
        for o in lines
    ]
    if rows:
        draw(table("id", "name", "kind", "reads", "gives", "licence", rows=rows), "")
    hint = "" if rows else "; add some with `headstart inventory add FOLDER`"
    saved(f"listed {_count(len(rows), 'source')} of {where}{hint}")


def imported(found: Imported, where: str, *, machine: bool) -> None:
    """What an import added."""
    document = {"rows": found.rows, "added": found.added, "origins": list(found.origins)}
    named = ", ".join(f"`{_short(name)}`" for name in found.origins[:SHOWN])
    known = f"; {found.rows - found.added} were known" if found.added < found.rows else ""
    made(document, f"imported {_count(found.added, 'record')} of {named} into {where}{known}", machine=machine)


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
        broken = [_error(name, problem.as_dict()) for name, problem in failed]
        emit({"base": {"id": base.id, "name": base.name}, "maps": lines, "failed": broken})
    else:
        rows = [(_short(o["name"]), number(o["r2"]), f"{o['rows']:,}") for o in lines]
        if rows:
            draw(table("source", ">R² on other rows", ">rows", rows=rows), "")
        for name, problem in failed:
            warn(f"source `{name}` has no map: {problem.what}; {problem.fix}")
        saved(f"saved {_count(len(lines), 'map')} from `{base.name}` in {where}")
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
    if machine:
        lines = [{"id": source.id, "name": source.name} for source in sources if source.name in answered]
        emit({"sources": lines, "failed": [_error(name, problem.as_dict()) for name, problem in failed]})
    else:
        for name, problem in failed:
            warn(f"source `{name}` has no answers: {problem.what}; {problem.fix}")
        saved(f"saved what {_count(len(answered), 'source')} decided in {where}")
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
        rows.append((_short(one.name), one.records, one.targets, one.sources, shown + more))
    if rows:
        draw(table("origin", ">records", ">targets", ">sources", "what was measured", rows=rows), "")
    hint = "" if rows else "; add some with `headstart inventory import FILE`"
    saved(f"listed records of {_count(len(rows), 'origin')} in {where}{hint}")


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
                        "systems": [{"name": name, "value": value} for name, value in one.systems],
                        "verdicts": list(one.verdicts),
                    }
                    for one in past
                ]
            }
        )
        return
    rows: list[tuple[object, ...]] = []
    for one in past:
        first, *others = [(_short(name), number(value)) for name, value in one.systems] or [
            ("nothing was measured", "")
        ]
        title = METRICS[one.metric].title if one.metric in METRICS else one.metric
        ended = ", ".join(str(v or "cut") for v in one.verdicts[:1])
        rows.append((_short(one.name), f"{one.similarity:.2f}", "near" if one.near else "", *first, title, ended))
        rows += [("", "", "", *other, "", "") for other in others]
    if rows:
        draw(table("target", ">alike", "", "what was tried", ">score", "metric", "verdict", rows=rows), "")
        note("near: more alike than nine in ten pairs of targets that have nothing to do with each other")
    hint = "" if past else "; the bank learns one from every `headstart solve`"
    saved(f"found {_count(len(past), 'past target')} in {where}{hint}")


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
    trained = "unknown rows" if one.trained_on is None else _count(len(one.trained_on), "known row")
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
        broken = [_error(name, problem.as_dict()) for name, problem in failed]
        emit({"sources": [_source_line(s) for s in found], "failed": broken})
    else:
        for one in found:
            line(f"added `{one.name}` ({one.kind}, reads {one.modality}, {one.id})")
        unread(failed)
        saved(f"saved {_count(len(found), 'source')} in {where}")
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
    said = f"read {_count(count, 'source')}, {len(lines) or 'none'} damaged"
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
        f"{_count(missing, 'part')} missing; the table says how to get them", colour=YELLOW
    )
