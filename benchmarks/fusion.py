"""What proxies and history together let expect of a source on a target that the records do not hold.

    python benchmarks/fusion.py --data ../shared/data/history

Published records, one target left out in turn, its own figures only judge. Three tables hold estimators' scores beside
the accuracies: ten ImageNet models on five targets (tllib), and fifteen source data sets, or nine architectures, on
seven medical targets (medmnist). In the others only what sources did on other targets is known (`history`).

- tau, regret at 1 / 3 / 5, top-1: as in `benchmarks/recall.py`. Intervals: 95 %, 2,000 bootstrap draws of targets; ↑
  and ↓: the difference from `history` alone lies wholly above or below 0.
- coverage: share of a target's sources whose figure lies in the 90 % interval, the mean over targets, bootstrapped.
  half width: in the metric's units, the mean over pairs and targets.
- below each table: how intervals were made, and `ridge` against the best proxy, or history, that hindsight can choose.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import warnings

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.catalogue import entries
from headstart.inventory import Inventory
from headstart.numerics.pools import HISTORY, Pool, read
from headstart.ranking.expect import forecast_of
from recall import BOOTSTRAP, SETS, judged

Array = np.ndarray[Any, Any]
FINETUNE = "finetune"
RANDOM, RIDGE = "random", "`ridge`"
WITH_PROXIES = {  # file: (metric, axis)
    "tllib": ("tllib_model_selection", "accuracy", None),
    "medmnist, data sets": ("medmnist_transfer", "auc", "dataset"),
    "medmnist, architectures": ("medmnist_transfer", "auc", "model"),
}


def tables(folder: Path, scratch: Path) -> dict[str, list[Pool]]:
    """Pools by table, through a bank of their own."""
    found: dict[str, list[Pool]] = {}
    with Inventory(scratch / "bank.db") as bank:
        for name, (file, metric, axis) in WITH_PROXIES.items():
            origin = name.replace(", ", "-").replace(" ", "-")
            _write(_joined(folder / f"{file}.csv", metric, axis), scratch / f"{origin}.csv", origin)
            bank.import_records(scratch / f"{origin}.csv")
            found[name] = bank.imported_pools(origin, FINETUNE, metric)
        for name, key in SETS.items():
            with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as held:
                rows = [r for r in csv.DictReader(held) if all(r[k] == v for k, v in key.items())]
            _write([r for r in rows if float(r["value"]) >= 0], scratch / f"{name}.csv", name)
            bank.import_records(scratch / f"{name}.csv")
            found[name] = bank.imported_pools(name, key["method"], key["metric"])
    return {name: [p for p in pools if _known(p) >= 5] for name, pools in found.items()}


def _joined(path: Path, metric: str, axis: str | None) -> list[dict[str, Any]]:
    """Fine-tuned figures, with the scores of the same pair as `proxies`; means over repeated rows."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    scores: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if axis and json.loads(row["extra"] or "{}").get("axis") != axis:
                continue
            pair = row["target"], row["source"], row["model"]
            if row["method"] == FINETUNE and row["metric"] == metric:
                values[pair].append(float(row["value"]))
            elif row["metric"] == "score":
                scores[pair][row["method"]].append(float(row["value"]))
    return [
        {
            "target": target, "source": source, "model": model, "method": FINETUNE, "metric": metric,
            "value": np.mean(values[target, source, model]),
            "extra": json.dumps({"proxies": {n: float(np.mean(v)) for n, v in told.items() if np.isfinite(v).all()}}),
        }
        for (target, source, model), told in sorted(scores.items())
        if (target, source, model) in values and source != target
    ]  # fmt: skip


def _write(rows: list[dict[str, Any]], path: Path, origin: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**row, "origin": origin} if "origin" in row else row for row in rows])


def _known(pool: Pool) -> int:
    assert pool.values is not None
    return int(np.isfinite(pool.values).sum())


def left_out(pools: list[Pool]) -> tuple[dict[str, Array], dict[str, Array], set[str]]:
    """By method (targets, figures of merit); by fusion (targets, [coverage, half width]); and the rules used."""
    merits: dict[str, list[list[float]]] = defaultdict(list)
    spans: dict[str, list[list[float]]] = defaultdict(list)
    rules = set()
    for at, target in enumerate(pools):
        past, new = pools[:at] + pools[at + 1 :], replace(target, values=None)
        assert target.values is not None
        seen = read(past, new)
        chance = np.random.default_rng(at)
        merits[RANDOM].append(np.mean([judged(chance.random(len(new.sources)), target.values) for _ in range(20)], 0))
        for name in new.proxies:
            merits[name].append(judged(new.proxies[name], target.values))
        merits[HISTORY].append(judged(seen.new[:, seen.names.index(HISTORY)], target.values))
        for name in entries("ranking.fusion"):
            values, lows, highs, rule = forecast_of(past, new, name)
            rules.add(rule)
            merits[f"`{name}`"].append(judged(values, target.values))
            there = np.isfinite(target.values)
            held = (lows <= target.values) & (target.values <= highs)
            spans[f"`{name}`"].append([held[there].mean(), (highs - lows)[there].mean() / 2])
    whole = {n: np.array(rows) for n, rows in merits.items() if len(rows) == len(pools)}
    return whole, {n: np.array(rows) for n, rows in spans.items()}, rules


def span(values: Array) -> str:
    draws = np.random.default_rng(0).integers(len(values), size=(BOOTSTRAP, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def mark(difference: Array) -> str:
    draws = np.random.default_rng(0).integers(len(difference), size=(BOOTSTRAP, len(difference)))
    below, above = np.quantile(difference[draws].mean(axis=1), (0.025, 0.975))
    return " ↑" if below > 0 else " ↓" if above < 0 else ""


def cells(merits: dict[str, Array], spans: dict[str, Array]) -> dict[str, tuple[str, ...]]:
    """By method: tau, regret, top-1, and of fused ones coverage and half width, as they are printed."""
    made = {}
    for name, rows in merits.items():
        _, one, three, five, first = rows.mean(axis=0)
        tau = span(rows[:, 0]) + mark(rows[:, 0] - merits[HISTORY][:, 0])
        held = (span(spans[name][:, 0]), f"{spans[name][:, 1].mean():.3g}") if name in spans else ("", "")
        made[name] = (tau, f"{one:.2f} / {three:.2f} / {five:.2f}", f"{first:.0%}", *held)
    return made


def against(merits: dict[str, Array]) -> Iterator[str]:
    """What `ridge` is ahead by in tau, and behind by in regret@1, of the single one that is best there in hindsight."""
    single = [name for name in merits if name != RANDOM and not name.startswith("`")]
    for column, word, sign in ((0, "tau", 1), (1, "regret@1", -1)):
        best = max(single, key=lambda name: sign * merits[name][:, column].mean())
        yield f"{word} of {RIDGE} less that of {best}: {span(merits[RIDGE][:, column] - merits[best][:, column])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "history")
    parser.add_argument("--only", nargs="*", help="names of tables")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    with tempfile.TemporaryDirectory() as scratch:
        every = tables(given.data, Path(scratch))
    covered = defaultdict[tuple[str, str], list[float]](list)
    for name, pools in every.items():
        if given.only and name not in given.only:
            continue
        merits, spans, rules = left_out(pools)
        print(f"\n### {name}: {len(pools)} targets, {len({s for p in pools for s in p.sources})} sources\n")
        print("| | tau | regret at 1 / 3 / 5 | top-1 | coverage | half width |\n| --- | --- | --- | --- | --- | --- |")
        for method, told in cells(merits, spans).items():
            print(f"| {method} | {' | '.join(told)} |")
        print(f"\nintervals: {', '.join(sorted(rules))}; {'; '.join(against(merits))}")
        for method, told in spans.items():
            for which in ("all", "with proxies" if name in WITH_PROXIES else "history alone"):
                covered[which, method] += told[:, 0].tolist()
    print("\n| tables | | targets | coverage of 90 % intervals |\n| --- | --- | --- | --- |")
    for (which, method), held in covered.items():
        print(f"| {which} | {method} | {len(held)} | {span(np.array(held))} |")


if __name__ == "__main__":
    main()
