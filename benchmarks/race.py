"""The race on real features: how much of full scoring it spares, and what that costs.

    python benchmarks/race.py --json sources.json --work WORK [--encoder FOLDER] [--data DIR] [--sets trec6,…]
        [--rows 2000] [--pool 4000] [--tuning 20] [--fresh 50] [--default-rule] [--jobs 1]

Sources are layers 2, 4 and 6 of an encoder, of five fine-tunes of it, of one with random and of one with damaged
weights (`text_shelf.py`). For each set and seed, 2,000 rows are drawn from a pool of 4,000, and each rule races the
sources over them as `headstart rank --layers` does (`numerics.race`, ridge probe); of those that are kept, the one of
the least held-out loss on all drawn rows is chosen. Full scoring is the same without a race.

- regret: how far the chosen source lies below the best one, in points of the set's metric; the truth is that of a
  logistic regression on all rows of the pool, on 1,000 test rows.
- passes: rows that went through a model, over those of full scoring; layers of one model share them.
- coverage: how often the kept sources hold one within ε of the best by the proxy (R² of the ridge probe on all drawn
  rows). For the Bernstein rule also: how often they hold the best by expected loss, told by 2,000 rows of the pool that
  the race did not see; that is what it promises, with 95 %. No other rule promises anything.

The first seeds choose: the rule that needs the fewest passes among those whose mean regret is at most 0.1 points above
that of full scoring. The table to quote is that of the fresh seeds. Intervals: 95 % bootstrap over seeds; coverage:
Clopper and Pearson. Results are written after every seed, and never made twice; `--only report` prints the tables.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import journey_sets as sets
import numpy as np
from rank_figures import interval, span, table
from text_shelf import trunks
from threadpoolctl import threadpool_limits

from headstart.numerics import race as races
from journey import DATA, Record, say

Array = np.ndarray[Any, Any]
COMMAND = "python benchmarks/race.py --json sources.json --work WORK"
SETS = ("trec6", "tweet_emotion", "hate_davidson", "snips_intent")
LAYERS = (2, 4, 6)
POOL, ROWS, TEST = 4000, 2000, 1000
MOST_LOSS = 2.0  # of a row, as in `headstart.ranking.racing`
WITHIN = (0.0, 0.005, 0.02)  # ε, in R²
POINTS = 0.1  # of regret that a rule may add


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """kind: as `headstart rank --race` has it. z, slack: of the paired rule."""

    kind: str
    z: float = races.Z
    slack: float = races.SLACK

    @property
    def name(self) -> str:
        return f"paired, z = {self.z:g}, slack {self.slack:.0%}" if self.kind == "paired" else self.kind


FULL = Rule(kind="none")
DEFAULT = Rule(kind="paired")
BERNSTEIN = Rule(kind="bernstein")
COMBINING = Rule(kind="paired", slack=0.0)  # of sets and of `solve`, where equals may be worth having
PAIRED = tuple(Rule(kind="paired", z=z, slack=slack) for slack in (0.0, 0.02, 0.03, 0.05) for z in (2.0, 2.5, 3.0, 4.0))
RULES = (FULL, *PAIRED, BERNSTEIN)


# -- one race --------------------------------------------------------------------------------------------------------


class Drawn:
    """The sources on one draw of rows: losses of the racing estimator, each computed once.

    features: (pool, width) by source. order: of the pool's rows. rows: that the race may see.
    """

    def __init__(self, features: Mapping[str, Array], labels: Array, classes: int, order: Array, rows: int) -> None:
        self.features, self.labels, self.classes = features, labels, classes
        self.order, self.rows = order, rows
        self._held: dict[tuple[str, int], tuple[float, Array]] = {}
        self._frozen: dict[tuple[str, int], Array] = {}

    def scored(self, source: str, rows: int) -> tuple[float, Array]:
        """R² and losses (rows,) of the first rows, held out fold by fold."""
        if (source, rows) not in self._held:
            self._held[source, rows] = self._probe(source, rows, None)
        return self._held[source, rows]

    def frozen(self, source: str, fitted: int) -> Array:
        """(pool,) clipped losses in [0, 1] of a head that saw the first so many rows; these have none."""
        if (source, fitted) not in self._frozen:
            _, losses = self._probe(source, len(self.order), fitted)
            self._frozen[source, fitted] = np.clip(losses, 0, MOST_LOSS) / MOST_LOSS
        return self._frozen[source, fitted]

    def _probe(self, source: str, rows: int, fitted: int | None) -> tuple[float, Array]:
        from headstart.ranking.estimators.ridge_probe import RidgeProbe
        from headstart.testing.ranking_estimators import dealt, seen

        method, at = RidgeProbe(), self.order[:rows]
        labels = self.labels[at]
        folds = dealt(labels) if fitted is None else np.where(np.arange(rows) < fitted, -1, 0)
        score = method(seen(method, self.features[source][at], labels, self.classes, folds=folds))
        assert score.losses is not None
        return score.value, score.losses


def raced(drawn: Drawn, rule: Rule) -> tuple[races.Raced, int]:
    """The race by one rule, as in `headstart.ranking.racing.race`, and the rows of its first rung."""
    widths = {name: f.shape[1] for name, f in drawn.features.items()}
    if rule.kind == "none":
        return races.Raced(tuple(widths), {}, dict.fromkeys(widths, drawn.rows)), drawn.rows
    rungs = races.rungs(drawn.rows, min(widths.values()))
    models = {name: trunk(name) for name in widths}

    def losses_at(names: Sequence[str], rows: int) -> dict[str, Array]:
        if rule.kind == "bernstein":
            return {name: drawn.frozen(name, rungs[0])[:rows] for name in names}
        if rows == drawn.rows:
            return {name: np.zeros(rows) for name in names}  # nobody leaves at the end
        return {name: drawn.scored(name, rows)[1] for name in names}

    def leave(losses: Mapping[str, Array]) -> Mapping[str, str]:
        if rule.kind == "bernstein":
            return races.bernstein_leavers(losses, tries=len(rungs) * max(len(widths) - 1, 1))
        return races.leavers(losses, z=rule.z, slack=rule.slack)

    return races.race(widths, drawn.rows, losses_at, leave, models=models), rungs[0]


def trunk(source: str) -> str:
    """The model whose layer this is."""
    return source.rpartition("@")[0]


def judged(drawn: Drawn, rule: Rule, truth: Mapping[str, float]) -> dict[str, Any]:
    """What the race by one rule took and what it gave."""
    found, first = raced(drawn, rule)
    values = {name: drawn.scored(name, drawn.rows)[0] for name in drawn.features}
    chosen = max(found.kept, key=lambda name: values[name])
    models: dict[str, int] = {}
    for name, rows in found.rows.items():
        models[trunk(name)] = max(models.get(trunk(name), 0), rows)
    told = {
        "passes": sum(models.values()) / (drawn.rows * len(models)),
        "kept": len(found.kept),
        "chosen": chosen,
        "regret": max(truth.values()) - truth[chosen],
        "gap": max(values.values()) - values[chosen],
    }
    if rule.kind == "bernstein":
        expected = {name: float(drawn.frozen(name, first)[drawn.rows :].mean()) for name in values}
        told["promised"] = min(expected[name] for name in found.kept) - min(expected.values())
    return told


# -- features and truth ----------------------------------------------------------------------------------------------


def tapped(folder: Path, texts: Sequence[str], into: Path, layers: Sequence[int]) -> dict[str, Array]:
    """Features of the layers of one model, by its name and theirs; from one pass, kept as a file."""
    if not into.exists():
        import pyarrow as pa

        from headstart.io import layers as rooms
        from headstart.io import sources

        (source,), failed = sources.scan(folder)
        assert not failed, failed
        taps = rooms.taps(source, sources.recipe_of(source)[0], layers, ["mean"])
        wanted = taps[1:] if len(taps) > len(layers) else [*taps[1:], taps[0]]  # the source may be its own last layer
        with sources.opened(source) as here:
            found = here.tapped(pa.table({"text": list(texts)}), wanted, threads=os.cpu_count())
        staged = into.with_name("part-" + into.name)
        np.savez(staged, **{f"{folder.name}@{n}": f for n, f in zip(layers, found, strict=True)})
        staged.rename(into)
    with np.load(into) as held:
        return {name: held[name] for name in held.files}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A set as the race sees it: rows to draw from, rows to judge on, features of both by source."""

    name: str
    metric: str
    classes: int
    labels: Array
    features: Mapping[str, Array]
    test_labels: Array
    test_features: Mapping[str, Array]


def pool_of(data: Path, name: str, folders: Sequence[Path], work: Path, plan: Plan) -> Pool:
    """Texts of one set and their features; made once."""
    import pyarrow.parquet as pq

    here = sets.cut(data, name, 10**6, plan.test, work / "sets" / f"{name}-all-{plan.test}")
    train = pq.read_table(here.train).slice(0, plan.pool)  # a random order, made by the cut
    texts = [*train["text"].to_pylist(), *pq.read_table(here.test)["text"].to_pylist()]
    numbers = {label: i for i, label in enumerate(here.classes)}
    labels = np.array([numbers[label] for label in train["label"].to_pylist()])
    every: dict[str, Array] = {}
    for folder in folders:
        into = work / "features" / f"{name}-{folder.name}-{len(labels)}-{plan.test}.npz"
        into.parent.mkdir(parents=True, exist_ok=True)
        every |= tapped(folder, texts, into, LAYERS)
    return Pool(
        name=name,
        metric=here.metric,
        classes=len(here.classes),
        labels=labels,
        features={source: f[: len(labels)] for source, f in every.items()},
        test_labels=np.array([numbers[label] for label in here.truth]),
        test_features={source: f[len(labels) :] for source, f in every.items()},
    )


def truth_of(pool: Pool) -> dict[str, float]:
    """By source, the metric on the test rows of a logistic regression on the whole pool."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from headstart.numerics import metrics

    found = {}
    for source, features in pool.features.items():
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)).fit(features, pool.labels)
        told = np.eye(pool.classes)[fitted.predict(pool.test_features[source])]
        found[source] = metrics.value(pool.metric, pool.test_labels, told)
    return found


# -- all seeds -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much is done."""

    names: Sequence[str]
    seeds: Sequence[int]
    pool: int
    rows: int
    test: int
    jobs: int
    rules: Sequence[Rule]


def one_seed(
    pool: Pool, truth: Mapping[str, float], seed: int, rows: int, rules: Sequence[Rule] = RULES
) -> dict[str, Any]:
    """By rule, what one race took and gave."""
    from headstart.numerics.folds import draw_order

    order = np.array(draw_order(pool.labels, [str(i) for i in range(len(pool.labels))], seed))
    drawn = Drawn(pool.features, pool.labels, pool.classes, order, min(rows, len(order)))
    with threadpool_limits(1):
        return {rule.name: judged(drawn, rule, truth) for rule in rules}


_held: list[Any] = []  # what a process of its own was given once, for all its seeds


def _hold(*given: Any) -> None:
    _held[:] = given


def _one_of_held(seed: int) -> dict[str, Any]:
    pool, truth, rows, rules = _held
    return one_seed(pool, truth, seed, rows, rules)


def run(record: Record, folders: Sequence[Path], data: Path, work: Path, plan: Plan) -> None:
    """Truth and seeds of every set."""
    for name in plan.names:
        settings = {"pool": plan.pool, "rows": plan.rows, "test": plan.test, "sources": [f.name for f in folders]}
        asked = [s for s in plan.seeds if not record.has(f"seed/{name}/{s}", settings)]
        if not asked and record.has(f"truth/{name}", settings):
            continue
        say(f"{name}: features")
        pool = pool_of(data, name, folders, work, plan)
        if not record.has(f"truth/{name}", settings):
            record.put(f"truth/{name}", settings, {"truth": truth_of(pool), "metric": pool.metric})
        truth = record.cells[f"truth/{name}"]["truth"]
        if plan.jobs == 1:
            for seed in asked:
                record.put(
                    f"seed/{name}/{seed}", settings, {"rules": one_seed(pool, truth, seed, plan.rows, plan.rules)}
                )
            continue
        fresh = multiprocessing.get_context("spawn")  # torch has threads here, which a fork would not have
        with ProcessPoolExecutor(plan.jobs, fresh, _hold, (pool, truth, plan.rows, plan.rules)) as several:
            began = {several.submit(_one_of_held, seed): seed for seed in asked}
            for ended in as_completed(began):
                record.put(f"seed/{name}/{began[ended]}", settings, {"rules": ended.result()})


# -- the tables ------------------------------------------------------------------------------------------------------

Seeds = Mapping[int, Mapping[str, Mapping[str, Any]]]  # seed: set: rules


def seeds_of(cells: Mapping[str, Mapping[str, Any]], wanted: Sequence[int]) -> Seeds:
    """Those of these seeds that every set has."""
    found: dict[int, dict[str, Any]] = {}
    for key, cell in cells.items():
        if key.startswith("seed/") and "rules" in cell:
            _, name, seed = key.split("/")
            found.setdefault(int(seed), {})[name] = cell["rules"]
    names = {name for each in found.values() for name in each}
    return {s: found[s] for s in wanted if s in found and set(found[s]) == names}


def column(seeds: Seeds, rule: str, what: str) -> Array:
    """(seeds,) means over sets."""
    return np.array([np.mean([each[rule][what] for each in by_set.values()]) for by_set in seeds.values()])


def chosen(seeds: Seeds) -> str:
    """The cheapest paired rule whose mean regret is within 0.1 points of full scoring; the safest where none is."""
    full = 100 * column(seeds, FULL.name, "regret").mean()
    told = next(iter(next(iter(seeds.values())).values()))
    paired = [r.name for r in PAIRED if r.name in told]
    added = {name: 100 * column(seeds, name, "regret").mean() - full for name in paired}
    able = [name for name, points in added.items() if points <= POINTS]
    if not able:
        return min(added, key=lambda name: added[name])
    return min(able, key=lambda name: column(seeds, name, "passes").mean())


def covered(seeds: Seeds, rule: str, what: str, within: float) -> str:
    """In how many races, with Clopper and Pearson's interval."""
    from scipy.stats import binomtest

    gaps = [each[rule][what] for by_set in seeds.values() for each in by_set.values()]
    good = sum(gap <= within + 1e-12 for gap in gaps)
    around = binomtest(good, len(gaps)).proportion_ci()
    return span((good / len(gaps), around.low, around.high))


def rules_table(seeds: Seeds, marked: Sequence[str]) -> str:
    """A line a rule. marked: names that are shown in bold."""
    full = column(seeds, FULL.name, "regret")
    there = next(iter(next(iter(seeds.values())).values()))
    rows = []
    for name in there:
        regret = column(seeds, name, "regret")
        gaps = [covered(seeds, name, "gap", e) for e in WITHIN]
        promised = covered(seeds, name, "promised", 0.0) if "promised" in there[name] else "–"
        rows.append(
            [
                f"**{name}**" if name in marked else name,
                span(interval(column(seeds, name, "passes"))),
                span(interval(100 * regret)),
                span(interval(100 * (regret - full))),
                f"{column(seeds, name, 'kept').mean():.1f}",
                *gaps,
                promised,
            ]
        )
    head = ["rule", "passes", "regret, points", "above full scoring", "kept"]
    head += [f"covers, ε = {e:g}" for e in WITHIN]
    return table([*head, "covers the best by expected loss"], rows)


def report(document: Mapping[str, Any], tuning: int, fresh: int) -> str:
    """Markdown, from the file alone."""
    cells = document["cells"]
    first = seeds_of(cells, range(tuning))
    told = [f"Made with `{COMMAND}`.", ""]
    pick = chosen(first) if first else DEFAULT.name
    for title, seeds in (("Seeds that choose", first), ("Fresh seeds", seeds_of(cells, range(tuning, tuning + fresh)))):
        if not seeds:
            continue
        names = list(next(iter(seeds.values())))
        told += [f"## {title}: {len(seeds)} of {', '.join(names)}", "", rules_table(seeds, [pick]), ""]
        if title == "Fresh seeds":
            told += [*_verdict(seeds, pick), ""]
    told += [f"- failed: `{key}`, {cell['error']}" for key, cell in cells.items() if "error" in cell]
    return "\n".join(told)


def _verdict(seeds: Seeds, pick: str) -> Iterator[str]:
    full = column(seeds, FULL.name, "regret")
    there = next(iter(next(iter(seeds.values())).values()))
    for name in [n for n in dict.fromkeys((pick, DEFAULT.name, COMBINING.name, BERNSTEIN.name)) if n in there]:
        passes = column(seeds, name, "passes").mean()
        added = 100 * (column(seeds, name, "regret") - full).mean()
        kept = passes <= 0.33 and added <= POINTS
        why = " (chosen on the other seeds)" if name == pick else ""
        yield (
            f"- {name}{why}: {passes:.2f} of the passes, {added:+.2f} points of regret; at most 0.33 and {POINTS} "
            f"{'both kept' if kept else 'not both kept'}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("sources.json"), help="raw results; gone on with if there")
    parser.add_argument("--work", type=Path, default=Path("sources-work"), help="folder for sources and features")
    parser.add_argument("--encoder", type=Path, help="model folder; default: the MiniLM of the test extra")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the sets")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--rows", type=int, default=ROWS, help="drawn of the pool for one race")
    parser.add_argument("--pool", type=int, default=POOL, help="rows of a set to draw from")
    parser.add_argument("--tuning", type=int, default=20, help="seeds that choose a rule")
    parser.add_argument("--fresh", type=int, default=50, help="seeds that show it")
    parser.add_argument("--default-rule", action="store_true", help="full scoring and the two default rules alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--quick", action="store_true", help="try everything on little")
    parser.add_argument("--only", choices=("report",))
    asked = parser.parse_args()
    record = Record(asked.json.absolute())
    tuning, fresh = (2, 2) if asked.quick else (asked.tuning, asked.fresh)
    if asked.only is None:
        if not (asked.data / "CARD.md").exists():
            print(f"error: the sets are not in `{asked.data}`; give their folder with --data", file=sys.stderr)
            return 2
        os.environ["HF_HUB_OFFLINE"] = "1"
        size = {"pool": asked.pool, "rows": asked.rows, "test": TEST}
        if asked.quick:
            size = {"pool": 1000, "rows": 600, "test": 100}
        names = ["trec6"] if asked.quick else asked.sets.split(",")
        rules = (FULL, DEFAULT, COMBINING) if asked.default_rule else RULES
        seeds = range(tuning if asked.default_rule else 0, tuning + fresh)  # with one rule there is nothing to choose
        plan = Plan(names=names, seeds=seeds, jobs=asked.jobs, rules=rules, **size)
        work = asked.work.absolute() / ("quick" if asked.quick else "full")
        work.mkdir(parents=True, exist_ok=True)
        folders = trunks(record, (asked.encoder or sets.minilm()).absolute(), asked.data, work, quick=asked.quick)
        run(record, folders, asked.data, work, plan)
    print(report(record.begun, tuning, fresh))
    return 0


if __name__ == "__main__":
    sys.exit(main())
