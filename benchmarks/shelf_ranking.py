"""`headstart rank` of a shelf of text sources against transformer-ranker, end to end: wall time, and who is right.

    python benchmarks/shelf_ranking.py --json sources.json --work WORK --peer-python PYTHON [--encoder FOLDER]
        [--data DIR] [--targets trec6,…] [--sizes 5,20,100] [--truth probe,finetune]

Thirteen sources (`text_shelf.py`): an encoder, its first layers, five fine-tunes, and distractors. For each target and
number of labels of a class, both systems get the same rows and the same folders, in fresh processes without a cache:
`headstart rank` with its race and without, and transformer-ranker with each of its estimators that is asked for; before
each, a process imports what it will import, so that none pays for reading libraries from disk. What they say is held
against the truth of the source on 500 test rows, in the metric of the set:

- probe: a logistic regression on mean-pooled features of 200 rows of a class (scikit-learn; neither system's own);
- finetune: the plain recipe of `journey_peers.py`, at most 150 steps on 100 rows of a class, one seed.

tau is weighted Kendall's; a source that left the race stands where `headstart rank` lists it. regret@k: how far the
best of the first k lies below the best of all, in points. `headstart, its logme` orders the same run without a race by
that proxy. Intervals: 95 % bootstrap over targets; so few of them that they are wide.

Raw results go to the JSON file after every cell, and what stands there is not done again; `--only report` prints the
tables of a file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import journey_sets as sets
import numpy as np
from rank_figures import interval, ratio, regret, span, table, tau
from text_shelf import build

from journey import DATA, HEADSTART, Record, failure, parsed, say, timed

HERE = Path(__file__).resolve().parent
COMMAND = "python benchmarks/shelf_ranking.py --json sources.json --work WORK --peer-python PYTHON"
TARGETS = ("trec6", "cr", "tweet_emotion", "hate_davidson", "mpqa", "tweet_offensive", "snips_intent", "afrisenti_pcm")
TRUTHS = ("probe", "finetune")
PROBE_ROWS, TUNE_ROWS, TUNE_STEPS, TEST = 200, 100, 150, 500  # rows of a class; steps; test rows
OURS = {"headstart": "paired", "headstart-all": "none"}  # --race


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much is done."""

    targets: Sequence[str]
    sizes: Sequence[int]
    truths: Sequence[str]
    estimators: Sequence[str]
    python: str | None
    test: int
    steps: int


def run(record: Record, shelf: Sequence[Path], data: Path, work: Path, plan: Plan) -> None:
    """Rankings first, then the cheap truth, then the dear one."""
    names = [place.name for place in shelf]
    for size in plan.sizes:
        for target in plan.targets:
            here = sets.cut(data, target, size, plan.test, work / "sets" / f"{target}-{size}-{plan.test}")
            for system in (*OURS, *(f"transformer-ranker-{e}" for e in plan.estimators if plan.python)):
                key, settings = f"rank/{target}/{size}/{system}", {"shelf": names, "rows": here.rows}
                if not record.has(key, settings):
                    _warm(sys.executable if system in OURS else str(plan.python))
                    made = _ours(here, shelf, work, OURS[system]) if system in OURS else None
                    peer = system.rpartition("-")[2]
                    found = made or _theirs(here, shelf, work, peer, str(plan.python))
                    record.put(key, settings, {**found, "load": os.getloadavg()[0]})
    for form in TRUTHS:
        for target in plan.targets:
            for place in shelf if form in plan.truths else ():
                key, settings = f"truth/{form}/{target}/{place.name}", {"test": plan.test, "steps": plan.steps}
                if not record.has(key, settings):
                    judge = _probed if form == "probe" else _tuned
                    record.put(key, settings, judge(data, target, place, work, plan))


def _warm(python: str) -> None:
    """Puts an interpreter's libraries into memory: what lay idle while the other system ran may have been put out."""
    subprocess.run([python, "-c", "import torch, transformers, sklearn, scipy.optimize"], check=True)


def _ours(here: sets.Cut, shelf: Sequence[Path], work: Path, rule: str) -> dict[str, Any]:
    """`headstart rank` in a fresh home: order, scores, proxies, and seconds from start to end."""
    import tempfile

    given = [word for place in shelf for word in ("--sources", str(place))]
    command = [*HEADSTART, "rank", str(here.train), *here.options(), *given, "--race", rule, "--json"]
    log = work / "rank.log"
    with tempfile.TemporaryDirectory(dir=work) as home:
        ended = timed(command, limit=3600, log=log, HEADSTART_HOME=home)
    told = parsed(ended["stdout"])
    if not told or "error" in told:
        return {"error": failure(ended, log), "seconds": round(ended["seconds"], 2)}
    kept = ("name", "score", "rows", "proxies", "dropped", "cost_seconds")
    listed = [{k: one[k] for k in kept} for one in told["sources"]]
    return {
        "seconds": round(ended["seconds"], 2),
        "sources": listed,
        "failed": told["failed"],
        "passes": told["passes"],
    }


def _theirs(here: sets.Cut, shelf: Sequence[Path], work: Path, estimator: str, python: str) -> dict[str, Any]:
    """transformer-ranker: its scores, and seconds from start to end."""
    out, log = work / "peer.json", work / "peer.log"
    out.unlink(missing_ok=True)
    command = [python, str(HERE / "shelf_peer.py"), *map(str, shelf), "--train", str(here.train)]
    ended = timed([*command, "--estimator", estimator, "--out", str(out)], limit=7200, log=log)
    if not out.exists():
        return {"error": failure(ended, log), "seconds": round(ended["seconds"], 2)}
    return {"seconds": round(ended["seconds"], 2), **parsed(out.read_text(encoding="utf-8"))}


def _value(here: sets.Cut, labels: Sequence[Any]) -> float:
    """The metric of predicted class names on the test rows."""
    from headstart.numerics import metrics

    numbers = {name: i for i, name in enumerate(here.classes)}
    truth, told = (np.array([numbers[str(name)] for name in some]) for some in (here.truth, labels))
    return float(metrics.value(here.metric, truth, np.eye(len(numbers))[told]))


def _probed(data: Path, target: str, place: Path, work: Path, plan: Plan) -> dict[str, Any]:
    """A logistic regression on the features of one source."""
    import pyarrow.parquet as pq
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from headstart.io import sources

    here = sets.cut(data, target, PROBE_ROWS, plan.test, work / "sets" / f"{target}-{PROBE_ROWS}-{plan.test}")
    train = pq.read_table(here.train)
    (source,), failed = sources.scan(place)
    assert not failed, failed
    with sources.opened(source) as opened:
        fit, judge = (opened.features(t.select(["text"])) for t in (train, pq.read_table(here.test)))
    head = LogisticRegressionCV(
        Cs=[1e-3, 1e-2, 0.1, 1.0], cv=3, l1_ratios=(0,), scoring="accuracy", max_iter=300, use_legacy_attributes=False
    )
    fitted = make_pipeline(StandardScaler(), head).fit(fit, train["label"].to_pylist())
    return {"value": _value(here, fitted.predict(judge).tolist()), "metric": here.metric, "rows": here.rows}


def _tuned(data: Path, target: str, place: Path, work: Path, plan: Plan) -> dict[str, Any]:
    """The plain recipe from one source."""
    here = sets.cut(data, target, TUNE_ROWS, plan.test, work / "sets" / f"{target}-{TUNE_ROWS}-{plan.test}")
    out, log = work / "recipe.json", work / "recipe.log"
    out.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "journey_peers.py"), "recipe", "--train", str(here.train)]
    command += ["--test", str(here.test), "--model", str(place), "--out", str(out), "--steps", str(plan.steps)]
    ended = timed(command, log=log)
    if not out.exists():
        return {"error": failure(ended, log), "seconds": round(ended["seconds"], 2)}
    told = parsed(out.read_text(encoding="utf-8"))
    return {"value": _value(here, told["predictions"]), "metric": here.metric, "seconds": round(ended["seconds"], 2)}


# -- the tables ------------------------------------------------------------------------------------------------------

Cells = Mapping[str, Mapping[str, Any]]


def guesses(cell: Mapping[str, Any], system: str) -> dict[str, dict[str, float]]:
    """By line of the table, what a run says of each source: higher is better."""
    if "scores" in cell:
        return {system: cell["scores"]}
    listed = cell["sources"]
    found = {system: {one["name"]: float(-place) for place, one in enumerate(listed)}}
    for proxy in ("logme", "shrunk_h_score"):
        if system == "headstart-all" and all(proxy in one["proxies"] for one in listed):
            found[f"headstart, its {proxy}"] = {one["name"]: one["proxies"][proxy] for one in listed}
    return found


def truths(cells: Cells, form: str) -> dict[str, dict[str, float]]:
    """target: source: value; targets that have all sources."""
    found: dict[str, dict[str, float]] = {}
    for key, cell in cells.items():
        if key.startswith(f"truth/{form}/") and "value" in cell:
            _, _, target, source = key.split("/")
            found.setdefault(target, {})[source] = cell["value"]
    most = max(map(len, found.values()), default=0)
    return {target: each for target, each in found.items() if len(each) == most}


def lines(cells: Cells, size: str) -> dict[str, dict[str, tuple[float, dict[str, float]]]]:
    """By line of the table and target: seconds, and what was said of each source."""
    found: dict[str, dict[str, tuple[float, dict[str, float]]]] = {}
    for key, cell in cells.items():
        if key.startswith("rank/") and "error" not in cell and key.split("/")[2] == size:
            _, target, _, system = key.split("/")
            for line, said in guesses(cell, system).items():
                found.setdefault(line, {})[target] = (cell["seconds"], said)
    return found


def compared(
    by_line: Mapping[str, Mapping[str, tuple[float, dict[str, float]]]], by_form: Mapping[str, Mapping[str, Any]]
) -> Iterator[list[str]]:
    """Rows of the table of one size; a line is compared on the targets that it and `headstart` both have."""
    own = by_line.get("headstart", {})
    for line, by_target in by_line.items():
        shared = [t for t in by_target if t in own]
        row = [line, str(len(by_target)), f"{np.mean([s for s, _ in by_target.values()]):.1f}"]
        mine, theirs = ([some[t][0] for t in shared] for some in (own, by_target))
        row.append(span(ratio(theirs, mine), ".1f") if shared else "–")
        for truth in by_form.values():
            known = [t for t in by_target if t in truth]
            if not known:
                row += ["–"] * 3
                continue
            pairs = []
            for target in known:
                said, value = by_target[target][1], truth[target]
                names = [n for n in value if n in said]
                pairs.append(([said[n] for n in names], [value[n] for n in names]))
            row.append(span(interval([tau(a, b) for a, b in pairs])))
            row += [span(interval([100 * regret(a, b, k) for a, b in pairs]), ".1f") for k in (1, 3)]
        yield row


def report(document: Mapping[str, Any]) -> str:
    """Markdown, from the file alone."""
    cells: Cells = document["cells"]
    by_form = {form: found for form in TRUTHS if (found := truths(cells, form))}
    sizes = sorted({key.split("/")[2] for key in cells if key.startswith("rank/")}, key=int)
    machine = document["machine"]
    told = [f"Made with `{COMMAND}`.", ""]
    told += [f"Machine: {machine['cores']} cores, {machine['system']}, Python {machine['python']}."]
    loads = [cell["load"] for cell in cells.values() if "load" in cell]
    if loads:
        told.append(f"Load, median and largest: {np.median(loads):.1f}, {max(loads):.1f}.")
    head = ["system", "targets", "seconds a target", "time over `headstart`'s"]
    for form in by_form:
        head += [f"tau, {form}", f"regret@1, {form}, points", f"regret@3, {form}, points"]
    for size in sizes:
        told += ["", f"## {size} labels of a class", "", table(head, compared(lines(cells, size), by_form))]
        passes = [
            cell["passes"]["rows"] / cell["passes"]["full"]
            for key, cell in cells.items()
            if key.startswith("rank/") and key.endswith(f"/{size}/headstart") and "passes" in cell
        ]
        if passes:
            told += ["", f"The race took {span(interval(passes))} of the passes."]
    told += ["", *(_shelf(by_form))]
    told += [f"- failed: `{key}`, {cell['error']}" for key, cell in cells.items() if "error" in cell]
    return "\n".join(told)


def _shelf(by_form: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    """What each source is worth, so that a reader sees how far apart they are."""
    for form, by_target in by_form.items():
        names = list(next(iter(by_target.values())))
        rows = [[name, *(f"{by_target[t].get(name, float('nan')):.3f}" for t in by_target)] for name in names]
        yield f"## The truth by {form}\n\n" + table(["source", *by_target], rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("sources.json"), help="raw results; gone on with if there")
    parser.add_argument("--work", type=Path, default=Path("sources-work"), help="folder for cut sets and made sources")
    parser.add_argument("--encoder", type=Path, help="model folder; default: the MiniLM of the test extra")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the sets")
    parser.add_argument("--peer-python", help="an interpreter that has transformer-ranker")
    parser.add_argument("--estimators", default="hscore,logme", help="of transformer-ranker")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--sizes", default="5,20,100", help="labels of each class")
    parser.add_argument("--truth", default="probe,finetune")
    parser.add_argument("--quick", action="store_true", help="try everything on little")
    parser.add_argument("--only", choices=("report",))
    asked = parser.parse_args()
    record = Record(asked.json.absolute())
    if asked.only is None:
        if not (asked.data / "CARD.md").exists():
            print(f"error: the sets are not in `{asked.data}`; give their folder with --data", file=sys.stderr)
            return 2
        if asked.peer_python is None:
            say("transformer-ranker is left out: name an interpreter that has it with --peer-python")
        os.environ["HF_HUB_OFFLINE"] = "1"
        work = asked.work.absolute() / ("quick" if asked.quick else "full")
        work.mkdir(parents=True, exist_ok=True)
        shelf = build(record, (asked.encoder or sets.minilm()).absolute(), asked.data, work, quick=asked.quick)
        plan = Plan(
            targets=["trec6"] if asked.quick else asked.targets.split(","),
            sizes=[5] if asked.quick else [int(n) for n in asked.sizes.split(",")],
            truths=asked.truth.split(","),
            estimators=asked.estimators.split(","),
            python=asked.peer_python,
            test=60 if asked.quick else TEST,
            steps=3 if asked.quick else TUNE_STEPS,
        )
        run(record, shelf, asked.data, work, plan)
    print(report(record.begun))
    return 0


if __name__ == "__main__":
    sys.exit(main())
