"""What `headstart merge` prints: the plan of a merge, how far it is, and what was made."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli.printing import draw, emit, facts, note, number, saved, table, warn
from headstart.core import METRICS, Unfit

if TYPE_CHECKING:
    from headstart.combination.deltas import Reverted, Written
    from headstart.combination.forecasts import Forecast
    from headstart.combination.merging import Merged, Targets
    from headstart.combination.plans import Plan
    from headstart.core import Budget, Target

HEADS = (">tensors", "what", "rule")
TOLD_FROM = 0.05  # of the bytes that are written, before anything is said of the time that is left
NAMED = 5  # modules that are named; the others are counted


def plan(found: Plan, cost: Forecast, *, machine: bool) -> None:
    """What would be done, and what it would cost."""
    from headstart.combination.accounts import described, made_from
    from headstart.combination.plans import counted

    said, tensors, origins = _described(found), described(found), made_from(found)
    rules, unread = counted({**found.fates, **found.lost}), found.reads is not None and cost.step is None
    if machine:
        lost = [{"model": m, "tensor": t, "rule": f.rule} for (m, t), f in sorted(found.lost.items())]
        emit(
            {
                **said,
                "made_from": origins,
                "tensors": tensors,
                "lost": lost,
                "forecast": _cost(cost),
                "searched": _open(found),
                "warnings": list(found.warnings),
            }
        )
        return
    known = [
        ("method", f"{said['method']} ({_settings(said['settings'])})"),
        ("base", said["base"] or "none"),
        ("models", ", ".join(said["models"])),
        *(("lineage", f"{name} is {_origin(origin)}") for name, origin in origins.items() if origin is not None),
        *(("tied", f"{', '.join(t['tied_with'])} to {name}") for name, t in tensors.items() if t["tied_with"]),
        *_labels(said["folders"]),
        ("vocabulary", said["vocabulary"]["said"] if said["vocabulary"] else "none"),
        *_alike(found),
        ("reads", size(cost.bytes_read)),
        ("writes", size(cost.bytes_written)),
        ("memory at least" if unread else "memory at most", size(cost.peak_bytes)),
        *_learning(found, cost),
        *_searching(found, cost),
        ("takes about", f"{cost.seconds:.1f} s" + (" for the weights" if found.reads is not None else "")),
    ]
    draw(facts(known), "", table(*HEADS, rows=[(n, how, rule) for how, rule, n in rules]))
    for warning in found.warnings:
        warn(warning)


def merged(made: Merged, *, machine: bool) -> int:
    """What was made; its last line says where. Gives 130 where Ctrl-C ended a search for it."""
    plan = made.plan
    code = 130 if plan.learned.get("searched", {}).get("stopped") else 0
    if machine:
        emit(
            {
                **_described(plan),
                "out": str(made.where),
                "bytes": made.receipt.facts["bytes"],
                "seconds": made.receipt.seconds,
                "tensors": made.receipt.facts["tensors"],
                "lost": made.receipt.facts["lost"],
                "checked": made.receipt.facts["checked"],
                "loaded": made.receipt.facts["loaded"],
                "searched": plan.learned.get("searched"),
                "warnings": list(made.receipt.warnings),
            }
        )
        return code
    draw(table(*HEADS, rows=[(r["tensors"], r["how"], r["rule"]) for r in made.receipt.facts["tensors"]]))
    loaded = made.receipt.facts["loaded"]
    draw(*(map(_loaded, loaded) if loaded else map(_checked, made.receipt.facts["checked"])))
    if "searched" in plan.learned:
        draw("", facts(_searched(plan.learned["searched"])))
    for warning in made.receipt.warnings:
        warn(warning)
    saved(f"saved `{made.where}` ({size(made.receipt.facts['bytes'])}, {made.receipt.seconds:.1f} s)")
    return code


def _searched(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a search for numbers of a recipe came to."""
    trials, sign = [t for t in said["trials"] if "loss" in t], METRICS[said["metric"]].sign
    best, first = min(trials, key=lambda t: t["loss"]), trials[0]
    count = f"{len(said['trials'])} trial{'s' if len(said['trials']) > 1 else ''}"
    count += ", ended by Ctrl-C" if said["stopped"] else ""
    return [
        *((name, number(value)) for name, value in said["values"].items()),
        ("loss", f"{best['loss']:.4g}, at the start {first['loss']:.4g}; {count}"),
        (said["metric"], f"{sign * best['score']:.4g}, at the start {sign * first['score']:.4g}; on the searched rows"),
    ]


def _checked(one: dict[str, Any]) -> str:
    """Whether transformers would load a folder, in a sentence.

    >>> _checked({"folder": ".", "architecture": "BertModel", "tensors": 3, "unused": ["cls.bias", "x"], "why": None})
    'all 3 tensors fit BertModel, which has no use for `cls.bias` and 1 more, as in the first model'
    """
    who = "" if one["folder"] == "." else f"`{one['folder']}`: "
    if one["architecture"] is None:
        return f"{who}that it loads was not checked: {one['why']}"
    more = f" and {len(one['unused']) - 1} more" if len(one["unused"]) > 1 else ""
    unused = f", which has no use for `{one['unused'][0]}`{more}, as in the first model" if one["unused"] else ""
    return f"{who}all {one['tensors']} tensors fit {one['architecture']}{unused}"


def _loaded(one: dict[str, Any]) -> str:
    """What transformers made of a folder, in a sentence."""
    out = ", ".join(f"{name} {' × '.join(map(str, shape))}" for name, shape in one["outputs"].items())
    who = "" if one["folder"] == "." else f"`{one['folder']}` "
    return f"{who}loads as {one['architecture']}: {one['tensors']} tensors, {one['inputs']}, {out}, all finite"


def reporter() -> tuple[Callable[[int, int], bool], Callable[[], None]]:
    """What a merge tells of its progress goes to stderr, with the time that is left; and how that ends."""
    from headstart.execution.progress import Progress

    begun, share = time.monotonic(), [0.0]
    progress = Progress(lambda: _remaining(time.monotonic() - begun, share[0]))
    progress.stage("merge")

    def report(done: int, total: int) -> bool:
        share[0] = done / max(1, total)
        progress.advance(f"{size(done)} of {size(total)}", by=0)
        return True

    return report, progress.close


def _remaining(spent: float, share: float) -> float:
    """Seconds that are left; unknown at first, as a pass over all models may come before the first bytes.

    >>> _remaining(14.0, 0.00002), _remaining(60.0, 0.25)
    (inf, 180.0)
    """
    return spent / share - spent if share >= TOLD_FROM else float("inf")


def searching(budget: Budget, started: float) -> tuple[Callable[[str, str], None], Callable[[], None]]:
    """What a search for numbers of a recipe tells, with the time that is left. started: when the clock began."""
    from headstart.execution.progress import Progress

    progress = Progress(lambda: max(0.0, budget.seconds - (time.monotonic() - started)))
    progress.stage("search")

    def tell(trial: str, best: str) -> None:
        progress.advance(f"{trial}, {best}")

    return tell, progress.close


def ended(plan: Plan) -> None:
    """A note where Ctrl-C ended a search; what it has found by then is written."""
    said = plan.learned["searched"]
    if said["stopped"]:
        count = len(said["trials"])
        tried = f"best of {count} trials" if count > 1 else "start, which alone was tried,"
        note(f"the search was ended by Ctrl-C, and the {tried} is written now; a second Ctrl-C stops that")


def auto(
    models: Sequence[str], said: Sequence[str], read: Callable[[str], Target], out: Path, methods: str | None,
    budget: Budget, *, started: float, machine: bool, **options: Any,
) -> None:  # fmt: skip
    """The choice of a merge: what is tried as it goes, and what came of it. started: when the clock began."""
    from headstart.execution.progress import Progress
    from headstart.flow import merge_auto

    progress = Progress(lambda: max(0.0, budget.seconds - (time.monotonic() - started)))
    stage = [""]

    def tell(what: str, who: str, best: str) -> None:
        if best:
            progress.best(best)
        if stage[0] != what:
            progress.stage(what)
            stage[0] = what
        progress.advance(who, by=0)

    try:
        made = merge_auto(
            models, targets(said, [Path(m).name for m in models], read), out=out, budget=budget, started=started,
            methods=methods.split(",") if methods else None, tell=tell, **options,
        )  # fmt: skip
    finally:
        progress.close()
    chosen(made, machine=machine)


def auto_plan(
    models: Sequence[str], said: Sequence[str], read: Callable[[str], Target], out: Path | None, methods: str | None,
    budget: Budget, *, machine: bool, check: bool, load: bool, overwrite: bool, **options: Any,
) -> None:  # fmt: skip
    """Who would take part in the choice of a merge, on how many rows, and what it would hold; nothing is learned."""
    from math import inf

    from headstart.combination.auto import foresee
    from headstart.combination.chains import check_place
    from headstart.combination.forecasts import held_in_choice
    from headstart.combination.layouts import bytes_on_disk
    from headstart.combination.merging import planned_choice
    from headstart.combination.writing import check_loadable
    from headstart.io.atomic import twins

    plan, rows = planned_choice(models, targets(said, [Path(m).name for m in models], read), **options)
    if out is not None:
        check_place(plan, out, overwrite=overwrite)
    check_loadable(plan, check=check, load=load)
    found = foresee(plan, rows, methods=methods.split(",") if methods else None)
    place = next((p for p in (out.expanduser().absolute().parents if out else ()) if p.is_dir()), None)
    how = twins(place) if plan.apart and place is not None else "link"
    written, held = bytes_on_disk(plan, how), held_in_choice(plan, found.entrants)
    minutes = None if budget.seconds == inf else budget.seconds / 60
    if machine:
        emit(
            {
                **{k: v for k, v in _described(plan).items() if k not in ("method", "settings", "alike")},
                "entrants": [{"name": e.name, "method": e.method, "stage": e.stage} for e in found.entrants],
                "refused": list(found.refused),
                "tasks": list(found.tasks),
                "forecast": {"bytes_written": written, "held_bytes": held},
                "budget": {"minutes": minutes, "trials": budget.trials},
                "warnings": list(plan.warnings),
            }
        )
        return
    bounds = [*([f"{minutes:g} minutes"] if minutes else []), *([f"{budget.trials} trials"] if budget.trials else [])]
    draw(
        facts(
            [
                ("base", plan.base.name if plan.base else "none"),
                ("models", ", ".join(m.name for m in plan.models)),
                ("writes", size(written)),
                ("holds at most", f"{size(held)}, and what a batch of rows takes"),
                ("budget", " and ".join(bounds) or "until all were tried"),
            ]
        ),
        "",
        table(
            "rows of", ">to learn", ">to choose", ">to verify",
            rows=[(t["task"], t["learn"], t["choose"], t["verify"]) for t in found.tasks],
        ),
        "",
        table("would be tried", "which is", rows=[(e.name, e.stage) for e in found.entrants]),
    )  # fmt: skip
    if found.refused:
        draw("", table("takes no part", "because", rows=[(r["name"], r["why"]) for r in found.refused]))
    for warning in plan.warnings:
        warn(warning)


def chosen(made: Merged, *, machine: bool) -> None:
    """The best merge beside its baselines, on rows that no choice has seen."""
    from headstart.evidence.merge_report import sentence

    facts = made.receipt.facts["learned"]["choice"]
    if machine:
        places = {"out": str(made.where), "report": str(made.where / "report.html")}
        emit({**_described(made.plan), **facts, **places, "warnings": list(made.receipt.warnings)})
        return
    several = len(facts["tasks"]) > 1
    rows = [
        (
            s["name"], *map(_below, s["tasks"]), _below({**s, "value": s["mean"]}), _share(s), s["models"], s["passes"],
        ) if several else (s["name"], _measured(s["tasks"][0]), s["models"], s["passes"])
        for s in facts["systems"]
    ]  # fmt: skip
    heads = [t["task"] for t in facts["tasks"]] + (["mean", "of own\nmodels'"] if several else [])
    heads += ["models\nkept", "passes\na row"]
    tried = sum(bool(c["scores"]) for c in facts["candidates"])
    missed = sum(c["left"].startswith("was not tried") for c in facts["candidates"])
    more = f", and {missed} more were not: the budget was spent" if missed else ""
    draw(
        f"{METRICS[facts['metric']].title} on rows that no choice has seen, with 95 % intervals", "",
        table("system", *(f">{h}" for h in heads), rows=rows), "",
        f"{tried} merges were tried in {facts['seconds']:.0f} s{more}; {sentence(facts)}",
    )  # fmt: skip
    for warning in made.receipt.warnings:
        warn(warning)
    saved(f"saved `{made.where}`: {facts['winner']}; `{made.where / 'report.html'}` shows what was tried")


def _share(said: Mapping[str, Any]) -> list[str]:
    if "normalised" not in said:
        return ["–"]
    return _below({n: said[f"normalised{end}"] for n, end in (("value", ""), ("low", "_low"), ("high", "_high"))})


def _below(said: Mapping[str, Any]) -> list[str]:
    """In two lines, so that a table with a column for each task is not too wide."""
    return [f"{said['value']:.3f}", f"{said['low']:.3f} to {said['high']:.3f}"]


def _measured(said: Mapping[str, Any]) -> str:
    return f"{said['value']:.3f} ({said['low']:.3f} to {said['high']:.3f})"


def reading() -> tuple[Callable[[int], None], Callable[[], None]]:
    """What a merge tells of rows that it reads; nobody knows how many they will be."""
    from headstart.execution.progress import Progress

    progress, done = Progress(lambda: float("inf")), [0]

    def told(rows: int) -> None:
        if not done[0]:
            progress.stage("read rows")
        done[0] += rows
        progress.advance(f"{done[0]:,} through the model", by=0)

    return told, progress.close


def targets(said: Sequence[str], models: Sequence[str], read: Callable[[str], Target]) -> Targets:
    """Rows as they are named: one file for all models, or `MODEL=FILE` for each; a path may hold an equals sign."""
    found, plain = {}, []
    for one in said:
        name, sign, file = one.partition("=")
        if sign and name in models:
            found[name] = read(file)
        elif sign and Path(file).exists() and not Path(one).exists():
            raise Unfit(f"no model is called `{name}`", where=f"--target {one}", fix=f"use one of: {', '.join(models)}")
        else:
            plain.append(read(one))
    if found and plain:
        raise Unfit(
            "some targets are for one model and some for all",
            where="--target",
            fix=f"write each as MODEL=FILE, with one of: {', '.join(models)}",
        )
    return found or plain


def unread(found: Plan, said: Targets, of_rows: Sequence[str], of_time: Sequence[str], methods: str | None) -> None:
    """Warnings of options that change nothing. of_rows, of_time: those that were given, of rows and of how long."""
    if said and found.reads is None and found.search is None:
        warn(f"`{found.method}` reads no rows, and --target changes nothing; `headstart merge auto` chooses by rows")
    elif of_rows and not said:
        warn(f"without --target nothing is read, and {_change_nothing(of_rows)}")
    if of_time and found.search is None:
        bound = "the choice of `headstart merge auto`, and a search for numbers of a recipe"
        warn(f"{_change_nothing(of_time)}: a limit is for {bound}")
    if methods is not None:
        warn(f"{_change_nothing(['--methods'])}: it says among which methods `headstart merge auto` chooses")


def _change_nothing(options: Sequence[str]) -> str:
    return f"{' and '.join(options)} change{'s' if len(options) == 1 else ''} nothing"


def size(count: float) -> str:
    """
    >>> size(2_340_000), size(999), size(7.1e9)
    ('2.3 MB', '999 bytes', '7.1 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"


def delta(made: Written, *, machine: bool) -> None:
    """A delta that was written."""
    from headstart.combination.deltas import described

    said = described(made.delta, made.bytes)
    if machine:
        emit({**said, "out": str(made.where)})
        return
    if known := _kept(said):
        draw(facts(known), "")
    _forms(said)
    if "of" in said["facts"] and 2 * sum(f["bytes"] for f in said["forms"] if f["form"] == "whole") > made.bytes:
        note("most of it is tensors that are kept whole; a delta taken without --exact keeps few")
    lost = [n for n in said["gone"] if n not in said["kept"]] if said["facts"].get("method") == "diff" else []
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        warn(f"`{lost[0]}`{more} of the base is too large to be held: it cannot be made again from the fine-tune")
    saved(f"saved `{made.where}` ({size(made.bytes)})")


def delta_info(said: dict[str, Any], *, machine: bool) -> None:
    if machine:
        emit(said)
        return
    told = said["facts"]
    named = f"{told['base']} ({said['base'][:12]})" if told.get("base") else said["base"][:12]
    known = [("base", named), *((k, told[k]) for k in ("tuned", "adapter", "method", "form") if told.get(k))]
    if "exact" in told:
        known.append(("exact", "yes" if told["exact"] else "no"))
    known.append(("bytes", size(said["bytes"])))
    draw(facts([*known, *_kept(said)]), "")
    _forms(said)


def _kept(said: dict[str, Any]) -> list[tuple[str, str]]:
    """
    >>> _kept({"change_kept": 0.9639, "relative_error": 0.19, "facts": {"of": "diff"}})
    [('kept of the change', '96.4 % in squares, an error of 19.0 %')]
    """
    if said["change_kept"] is None:
        return []
    again = " of a smaller form" if said["facts"].get("of") in ("compress", "trim") else ""
    share, error = 100 * said["change_kept"], 100 * said["relative_error"]
    return [("kept of the change", f"{share:.1f} %{again} in squares, an error of {error:.1f} %")]


def _forms(said: dict[str, Any]) -> None:
    rows = [(f["tensors"], f["form"], f"{f['entries']:,}", size(f["bytes"])) for f in said["forms"]]
    draw(table(">tensors", "form", ">entries", ">bytes", rows=rows))


def likeness(found: dict[str, Any], *, machine: bool) -> None:
    """How alike two deltas are."""
    if machine:
        emit(found)
        return
    draw(
        facts(
            [
                ("tensors that change in both", found["tensors"]),
                *([("kept whole, and not compared", found["whole"])] if found["whole"] else []),
                ("lengths", ", ".join(number(n) for n in found["norms"])),
                ("cosine", number(found["cosine"])),
                ("entries whose signs conflict", f"{100 * found['conflict']:.1f} %"),
                ("overlap of the largest 5 %", f"{100 * found['overlap']:.1f} %"),
            ]
        )
    )


def approximated(told: dict[str, Any], *, machine: bool) -> None:
    """An adapter made from a delta, and how near it is."""
    if machine:
        emit(told)
        return
    known = [
        ("matrices", told["matrices"]),
        ("rank", told["rank"]),
        ("kept of the change", f"{100 * told['kept']:.1f} %"),
    ]
    named = ", ".join(told["saved"][:NAMED]) + (f" and {more} more" if (more := len(told["saved"]) - NAMED) > 0 else "")
    draw(facts([*known, ("kept whole", named or "nothing")]))
    reasons = [(module, told["why"][module]) for module in told["saved"] if module in told["why"]]
    for module, reason in reasons[:NAMED]:
        note(f"`{module}` is kept whole: {reason}")
    if len(reasons) > NAMED:
        note(f"{len(reasons) - NAMED} more matrices are kept whole; --json tells why")
    if told["unknown"]:
        first, more = told["unknown"][0], len(told["unknown"]) - 1
        warn(f"transformers' class has no `{first}`{f' and {more} more' if more else ''}: peft will not find them")
    saved(f"saved `{told['out']}` ({_room(Path(told['out']))})")


def merged_adapters(where: Path, *, machine: bool) -> None:
    """The adapters that were added up, by their weights and ranks."""
    from headstart.combination.writing import RECEIPT
    from headstart.core import Receipt

    told = Receipt.from_dict(json.loads((where / RECEIPT).read_text(encoding="utf-8")))
    named, ranks = told.facts["adapters"], told.facts["ranks"]
    parts = [
        {"adapter": a["adapter"], "name": a["name"], "weight": weight, "ranks": a["ranks"]}
        for a, weight in zip(named, told.settings["weights"], strict=True)
    ]
    if machine:
        emit({"out": str(where), "adapters": parts, "ranks": ranks, "warnings": list(told.warnings)})
        return
    rows = [(p["name"], f"{p['weight']:.4g}", _span(p["ranks"])) for p in parts]
    draw(table("adapter", ">weight", ">rank", rows=rows))
    for warning in told.warnings:
        warn(warning)
    saved(f"saved `{where}` (rank {_span(ranks)}, {_room(where)})")


def _span(ranks: Sequence[int]) -> str:
    """
    >>> _span([4, 8, 16]), _span([8]), _span([])
    ('4 to 16', '8', 'none')
    """
    return "none" if not ranks else f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else str(ranks[0])


def _room(folder: Path) -> str:
    return size(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()))


def made_folder(where: Path, *, machine: bool) -> None:
    if machine:
        emit({"out": str(where)})
        return
    saved(f"saved `{where}` ({_room(where)})")


def reverted(made: Reverted, *, machine: bool) -> None:
    if machine:
        emit({"out": str(made.where), "exact": made.exact})
        return
    how = "bit for bit the base" if made.exact else "the base within one rounding"
    saved(f"saved `{made.where}` ({how})")


def _labels(folders: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Of the one model that is made, or of each folder."""
    named = [(f["folder"], ", ".join(f["labels"]) if f["labels"] else "none") for f in folders]
    return [("labels" if n == "." else f"labels of {n}", said) for n, said in named]


def _origin(said: Mapping[str, Any]) -> str:
    """
    >>> _origin({"by": "merge", "method": "ties", "base": "minilm", "models": ["mails", "chats"], "weights": None})
    'a merge by ties of mails, chats on minilm'
    """
    how = {"merge": f"a merge by {said['method']} of", "delta": "a delta, made from", "adapter": "an adapter,"}
    return f"{how[said['by']]} {', '.join(said['models'])}" + (f" on {said['base']}" if said["base"] else "")


def _described(found: Plan) -> dict[str, Any]:
    from headstart.combination.writing import folders_of

    return {
        "method": found.method,
        "settings": dict(found.settings),
        "base": found.base.name if found.base else None,
        "models": [m.name for m in found.models],
        "labels": list(found.labels) if found.labels else None,
        "folders": folders_of(found),
        "vocabulary": found.words.facts if found.words is not None else None,
        "alike": dict(found.alike) or None,
        "seed": found.seed,
    }


def _alike(found: Plan) -> list[tuple[str, str]]:
    """How alike the models are, where the method follows from that."""
    if not found.alike:
        return []
    pairs = combinations(range(len(found.models)), 2)
    listed = ", ".join(f"{found.alike['cosines'][i][j]:.4f}" for i, j in pairs)
    return [("cosines", f"{listed} between the models' {found.alike['of']}")]


def _cost(cost: Forecast) -> dict[str, float | None]:
    return {
        "bytes_read": cost.bytes_read,
        "bytes_written": cost.bytes_written,
        "peak_bytes": cost.peak_bytes,
        "seconds": round(cost.seconds, 3),
        "step_seconds": None if cost.step is None else round(cost.step, 4),
        "learning_seconds": None if cost.learning is None else round(cost.learning, 2),
    }


def _open(found: Plan) -> dict[str, Any] | None:
    """Numbers of a recipe that rows are to find."""
    if found.search is None:
        return None
    from dataclasses import asdict

    from headstart.combination.searches import made_in

    return {"ranges": [asdict(r) for r in found.search.ranges], "made_in": made_in(found)}


def _range(said: Mapping[str, Any]) -> str:
    """
    >>> _range({"name": "settings.scale", "low": 0.0, "high": 1.5, "start": 0.75})
    'settings.scale from 0 to 1.5, first 0.75'
    """
    return f"{said['name']} from {said['low']:g} to {said['high']:g}, first {said['start']:g}"


def _searching(found: Plan, cost: Forecast) -> list[tuple[str, str]]:
    said = _open(found)
    if said is None:
        return []
    places = {"memory": "in memory", "folders": "in a temporary folder"}
    told = "add --target to see what a trial takes" if cost.step is None else f"about {cost.step:.2g} s"
    return [
        *(
            ("searches", f"{r['name']} from {r['low']:g} to {r['high']:g}, first {r['start']:g}")
            for r in said["ranges"]
        ),
        ("a trial", f"{places[said['made_in']]}; {told}"),
    ]


def _learning(found: Plan, cost: Forecast) -> list[tuple[str, str]]:
    """What reading rows takes."""
    if found.reads is None:
        return []
    if cost.step is None:
        return [("learns", "from rows; add --target to see what that takes")]
    whole = "" if cost.learning is None else f"about {cost.learning:.0f} s, "
    return [("learns for", f"{whole}{cost.step:.2g} s a step or row" if cost.step else whole.removesuffix(", "))]


def _settings(settings: dict[str, Any]) -> str:
    """
    >>> _settings({"density": 0.2, "weights": [], "normalize": False, "rules": []})
    'density=0.2, weights=equal, normalize=false'
    >>> _settings({"models": [{"model": "a", "parameters": {"weight": 0.5}}, {"model": "b"}], "dtype": "float16"})
    'models: model a, parameters (weight 0.5); model b; dtype=float16'
    """
    told = {k: v for k, v in settings.items() if k != "merge_method" and (v != [] or k == "weights")}  # of the method
    nested = any(isinstance(v, dict) or _dicts(v) for v in told.values())
    said = (f"{k}: {_said(v)}" if isinstance(v, dict) or _dicts(v) else f"{k}={_said(v)}" for k, v in told.items())
    return ("; " if nested else ", ").join(said) or "no settings"


def _dicts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} ({_said(v)})" if isinstance(v, dict) else f"{k} {_said(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ("; " if _dicts(value) else ",").join(_said(v) for v in value) or "equal"
    return str(value).lower() if isinstance(value, bool) else str(value)
