"""Merged models of several tasks, by all methods: better than no fine-tune at all, and in the published order.

Orders are of the papers' own comparisons, each on tiny fine-tunes that were tuned as gently as fine-tunes are:
TIES, TSV-M and PCB over task arithmetic at its best scale, AdaMerging over task arithmetic at its start, RegMean
over the mean, and labels over no labels.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import headstart as hs
from headstart import catalogue
from headstart.combination.auto import _Contest, _sides
from headstart.combination.entrants import entrants
from headstart.combination.live import LiveMerge, alive, task_rows
from headstart.combination.merging import planned
from headstart.core import Budget
from headstart.execution.meter import Meter
from headstart.numerics.learning import outputs
from tuned_models import Family, family

Scores = dict[str, list[float]]


@pytest.fixture(scope="module")
def gentle(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return family(tmp_path_factory.mktemp("gentle"), width=48, epochs=10, learning_rate=3e-4)


def right(view: LiveMerge, weights: dict[str, torch.Tensor]) -> float:
    """Mean accuracy over the tasks."""
    found = []
    for task in range(3):
        truth = view.labels(task, range(view.rows(task)))
        found.append(float((outputs(view, weights, task).argmax(1) == truth).float().mean()))
    return float(np.mean(found))


@pytest.fixture(scope="module")
def scores(gentle: Family) -> Iterator[Scores]:
    """Of every method, accuracy on test rows at each setting that `auto` tries; learned from validation rows."""
    models = list(gentle.models.values())
    plan = planned(models, "task_arithmetic", base=gentle.base, heads="separate")
    targets = [hs.read_target(gentle.tables[t]["valid"], label="label", name=t) for t in gentle.models]
    tests = [
        task_rows(hs.read_target(gentle.tables[t]["test"], label="label"), plan, i) for i, t in enumerate(gentle.models)
    ]
    sides = [_sides(t, plan, i) for i, t in enumerate(targets)]
    contest = _Contest(plan, sides, Meter(Budget()), 1, 40, lambda *_: None)
    found: Scores = defaultdict(list)
    with alive(plan, [s.learn for s in sides], labels=True) as view:
        unseen = view.on(tests, labels=True)
        found["base"] = [right(unseen, view.shared(np.zeros((len(view.tensors), 3))))]
        found["mean"] = [right(unseen, view.shared(np.full((len(view.tensors), 3), 1 / 3)))]
        for one in entrants(plan, None, labels=True)[0]:
            method = catalogue.make(one.kind, one.method, **one.settings)
            if one.stage == "learned" and any(f.name == "trials" for f in dataclasses.fields(method)):
                method = dataclasses.replace(method, trials=15)
            made = contest._plan(view, one, method)
            found[one.method].append(right(unseen, contest._weights(view, made)))
        yield found


def test_all_methods_are_better_than_no_fine_tune(scores: Scores) -> None:
    weak = {name: s for name, s in scores.items() if max(s) <= scores["base"][0] and name != "base"}
    assert not weak
    assert len(scores) > 25


@pytest.mark.parametrize("method", ["ties", "tsv_m", "pcb"])
def test_interference_is_worth_removing(scores: Scores, method: str) -> None:
    assert max(scores[method]) > max(scores["task_arithmetic"])


def test_learned_shares_are_better_than_where_they_began(scores: Scores) -> None:
    assert max(scores["adamerging"]) > scores["task_arithmetic"][1]  # at scale 0.3


def test_inputs_are_better_than_nothing(scores: Scores) -> None:
    assert scores["regmean"][0] > scores["mean"][0]


def test_labels_are_better_than_no_labels(scores: Scores) -> None:
    assert scores["atlas"][0] > max(scores["task_arithmetic"])
