"""What `headstart rank` prints: for people tables and sentences, for machines one JSON document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from headstart.cli.printing import (
    draw,
    emit,
    interval,
    line,
    note,
    number,
    saved,
    table,
    warn,
)
from headstart.core import Measured, Problem, Receipt, Source, Target, Unfit, called
from headstart.ranking.certainty import GOES_ON, STOPS, brief, unjudged, words
from headstart.ranking.racing import trunk_of

from .show import SHOWN, counted, error_of, short, unread

if TYPE_CHECKING:
    from headstart.io.layers import Layers
    from headstart.ranking.datasets import Near
    from headstart.ranking.gather import Gathered

EXPLAINED = 3  # sources whose scores are put in sentences; the others have a row of a table
ROOMY = 3  # proxies that leave room for their errors in 100 columns


def _parted(
    ranked: Sequence[Source], failed: Sequence[tuple[str, Problem]]
) -> tuple[list[tuple[Source, Receipt]], list[dict[str, Any]]]:
    """Sources with their receipts; and those that could not be ranked, after those that could not be read."""
    able, broken = [], [error_of(name, problem.as_dict()) for name, problem in failed]
    for source in ranked:
        assert source.receipt is not None
        error = source.receipt.facts["error"]
        if error and not source.receipt.facts.get("stopped"):
            broken.append({**error_of(source.name, error), "id": source.id})
        else:
            able.append((source, source.receipt))
    return able, broken


def _called(sources: Iterable[Source]) -> dict[str, str]:
    """By id, names for a table, whole where they must tell two sources apart."""
    known = [*sources]
    names = called(known)
    return {s.id: short(s.name) + (f" ({s.id})" if names[s.identity] != s.name else "") for s in known}


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
        (names[o["id"]], *_prediction(o["predicted"]), *_shares(o, scored), f"{o['cost_seconds']:.1f} s")
        for o in scored
    ]
    if scored or not cut:
        value, first = f">predicted\n{title}", [">probe\nis first"] if len(scored) > 1 else []
        draw(table("source", value, "90 % interval", "by", *first, ">cost", rows=rows))
    ways = _ways([source for source, _ in able])
    if scored and ways:
        note(f"{ways} layers and poolings were tried: the best, picked on these rows, is likely to do worse on others")
        note("its interval is that of one which was named beforehand, and makes no allowance for the pick")
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
        note("")
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
    unseen = unjudged(target)
    if scored and unseen:
        warn(f"{unseen}; the scores are of the others: label more rows of the rare ones")
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
        note(f"the race read {counted(len(lowered), 'source')} in {kinds}, which scored as in float32 on a batch")
    for found in gathered:
        _tell_set(found, title, names)
    for one in broken:
        name = names.get(one["id"], one["name"])
        warn(f"source `{name}` was not ranked: {one['error']}; {one['fix']}")
    best = f": `{names[scored[0]['id']]}` looks best" if scored else ""
    spared = "" if passes["rows"] == passes["full"] else f", {passes['rows'] / passes['full']:.0%} of all passes"
    if cut:
        warn(f"{counted(len(cut), 'source')} not ranked to the end; {GOES_ON}")
    done = f"{len(listed) - len(cut)} of " if cut else ""
    saved(f"ranked {done}{counted(len(listed), 'source')} in {seconds:.1f} s{spared}{best}")
    return code


def _ways(sources: Sequence[Source]) -> int:
    """Layers and poolings of models of which more than one was tried."""
    many = Counter(trunk_of(source) for source in sources)
    return sum(ways for ways in many.values() if ways > 1)


def _last_loss(one: Mapping[str, Any]) -> tuple[str, str]:
    return (number(one["loss"]["value"]), interval(one["loss"])) if one["loss"] else ("", "")


def _prediction(one: Mapping[str, Any]) -> tuple[str, str, str]:
    """A value with its interval, and what it rests on in words, with the route where it is not the probe."""
    return number(one["value"]), interval(one), (f"{one['route']}, " if one["targets"] else "") + one["basis"]


def _shares(one: Mapping[str, Any], scored: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of how many draws it is first, where there is another to be first."""
    sure = one["certainty"]
    return ["" if sure is None else f"{sure['first']:.0%}"] if len(scored) > 1 else []


def _alone(one: Mapping[str, Any], name: str) -> str:
    return number(one["proxies"].get(name))


def _give_or_take(one: Mapping[str, Any], name: str) -> str:
    """A proxy with its standard error, where it tells one, to one digit.

    >>> one = {"proxies": {"gbc": -19.41, "logme": 0.2, "cka": 2.0}, "errors": {"gbc": 12.3, "logme": 0.0345}}
    >>> [_give_or_take(one, name) for name in ("gbc", "logme", "cka")]
    ['-19.41 ±12', '0.200 ±0.03', '2.000']
    """
    error = one["errors"].get(name)
    digits = "" if error is None else f" ±{error:.0f}" if error >= 9.5 else f" ±{error:.1g}"
    return number(one["proxies"].get(name)) + digits


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
        said = {"embedding": facts["embedding"], "draws": facts["draws"], "warnings": list(receipt.warnings)}
        emit({"datasets": listed, "failed": problems, **said})
        return
    rows: list[tuple[object, ...]] = [
        (
            short(one.dataset.name), f"{one.rank:.1f}", "" if one.nearest is None else f"{one.nearest:.0%}",
            f"{one.rows:,}", one.classes or "", f"{one.shared:,}", f"{one.seconds:.1f} s",
        )
        for one in able
    ]  # fmt: skip
    draw(table("data set", ">mean rank", ">nearest", ">rows", ">classes", ">shared", ">cost", rows=rows), "")
    similar = [n for n in names if any(n in one.similarities for one in able)]
    apart = [n for n in names if n not in similar]
    if apart:
        rows = [(short(one.dataset.name), *(number(one.divergences.get(n)) for n in apart)) for one in able]
        draw(table("divergences (smaller is nearer)", *_heads(apart), rows=rows))
    if similar:
        rows = [(short(one.dataset.name), *(number(one.similarities.get(n)) for n in similar)) for one in able]
        draw(table("similarities (1 is the same task)", *_heads(similar), rows=rows))
    drawn = f"; nearest: share of {facts['draws']} draws of half the rows" if facts["draws"] else ""
    note(f"compared by {facts['embedding']}{drawn}")
    for text in receipt.warnings:
        warn(text)
    for one in able:
        if one.shared_test:
            warn(f"`{one.dataset.name}` holds {counted(one.shared_test, 'test row')} of the target: leave them out")
        for name, problem in one.refused.items():
            warn(f"`{name}` says nothing of `{one.dataset.name}`: {problem.what}")
    unread(broken, "data set")
    saved(f"ranked {counted(len(able), 'data set')} in {seconds:.1f} s: `{able[0].dataset.name}` is nearest")


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
    saved(f"ranked {counted(len(listed), 'source')} by maps from `{base.name}` in {seconds:.1f} s: `{best}` looks best")


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
        broken = [error_of(name, problem.as_dict()) for name, problem in failed]
        emit({"encoder": {"id": encoder.id, "name": encoder.name}, "sources": listed, "failed": broken, **said})
        return
    names = _called(ranked)
    rows = [(names[o["id"]], "no instances" if o["share"] is None else f"{o['share']:.0%}") for o in listed]
    draw(table("source", ">votes", rows=rows))
    who = counted(said["inputs"], "input")
    note(f"{who} voted, with a median cosine of {said['nearest']:.2f} to the nearest instance")
    note(f"19 in 20 instances have {said['usual']:.2f} or more to another of their own source")
    for text in receipt.warnings:
        warn(text)
    unread(failed)
    first, many = names[listed[0]["id"]], counted(len(listed), "source")
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
        if found.members[0].identity != best.identity:  # the method's own scale may put another first than the probe
            line(f"over `{names[best.id]}`, whose probe is best: {number(gain['value'])} ({interval(gain)})")
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
