"""Which recall finds the good sources of a target that the records do not hold: leave one target out, on real records.

    python benchmarks/recall.py --data ../shared/data/history
    python benchmarks/recall.py --quick

Each target takes its turn as the new one, and is judged on its own figures. Nothing of them is used but, in the second
half, `--revealed` of them, drawn at random ten times (the same for all methods), which are then left out of the
judging. Similarities of targets are not in the files: where a task is a source as well (taskweb, prompt_transfer), two
are as alike as what they did for others; else they come from the revealed figures, or are unknown.

- tau: weighted Kendall's tau, `scipy.stats.weightedtau`, of guesses and figures.
- regret@k: how far the best of the first k lies below the best of all, in the target's standard deviations.
- top-1: how often the first is the best.

Means over targets, 95 % by 2,000 bootstrap draws of targets; ↑ and ↓: the difference in tau from `mean of source`, on
the same draws, lies wholly above or below 0. Figures of -1 in parc_all mean a failed run, and are left out. With
`--places` methods see ranks within a target in place of figures.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import warnings

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import weightedtau

from headstart.catalogue import entries
from headstart.core import Guess, Known, Unfit
from headstart.inventory import Inventory
from headstart.numerics.records import Records, agreement, mean_by_source, standard

Array = np.ndarray[Any, Any]
Recall = Callable[[Records, Known], Guess]
SETS: dict[str, dict[str, Any]] = {
    "taskweb": {"method": "finetune", "metric": "accuracy", "model": "t5l"},
    "prompt_transfer": {"method": "prompt_transfer", "metric": "acc", "model": "T5"},
    "parc_all": {"method": "finetune", "metric": "accuracy"},
    "transfergraph_img": {"method": "finetune", "metric": "test_accuracy"},
    "transfergraph_records": {"method": "finetune", "metric": "test_accuracy"},
}
DRAWS, BOOTSTRAP, KS = 10, 2000, (1, 3, 5)
MEAN, RANDOM = "mean of source", "random"


def methods() -> dict[str, Recall]:
    chance = np.random.default_rng(0)

    def at_random(records: Records, _: Known) -> Guess:
        return Guess(chance.random(len(records.sources)))

    def mean_of_source(records: Records, _: Known) -> Guess:
        return Guess(mean_by_source(records.standardised()))

    return {
        RANDOM: at_random,
        MEAN: mean_of_source,
        **{name: entry.load()() for name, entry in entries("recall.sources").items()},
    }


def as_sources(records: Records, target: str) -> Known:
    """How alike the tasks are by what they did for other targets, where they are sources as well."""
    figures = records.standardised()
    column = {task: figures[:, j] for j, task in enumerate(records.tasks)}
    unknown = np.full(len(figures), np.nan)

    def alike(one: str, other: str) -> float:
        return agreement(column.get(one, unknown), column.get(other, unknown))

    near = np.array([alike(target, past) for past in records.targets])
    return Known(near, None, np.array([[alike(a, b) for b in records.targets] for a in records.targets]))


def judged(guess: Array, truth: Array) -> list[float]:
    """tau, regrets, and whether the first is the best, over sources with a guess and a figure."""
    there = np.isfinite(guess) & np.isfinite(truth)
    figures = standard(truth)[there]
    best = np.nanmax(standard(truth))
    order = np.argsort(-guess[there], kind="stable")
    tau = weightedtau(figures, guess[there]).statistic
    regrets = [best - figures[order[:k]].max() for k in KS]
    return [0.0 if np.isnan(tau) else float(tau), *regrets, float(regrets[0] < 1e-12)]


def left_out(records: Records, revealed: int, places: bool) -> dict[str, Array]:
    """By method, (targets, figures of merit), each the mean over draws; NaN where the method refused."""
    compared = methods()
    found: dict[str, list[Array]] = {name: [] for name in compared}
    for t, target in enumerate(records.targets):
        rest, own = records.without(target)
        truth = rest.sign * own
        tried = np.flatnonzero(np.isfinite(own))
        if len(tried) < revealed + 5:
            continue
        shown = rest.ranked() if places else rest
        said: dict[str, list[list[float]]] = {name: [] for name in found}
        known = as_sources(shown, target)
        for draw in range(DRAWS if revealed else 1):
            drawn = np.random.default_rng((t, draw)).permutation(tried)[:revealed]
            values = np.full(len(own), np.nan)
            values[drawn] = own[drawn] * (rest.sign if places else 1)
            hidden = np.where(np.isin(np.arange(len(own)), drawn), np.nan, truth)
            near = known if np.isfinite(known.similarities).any() else Known()  # type: ignore[arg-type]  # as_sources has them
            for name, method in compared.items():
                try:
                    guess = method(shown, Known(near.similarities, values if revealed else None, near.between))
                except Unfit:
                    said[name].append([np.nan] * (2 + len(KS)))
                else:
                    said[name].append(judged(guess.values, hidden))
        for name, each in said.items():
            found[name].append(np.mean(each, axis=0))
    return {name: np.array(rows) for name, rows in found.items()}


def cells(found: dict[str, Array]) -> dict[str, tuple[str, str]]:
    """By method: tau with its interval and its mark, and the other figures."""
    chance = np.random.default_rng(0)
    count = len(found[MEAN])
    draws = chance.integers(count, size=(BOOTSTRAP, count))
    made = {}
    for name, rows in found.items():
        if np.isnan(rows).any():
            made[name] = ("–", "–")
            continue
        low, high = np.quantile(rows[draws, 0].mean(axis=1), (0.025, 0.975))
        below, above = np.quantile((rows - found[MEAN])[draws, 0].mean(axis=1), (0.025, 0.975))
        mark = " ↑" if below > 0 else " ↓" if above < 0 else ""
        _, one, three, five, first = rows.mean(axis=0)
        made[name] = (
            f"{rows[:, 0].mean():.2f} [{low:.2f}, {high:.2f}]{mark}",
            f"{one:.2f} / {three:.2f} / {five:.2f}, {first:.0%}",
        )
    return made


def read(folder: Path, scratch: Path) -> dict[str, Records]:
    """The tables, through a bank of their own."""
    tables = {}
    with Inventory(scratch / "bank.db") as bank:
        for name, key in SETS.items():
            with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            kept = [row for row in rows if all(row[k] == v for k, v in key.items()) and float(row["value"]) >= 0]
            with (scratch / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(kept)
            bank.import_records(scratch / f"{name}.csv")
            tables[name] = bank.transfers(origin=name, **key)
    return tables


def show(title: str, every: dict[str, dict[str, tuple[str, str]]], part: int) -> None:
    print(f"\n{title}\n\n| | {' | '.join(every)} |\n| --- |{' --- |' * len(every)}")
    for name in methods():
        label = name if name in (MEAN, RANDOM) else f"`{name}`"
        print(f"| {label} | {' | '.join(one[name][part] for one in every.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "history")
    parser.add_argument("--revealed", type=int, default=5, help="figures of the new target in the second half")
    parser.add_argument("--places", action="store_true", help="ranks within a target in place of figures")
    parser.add_argument("--quick", action="store_true", help="two small sets, three draws")
    given = parser.parse_args()
    if given.quick:
        global DRAWS
        DRAWS = 3
        for name in ("transfergraph_img", "transfergraph_records", "prompt_transfer"):
            del SETS[name]
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    with tempfile.TemporaryDirectory() as scratch:
        tables = read(given.data, Path(scratch))
    print("targets, sources: " + "; ".join(f"{n} {t.values.shape[0]}, {t.values.shape[1]}" for n, t in tables.items()))
    for revealed in (0, given.revealed):
        every = {name: cells(left_out(table, revealed, given.places)) for name, table in tables.items()}
        known = f"{revealed} figures of the target known" if revealed else "nothing of the target known"
        show(f"Weighted tau, {known}", every, 0)
        show(f"Regret at 1 / 3 / 5, and how often the first is the best, {known}", every, 1)


if __name__ == "__main__":
    main()
