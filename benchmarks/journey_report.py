"""The tables of `journey.py`, drawn from its file of raw results alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.core import Measured

NONE = "–"
Cells = Mapping[str, Mapping[str, Any]]


def report(document: Mapping[str, Any]) -> str:
    """Markdown: a section for each part that has results."""
    cells: Cells = document["cells"]
    machine = document["machine"]
    told = [f"Machine: {machine['cores']} cores, {machine['system']}, Python {machine['python']}."]
    for part in (_imports, _budget, _features, _shelf, _solve):
        told += part(cells)
    return "\n".join(told)


def brief(document: Mapping[str, Any]) -> str:
    """Markdown: one line for each set and size, for the README."""
    cells: Cells = document["cells"]
    rows = []
    for key in _solved_keys(cells):
        one = Scored(cells, key)
        if not one.solve or "summary" not in one.solve:
            continue
        _, plain = _no_transfer(one.solve)
        peers = [_span(one.score(one.peers[form])) for form in ("recipe", "setfit")]
        about, verdict = one.about, one.solve["summary"]["verdict"] or "no verdict"
        asked = str(about["size"]) if about["classes"] else f"{about['rows']} rows"
        metric = str(about["metric"]).replace("_", "-")
        mine = _span(one.score(one.solve))
        rows.append([one.name, metric, asked, verdict, mine, _span(plain), *peers, f"{one.solve['seconds']:.0f} s"])
    head = ["set", "metric", "labels a class", "verdict", "`solve`", "no transfer", "plain recipe", "SetFit", "time"]
    return "\n".join(_table(head, rows))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _section(title: str, *lines: str) -> list[str]:
    return ["", f"## {title}", "", *lines]


def _imports(cells: Cells) -> list[str]:
    if "imports" not in cells:
        return []
    found = cells["imports"]
    rows = []
    for name, taken in found["seconds"].items():
        span = f"{min(taken):.3f} / {statistics.median(taken):.3f} / {max(taken):.3f}"
        rows.append([f"`{name}`", span, found["heavy"].get(name, NONE).replace("[]", "none")])
    head = [f"process ({found['settings']['runs']} fresh ones)", "seconds: min / median / max", "heavy modules loaded"]
    return _section("Starting", *_table(head, rows))


def _budget(cells: Cells) -> list[str]:
    runs = {k: c for k, c in cells.items() if k.startswith("budget/")}
    if not runs:
        return []
    rows = []
    for modality in ("text", "image", "table"):
        for shelf in ("none", "one", "broken", "sleeping"):
            some = [c for k, c in runs.items() if c["modality"] == modality and k.split("/")[3] == shelf]
            if some:
                over, held = max(c["over_seconds"] for c in some), sum(c["held"] for c in some)
                valid = sum(c["valid"] for c in some)
                rows.append([modality, shelf, str(len(some)), f"{over:+.1f}", f"{held}", f"{valid}"])
    worst = max(runs.values(), key=lambda c: c["over_seconds"])
    held, valid = (sum(bool(c[k]) for c in runs.values()) for k in ("held", "valid"))
    said = (
        f"{len(runs)} runs of `headstart solve` with {_limits(runs)}. Limit + max(10 %, 5 s), from the start of the "
        f"process to its end, was kept in {held} of {len(runs)}; a valid result came back in {valid}. Largest elapsed "
        f"− limit: {worst['over_seconds']:+.1f} s, with a limit of {worst['limit_seconds']:.0f} s. "
        + _load(runs.values())
    )
    lost = [f"- not kept: `{k}`, {c['seconds']:.1f} s" for k, c in runs.items() if not c["held"]]
    lost += [f"- no result: `{k}`, {c.get('told') or c['code']}" for k, c in runs.items() if not c["valid"]]
    head = ["target", "shelf", "runs", "largest elapsed − limit, s", "kept", "valid results"]
    return _section("Budget", said, "", *_table(head, rows), *([""] if lost else []), *lost)


def _load(some: Iterable[Mapping[str, Any]]) -> str:
    """What else the machine did: figures of a busy one are not those of an idle one."""
    loads = [c["load"] for c in some if "load" in c]
    if not loads:
        return ""
    return f"Load of the machine, median and largest: {statistics.median(loads):.1f}, {max(loads):.1f}."


def _limits(runs: Cells) -> str:
    limits = sorted({c["settings"]["minutes"] for c in runs.values()})
    return f"{limits[0]:g} to {limits[-1]:g} minutes"


def _features(cells: Cells) -> list[str]:
    found = cells.get("features")
    if found is None or "error" in found:
        return _section("Features", str(found["error"])) if found else []
    rows = [
        [
            name,
            f"{form['texts_per_second']:.0f}",
            f"{form['ratio']:.2f}",
            f"{form['processor_ratio']:.2f}",
            f"{form['largest_difference']:.1e}",
        ]
        for name, form in found["forms"].items()
    ]
    said = f"{found['texts']} texts of mixed length, {found['threads']} threads, medians of {_repeats(found)}."
    head = ["form", "texts/s", "ratio", "ratio, processor time", "largest difference"]
    return _section("Features", said, "", *_table(head, rows))


def _repeats(found: Mapping[str, Any]) -> str:
    n = found["settings"]["repeats"]
    return f"{n} repeats" if n > 1 else "one repeat"


def _shelf(cells: Cells) -> list[str]:
    made = {k.partition("/")[2]: c for k, c in cells.items() if k.startswith("shelf/")}
    rows = [
        [name, str(c["settings"]["data"]), str(c["rows"]), c.get("error", f"{c['seconds']:.0f}")]
        for name, c in made.items()
    ]
    head = ["fine-tune of the shelf", "set", "rows", "seconds"]
    return _section("Sources made with `headstart adapt`", *_table(head, rows)) if rows else []


# -- solve -----------------------------------------------------------------------------------------------------------


class Scored:
    """The systems of one cell on its test rows."""

    def __init__(self, cells: Cells, key: str) -> None:
        self.about, self.name = cells[key], key.split("/")[1]
        self.solve = cells.get(f"{key}/headstart")
        self.peers = {form: cells.get(f"{key}/{form}") for form in ("recipe", "setfit")}

    def _tables(self, *predictions: Sequence[Any]) -> tuple[Any, list[Any]]:
        import numpy as np

        classes = {name: i for i, name in enumerate(self.about["classes"])}
        if not classes:
            return np.array(self.about["truth"], dtype=float), [np.array(p, dtype=float)[:, None] for p in predictions]
        eye = np.eye(len(classes))
        labels = np.array([classes[name] for name in self.about["truth"]])
        return labels, [eye[[classes[str(name)] for name in p]] for p in predictions]

    def score(self, cell: Mapping[str, Any] | None) -> Measured | None:
        """With a bootstrap interval over groups of equal inputs."""
        from headstart.numerics.bootstrap import scored

        if not cell or "predictions" not in cell:
            return None
        labels, tables = self._tables(cell["predictions"])
        return scored(self.about["metric"], labels, tables, [str(g) for g in self.about["groups"]])[0]

    def gain(self, form: str) -> Measured | None:
        """What `solve` returned less the peer, on the same draws of test rows."""
        from headstart.numerics.bootstrap import gained

        peer = self.peers[form]
        if not (peer and self.solve and "predictions" in peer and "predictions" in self.solve):
            return None
        labels, (mine, other) = self._tables(self.solve["predictions"], peer["predictions"])
        return gained(self.about["metric"], labels, mine, other, [str(g) for g in self.about["groups"]])


def _span(score: Any) -> str:
    if score is None:
        return NONE
    value, low, high = (score[k] if isinstance(score, Mapping) else getattr(score, k) for k in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _signed(gain: Any) -> str:
    if gain is None:
        return NONE
    value, low, high = (gain[k] if isinstance(gain, Mapping) else getattr(gain, k) for k in ("value", "low", "high"))
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _solved_keys(cells: Cells) -> list[str]:
    """Sets and sizes with a result, by modality, name and size."""
    return sorted(
        (k for k in cells if k.startswith("solve/") and k.count("/") == 2 and f"{k}/headstart" in cells),
        key=lambda k: (("text", "image", "table").index(cells[k]["modality"]), k.split("/")[1], cells[k]["size"]),
    )


def _solve(cells: Cells) -> list[str]:
    keys = _solved_keys(cells)
    if not keys:
        return []
    scored = [Scored(cells, key) for key in keys]
    rows, gains, failed = [], [], []
    for one in scored:
        failed += _failures(one)
        assert one.solve is not None
        summary = one.solve.get("summary")
        if summary is None:
            continue
        peers = {form: _span(one.score(cell)) for form, cell in one.peers.items()}
        asked = f"{one.about['size']} a class" if one.about["classes"] else f"{one.about['rows']} rows"
        first = [f"{one.name} ({one.about['metric']})", asked]
        times = [one.solve, *one.peers.values()]
        seconds = " / ".join(f"{c['seconds']:.0f}" if c and "predictions" in c else NONE for c in times)
        opponent, plain = _no_transfer(one.solve)
        known = f"{_span(plain)} {opponent}" if plain else NONE
        word = f"{summary['verdict']}: {summary['returned']}"
        mine, candidate = _span(one.score(one.solve)), _span(summary["candidate"])
        rows.append([*first, word, mine, candidate, known, peers["recipe"], peers["setfit"], seconds])
        choice = summary["choice_gain"]
        gains.append(
            [
                *first,
                _signed(summary["gain"]),
                _signed(choice),
                _signed(one.gain("recipe")),
                _signed(one.gain("setfit")),
            ]
        )
    head = ["set (metric)", "labels", "verdict: returned", "`solve` returned", "its candidate", "best no-transfer",
            "plain recipe", "SetFit", "seconds: solve / recipe / SetFit"]  # fmt: skip
    gain_head = ["set (metric)", "labels", "candidate − no transfer", "candidate − naive transfer",
                 "`solve` − recipe", "`solve` − SetFit"]  # fmt: skip
    return _section(
        "`solve` on real sets",
        _setting(scored),
        "",
        *_table(head, rows),
        "",
        "Paired differences on the same test rows (above 0: better than the other):",
        "",
        *_table(gain_head, gains),
        "",
        *_counts(scored),
        *failed,
    )


def _no_transfer(solved: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """The no-transfer system that validation chose, and its score on the test."""
    summary = solved["summary"]
    if summary["returned"] == "no-transfer":
        return next(iter(solved["members"]), ""), summary["score"]
    name = (summary["gain"] or {}).get("opponent", "")
    return name, next((b for b in summary["baselines"] if b["name"] == name), None)


def _setting(scored: Sequence[Scored]) -> str:
    minutes = sorted({one.solve["settings"]["minutes"] for one in scored if one.solve})
    limits = " and ".join(f"{m:g}" for m in minutes)
    tried = any((cell or {}).get("settings", {}).get("steps") for one in scored for cell in one.peers.values())
    warning = "**Made with `--quick`: the rivals were cut to a few steps, and their figures mean nothing.** "
    return (warning if tried else "") + (
        f"`--minutes {limits}`; every system saw the same training rows and is scored on the same fixed test, with "
        "95 % bootstrap intervals. `solve` may decide on these rows which of its two systems it returns, and nothing "
        "else; its figure is of what a fresh `headstart predict` gives. "
        + _load(one.solve for one in scored if one.solve)
    )


def _counts(scored: Sequence[Scored]) -> list[str]:
    """How often which side won, so that no row is left out of the sum."""
    summaries = [one.solve["summary"] for one in scored if one.solve and "summary" in one.solve]
    words = ("helps", "no-evidence", "hurts", None)
    told = {w: sum(s["verdict"] == w for s in summaries) for w in words}
    lines = [
        f"- verdicts in {len(summaries)} cells: "
        + ", ".join(f"{w or 'none, the budget ended before verify'} {n}" for w, n in told.items() if n)
    ]
    for form, title in (("recipe", "the plain recipe"), ("setfit", "SetFit")):
        gains = [g for one in scored if (g := one.gain(form))]
        if gains:
            better, worse = sum(g.low > 0 for g in gains), sum(g.high < 0 for g in gains)
            mean = statistics.mean(g.value for g in gains)
            lines.append(
                f"- against {title}, {len(gains)} cells: better in {better}, worse in {worse}, the interval holds 0 in "
                f"{len(gains) - better - worse}; mean difference {mean:+.3f}"
            )
        ratios = [
            one.solve["seconds"] / peer["seconds"]
            for one in scored
            if one.solve and "predictions" in one.solve and (peer := one.peers[form]) and "predictions" in peer
        ]
        if ratios:
            lines.append(f"- wall time of `solve` / {title}: median ratio {statistics.median(ratios):.1f}")
    return lines


def _failures(one: Scored) -> list[str]:
    some = {"solve": one.solve, **one.peers}
    return [
        f"- failed: {n} on {one.name}, {one.about['size']}: {c['error']}" for n, c in some.items() if c and "error" in c
    ]
