"""Accuracy of the merges of a family of fine-tunes, by every method there is, on rows that nothing was learned from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

import headstart as hs
from headstart import catalogue
from headstart.combination.auto import _Contest, _sides
from headstart.combination.entrants import Entrant, entrants
from headstart.combination.learned import learned_from
from headstart.combination.live import LiveMerge, alive, task_rows
from headstart.combination.merging import ROUTING, carried_out, planned
from headstart.core import Budget
from headstart.execution.meter import Meter
from headstart.io.routed import RoutedModel
from headstart.numerics.learning import outputs
from tuned_models import Family

LOOPS = "combination.loops"

Scores = dict[str, list[float]]


def right(view: LiveMerge, weights: dict[str, torch.Tensor]) -> float:
    """Mean accuracy over the tasks."""
    found = []
    for task in range(len(view.tasks)):
        truth = view.labels(task, range(view.rows(task)))
        found.append(float((outputs(view, weights, task).argmax(1) == truth).float().mean()))
    return float(np.mean(found))


def merged_scores(tuned: Family, *, trials: int = 15, steps: int = 40, learning_rate: float | None = None) -> Scores:
    """Mean accuracy on test rows, of each method at every setting that `auto` tries; learned from validation rows.

    `own` is what the models have each on its task, `base` what the base has with their heads. learning_rate: of the
    loops of training and merging, in three rounds, the first of which merges the models; None leaves loops out.
    """
    models = list(tuned.models.values())
    plan = planned(models, "task_arithmetic", base=tuned.base, heads="separate")
    targets = [_target(tuned, t, "valid") for t in tuned.models]
    tests = [task_rows(_target(tuned, t, "test"), plan, i) for i, t in enumerate(tuned.models)]
    sides = [_sides(t, plan, i) for i, t in enumerate(targets)]
    contest = _Contest(plan, sides, Meter(Budget()), 1, steps, lambda *_: None)
    found: Scores = defaultdict(list)
    with alive(plan, [s.learn for s in sides], labels=True) as view:
        unseen, size = view.on(tests, labels=True), (len(view.tensors), len(models))
        found["base"] = [right(unseen, view.shared(np.zeros(size)))]
        found["mean"] = [right(unseen, view.shared(np.full(size, 1 / len(models))))]
        found["own"] = [_own(unseen, size)]
        longer = _Contest(plan, sides, Meter(Budget()), 1, 10 * steps, lambda *_: None)
        for name in catalogue.entries(LOOPS) if learning_rate else ():
            method = catalogue.make(LOOPS, name, rounds=3, learning_rate=learning_rate)
            made = longer._plan(view, Entrant(LOOPS, name, {}), method)
            found[name].append(right(unseen, contest._weights(view, made)))
        for one in entrants(plan, None, labels=True)[0]:
            method = catalogue.make(one.kind, one.method, **one.settings)
            if one.stage == "learned" and any(f.name == "trials" for f in fields(method)):
                method = replace(method, trials=trials)
            made = contest._plan(view, one, method)
            found[one.method].append(right(unseen, contest._weights(view, made)))
    return found


def scores_apart(tuned: Family, folder: Path, *, steps: int = 40) -> dict[str, float]:
    """Mean accuracy on test rows of the merges that keep parts of the models apart, with the task of a row named."""
    found = {}
    for method in catalogue.entries(ROUTING):
        plan = planned(list(tuned.models.values()), method, base=tuned.base, heads="separate")
        tasks = [task_rows(_target(tuned, t, "valid"), plan, i) for i, t in enumerate(tuned.models)]
        learns = "gradients" in plan.reads.needs.gives
        made = carried_out(learned_from(plan, tasks, steps=steps if learns else None), folder / method)
        model, each = RoutedModel(made.where), []
        for number, task in enumerate(tuned.models):
            rows = task_rows(_target(tuned, task, "test"), plan, number)
            table, _ = model.table(rows.inputs, model.heads[number].labels, task)
            each.append(float((table[:, list(rows.columns)].argmax(1) == rows.labels).mean()))
        found[method] = float(np.mean(each))
    return found


# -- orders that papers report: a test module with a fixture `scores` takes them in by name ---------------------


def test_learned_shares_are_better_than_where_they_began(scores: Scores) -> None:
    assert max(scores["adamerging"]) > scores["task_arithmetic"][1]  # at scale 0.3


def test_inputs_are_better_than_nothing(scores: Scores) -> None:
    assert scores["regmean"][0] > scores["mean"][0]


def test_labels_are_better_than_no_labels(scores: Scores) -> None:
    assert scores["atlas"][0] > max(scores["task_arithmetic"])


def test_averaging_what_was_tuned_again_is_better_than_averaging_once(scores: Scores) -> None:
    assert scores["cold_fusion"][0] > scores["mean"][0]


def _own(view: LiveMerge, size: tuple[int, int]) -> float:
    found = []
    for task in range(size[1]):
        share = np.zeros(size)
        share[:, task] = 1
        weights, truth = view.shared(share), view.labels(task, range(view.rows(task)))
        found.append(float((outputs(view, weights, task).argmax(1) == truth).float().mean()))
    return float(np.mean(found))


def _target(tuned: Family, task: str, side: str) -> hs.Target:
    return hs.read_target(tuned.tables[task][side], label="label", name=task)
