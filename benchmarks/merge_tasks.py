"""Merges of real fine-tunes: one encoder, tuned on several tasks, merged by every method; and what deltas keep.

    python benchmarks/merge_tasks.py --json tasks.json --work WORK --encoder MINILM --data SHARED/data
        [--tasks trec6,sst2,subj,tweet_emotion] [--rows 1000] [--epochs 3] [--steps 100] [--rounds 3]
        [--only loops|report]

Each task's first rows (in the order of a hash) tune a stock classifier of transformers from the encoder: AdamW at
1e-4, batches of 32 rows, no schedule. 500 further rows choose each method's setting, learn shares where a method
learns, and give the inputs that passes look at; up to 1,000 rows of the data set's own test give the figures that
are printed. Heads stay with their tasks. Every method is run at the settings that `headstart merge auto` tries; those
that keep parts of the models apart at their own settings, of which no rows choose, and with the task named: how often
their routers find it stands beside. What learns by gradients of the model takes `--steps` steps. Papers compare with
task arithmetic at the scale 0.3: of what they hold against it, the difference to that has a column of its own.

Merges that train in turns are not among what `auto` tries, and made by `--only loops` alone: each in `--rounds` rounds,
the first of which merges the fine-tunes, and of `--steps` steps a task in all others together. `forkmerge` works for
its target alone, the first task.

A delta is the fine-tune less the encoder; `accuracy kept` is that of encoder + delta on the task's test rows over
that of the fine-tune. Raw results go to the JSON file after every step, and what stands there is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rank_figures import table

import headstart as hs
from headstart import catalogue
from headstart.combination import deltas
from headstart.combination.entrants import Entrant, entrants
from headstart.combination.learned import learned_from, told_by
from headstart.combination.live import LiveMerge, TaskRows, alive, task_rows
from headstart.combination.merging import ROUTING, carried_out, planned
from headstart.combination.plans import Plan
from headstart.core import Problem, Steps
from headstart.inspection import read_unlabelled
from headstart.io.routed import RoutedModel
from headstart.numerics.artifacts import linked
from headstart.numerics.bootstrap import interval, resampled
from journey import Record, say

TASKS = "trec6,sst2,subj,tweet_emotion"
CHOOSE, TEST = 500, 1000
PAPERS = "task_arithmetic (scale=0.3)"  # what papers compare with, and those of their methods that are held against it
HELD_AGAINST_IT = {"ties", "adamerging", "iso_c", "surgery"}
FORMS = ("sparse:0.3", "sparse:0.1", "sparse:0.05", "lowrank:32", "lowrank:16", "lowrank:4", "onebit", "int8", "int4")
Array = np.ndarray[Any, Any]


def main() -> None:
    options = _options()
    record = Record(Path(options.json))
    if options.only != "report":
        torch.manual_seed(0)
        names = options.tasks.split(",")
        rows = {n: _rows(Path(options.data), n, options.rows, Path(options.work)) for n in names}
        tuned = {n: _tuned(record, Path(options.encoder), Path(options.work), n, rows[n], options) for n in names}
        _merges(record, Path(options.encoder), tuned, rows, options)
    if options.only is None:
        _apart(record, Path(options.encoder), tuned, rows, options)
        _forms(record, Path(options.encoder), tuned, rows, Path(options.work))
    _report(record, Path(options.work), options.rows)


def _rows(data: Path, name: str, train: int, work: Path) -> dict[str, Path]:
    """Tables of the rows to tune on, to choose by and to test on."""
    import pandas as pd

    out = {split: work / f"{name}-{train}-{split}.csv" for split in ("train", "choose", "test")}
    if all(p.is_file() for p in out.values()):
        return out
    every = {s: pd.read_parquet(data / name / f"{s}.parquet") for s in ("train", "test")}
    known = every["train"][["text", "label"]].drop_duplicates("text")
    unseen = every["test"][["text", "label"]].drop_duplicates("text")
    unseen = unseen[~unseen["text"].isin(set(known["text"]))]
    known, unseen = (t.iloc[np.argsort([_hash(x) for x in t["text"]], kind="stable")] for t in (known, unseen))
    work.mkdir(parents=True, exist_ok=True)
    known[:train].to_csv(out["train"], index=False)
    known[train : train + CHOOSE].to_csv(out["choose"], index=False)
    unseen[:TEST].to_csv(out["test"], index=False)
    return out


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tuned(record: Record, encoder: Path, work: Path, name: str, rows: dict[str, Path], options: Any) -> Path:
    """A fine-tune as transformers saves it."""
    out, settings = work / name, {"rows": options.rows, "epochs": options.epochs, "encoder": encoder.name}
    if record.has(f"tune/{name}", settings) and (out / "model.safetensors").is_file():
        return out
    import pandas as pd
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    known = pd.read_csv(rows["train"], keep_default_na=False, dtype=str)
    labels = sorted(set(known["label"]))
    named = {"id2label": dict(enumerate(labels)), "label2id": {v: i for i, v in enumerate(labels)}}
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=len(labels), **named)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    y = torch.tensor([labels.index(v) for v in known["label"]])
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model.train()
    began = time.perf_counter()
    for epoch in range(options.epochs):
        for some in torch.randperm(len(y), generator=torch.Generator().manual_seed(epoch)).split(32):
            texts = [known["text"].iloc[int(i)] for i in some]
            batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
            model(**batch, labels=y[some]).loss.backward()
            adam.step()
            adam.zero_grad()
        say(f"{name}: epoch {epoch + 1} of {options.epochs}, {time.perf_counter() - began:.0f} s")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    record.put(f"tune/{name}", settings, {"seconds": round(time.perf_counter() - began, 1)})
    return out


def _read(path: Path) -> hs.Target:
    return hs.read_target(str(path), label="label", text="text", task="single_label", metric="accuracy")


def _whole(target: hs.Target, plan: Plan, own: int) -> TaskRows:
    """All rows of a table: what is sealed in it, too, for the table is one side already."""
    import pyarrow as pa

    task = task_rows(target, plan, own)
    if not len(target.seal):
        return task
    sealed = target.seal.open()
    return replace(
        task,
        inputs=pa.concat_tables([task.inputs, sealed.inputs]),
        labels=np.concatenate([task.labels, sealed.labels]),  # type: ignore[list-item]
    )


def _order(table_: Path) -> list[int]:
    """Numbers of a table's rows in the order of `_whole`, which parts apart do not have: sealed rows come last."""
    target = _read(table_)
    sides = [target.labelled, *([target.seal.open()] if len(target.seal) else [])]
    at = {text: i for i, text in enumerate(_columns(table_)[0].column("text").to_pylist())}
    return [at[text] for side in sides for text in side.inputs.column("text").to_pylist()]


def _merges(
    record: Record, encoder: Path, tuned: dict[str, Path], rows: dict[str, dict[str, Path]], options: Any
) -> None:
    plan = planned(list(tuned.values()), "task_arithmetic", base=encoder, heads="separate")
    sides = {s: [_whole(_read(rows[n][s]), plan, i) for i, n in enumerate(tuned)] for s in ("choose", "test")}
    settings = {"tasks": list(tuned), "rows": options.rows, "epochs": options.epochs, "steps": options.steps}
    with alive(plan, sides["choose"], labels=True) as view:
        unseen = view.on(sides["test"], labels=True)
        models = {n: np.tile(np.eye(len(tuned))[i], (len(view.tensors), 1)) for i, n in enumerate(tuned)}
        shares = {**models, "mean of all": np.full((len(view.tensors), len(tuned)), 1 / len(tuned))}
        for name, share in {**shares, "encoder alone": 0 * shares["mean of all"]}.items():
            if not record.has(f"merge/{name}", settings):
                told = {"stage": "baseline", **_scored(view, unseen, view.shared(share))}
                record.put(f"merge/{name}", settings, told)
        for one in _entrants(plan, options):
            if record.has(f"merge/{one.name}", settings):
                continue
            say(one.name)
            began = time.perf_counter()
            try:
                made = _made(view, plan, one, options.steps)
            except Problem as problem:
                record.put(f"merge/{one.name}", settings, {"error": problem.what})
                continue
            told = {"stage": one.stage, "method": one.method, "seconds": round(time.perf_counter() - began, 1)}
            names = set(view.tensors)
            weights = view.merged([m for m in made.made if m.name in names])
            record.put(f"merge/{one.name}", settings, {**told, **_scored(view, unseen, weights)})


def _entrants(plan: Plan, options: Any) -> list[Entrant]:
    """Merges at the settings that `auto` tries, or the loops of training and merging."""
    if options.only != "loops":
        return entrants(plan, None, labels=True)[0]
    found = entrants(plan, list(catalogue.entries("combination.loops")), labels=True)[0]
    return [replace(one, settings={**one.settings, "rounds": options.rounds}) for one in found]


def _apart(
    record: Record, encoder: Path, tuned: dict[str, Path], rows: dict[str, dict[str, Path]], options: Any
) -> None:
    """Merges that keep parts of the models apart, learned from the rows to choose by: no setting is chosen by them."""
    settings = {"tasks": list(tuned), "rows": options.rows, "epochs": options.epochs, "steps": options.steps}
    for method in catalogue.entries(ROUTING):
        if record.has(f"apart/{method}", settings):
            continue
        say(method)
        began = time.perf_counter()
        out = Path(options.work) / "apart"
        plan = planned(list(tuned.values()), method, base=encoder, heads="separate")
        tasks = [_whole(_read(rows[n]["choose"]), plan, i) for i, n in enumerate(tuned)]
        steps = options.steps if "gradients" in plan.reads.needs.gives else None
        made = carried_out(learned_from(plan, tasks, steps=steps), out, overwrite=True)
        told = {"method": method, "seconds": round(time.perf_counter() - began, 1)}
        model, tests = RoutedModel(out), []
        for name in tuned:
            inputs, labels = _columns(rows[name]["test"])
            classes = model.heads[model.tasks.index(name)].labels
            named, _ = model.table(inputs, classes, name)
            hit = [classes[i] == y for i, y in zip(named.argmax(1).tolist(), labels, strict=True)]
            owners = model.routed(inputs).argmax(1)
            found = float((owners == model.tasks.index(name)).mean())
            tests.append((hit, found))
        storage = made.receipt.facts["storage"]
        record.put(f"apart/{method}", settings, {
            **told, "test": [float(np.mean(h)) for h, _ in tests], "routed": [f for _, f in tests],
            "right": ["".join("1" if x else "0" for x in h) for h, _ in tests], "share": storage["share"],
        })  # fmt: skip


def _columns(path: Path) -> tuple[Any, list[str]]:
    """Inputs and labels of a table."""
    import pandas as pd

    known = pd.read_csv(path, keep_default_na=False, dtype=str)
    return read_unlabelled(list(known["text"])).inputs, list(known["label"])


def _made(view: LiveMerge, plan: Plan, one: Entrant, steps: int) -> Plan:
    method = catalogue.make(one.kind, one.method, **one.settings)
    rows = view.on([_part(view, t) for t in range(len(view.tasks))], labels=method.needs.labels)
    slow = getattr(method, "trials", None) is not None
    return told_by(plan, method, rows, Steps(horizon=min(steps, 30) if slow else steps))


def _part(view: LiveMerge, task: int) -> TaskRows:
    """The half of the rows to choose by that methods learn from; settings are chosen by the other half."""
    one = view._tasks[task]
    return one.take(range(0, view.rows(task), 2))


def _scored(view: LiveMerge, unseen: LiveMerge, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Accuracy on the half of the rows to choose by that nothing is learned from, and on the test rows of each task."""
    choose, test, right = [], [], []
    with torch.no_grad():
        for task in range(len(view.tasks)):
            half = range(1, view.rows(task), 2)
            table = linked(view.logits(weights, task, half).numpy(), "softmax")
            choose.append(float((table.argmax(1) == view.labels(task, half).numpy()).mean()))
            every = range(unseen.rows(task))
            table = linked(unseen.logits(weights, task, every).numpy(), "softmax")
            hit = table.argmax(1) == unseen.labels(task, every).numpy()
            test.append(float(hit.mean()))
            right.append("".join("1" if h else "0" for h in hit))
    return {"choose": choose, "test": test, "right": right}


def _forms(record: Record, encoder: Path, tuned: dict[str, Path], rows: dict[str, dict[str, Path]], work: Path) -> None:
    for name, folder in tuned.items():
        whole = work / f"{name}.delta.safetensors"
        if not record.has(f"delta/{name}/dense", {}):
            whole.unlink(missing_ok=True)
            made = deltas.diff(encoder, folder, out=whole)
            record.put(
                f"delta/{name}/dense", {}, {"bytes": made.bytes, "accuracy": _accuracy(folder, rows[name]["test"])}
            )
        for form in FORMS:
            if record.has(f"delta/{name}/{form}", {}):
                continue
            small = work / f"{name}.{form.replace(':', '-')}.safetensors"
            small.unlink(missing_ok=True)
            made = deltas.compress(whole, form, out=small)
            back = work / "applied"
            deltas.apply(small, encoder, out=back, overwrite=True)
            record.put(
                f"delta/{name}/{form}", {}, {"bytes": made.bytes, "accuracy": _accuracy(back, rows[name]["test"])}
            )


def _accuracy(folder: Path, table_: Path) -> float:
    """By transformers alone."""
    import pandas as pd
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    known = pd.read_csv(table_, keep_default_na=False, dtype=str)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer, right = AutoTokenizer.from_pretrained(folder), 0
    order = np.argsort([len(t) for t in known["text"]], kind="stable")
    with torch.inference_mode():
        for at in range(0, len(order), 64):
            some = known.iloc[order[at : at + 64]]
            batch = tokenizer(list(some["text"]), padding=True, truncation=True, max_length=64, return_tensors="pt")
            found = model(**batch).logits.argmax(1).tolist()
            right += sum(model.config.id2label[i] == v for i, v in zip(found, some["label"], strict=True))
    return right / len(known)


def _report(record: Record, work: Path, rows: int) -> None:
    cells = {k.removeprefix("merge/"): v for k, v in record.cells.items() if k.startswith("merge/") and "test" in v}
    if not cells:
        return
    tasks = next(iter(cells.values()))["settings"]["tasks"]
    single = np.array([cells[t]["test"][i] for i, t in enumerate(tasks)])
    best: dict[str, tuple[str, Any]] = {}
    for name, cell in cells.items():  # of each method, the setting that was best on the rows to choose by
        group = cell.get("method", name)
        if group not in best or np.mean(cell["choose"]) > np.mean(best[group][1]["choose"]):
            best[group] = name, cell
    plain = best.get("task_arithmetic", (None, None))[1]
    theirs = cells.get(PAPERS)
    if theirs is not None and theirs is not plain:
        best[PAPERS] = PAPERS, theirs
    lines = []
    for name, cell in sorted(best.values(), key=lambda b: -np.mean(b[1]["test"])):
        gain = "" if plain is None or cell is plain else _gain(cell, plain)
        over = _gain(cell, theirs) if theirs is not None and cell.get("method") in HELD_AGAINST_IT else ""
        share = f"{100 * np.mean(np.array(cell['test']) / single):.1f}"
        each = [f"{100 * a:.1f}" for a in cell["test"]]
        lines.append([name, cell["stage"], *each, f"{100 * np.mean(cell['test']):.1f}", share, gain, over])
    heads = [*tasks, "mean", "% of own models", "over task arithmetic", "over it at scale 0.3"]
    print(table(["merge", "learns from", *heads], lines))
    order = [_order(work / f"{t}-{rows}-test.csv") for t in tasks]
    lines = []
    for method, cell in ((k.removeprefix("apart/"), v) for k, v in record.cells.items() if k.startswith("apart/")):
        share = f"{100 * np.mean(np.array(cell['test']) / single):.1f}"
        each = [f"{100 * a:.1f}" for a in cell["test"]]
        cell = {**cell, "right": ["".join(r[i] for i in o) for r, o in zip(cell["right"], order, strict=True)]}
        told = [f"{100 * np.mean(cell['routed']):.1f}", f"{100 * cell['share']:.0f}", f"{cell['seconds']:.0f}"]
        gain = "" if plain is None else _gain(cell, plain)
        over = _gain(cell, theirs) if theirs is not None and method in HELD_AGAINST_IT else ""
        lines.append([method, *each, f"{100 * np.mean(cell['test']):.1f}", share, gain, over, *told])
    print(table(["parts apart", *heads, "router finds the task, %", "% of the models' bytes", "s"], lines))
    forms = ["dense", *FORMS]
    found = [[record.cells.get(f"delta/{t}/{f}") for t in tasks] for f in forms]
    lines = []
    for form, row in zip(forms, found, strict=True):
        if all(row) and all(found[0]):
            kept = [c["accuracy"] / whole["accuracy"] for c, whole in zip(row, found[0], strict=True)]
            lines.append([form, *(f"{c['bytes'] / 1e6:.1f}, {100 * k:.1f}" for c, k in zip(row, kept, strict=True))])
    print(table(["form of the delta (MB, % of the accuracy kept)", *tasks], lines))


def _gain(cell: Any, plain: Any) -> str:
    """Points of mean accuracy over task arithmetic's, with the interval of a paired bootstrap over rows."""
    each, drawn = [], []
    for task, (a, b) in enumerate(zip(cell["right"], plain["right"], strict=True)):
        one, other = (np.array([int(c) for c in s], dtype=float) for s in (a, b))
        tables = [np.column_stack([1 - v, v]) for v in (one, other)]
        got = resampled("accuracy", np.ones(len(one), dtype=int), tables, [str(i) for i in range(len(one))], seed=task)
        each.append(one.mean() - other.mean())
        drawn.append(got[0] - got[1])
    low, high = interval(np.mean(drawn, axis=0))
    return f"{100 * np.mean(each):+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True)
    parser.add_argument("--work", default="merge-tasks")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--data", default="data")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["loops", "report"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
