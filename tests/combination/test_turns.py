"""Who is tried in a choice of merges, by numbers done by hand and by a clock that the test turns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

import headstart as hs
from headstart import catalogue
from headstart.combination import auto
from headstart.combination.entrants import STAGES, Entrant, entrants
from headstart.combination.live import LiveMerge
from headstart.combination.merging import planned
from headstart.combination.plans import Plan
from headstart.combination.turns import Pace, Turns
from headstart.core import Budget, Steps
from tuned_models import Family

MERGE, ROW, PASSES, STEP = 2.0, 0.01, 6.0, 0.5  # seconds
A, B, C = (Entrant(f"combination.{k}", k) for k in ("trimming", "matching", "learning"))


def test_stages_take_turns_by_what_they_have_spent() -> None:
    found, order = Turns([A, A, A, B, C, C]), []
    cost = {"data-free": 2.0, "passes": 3.0, "learned": 5.0}
    while (one := found.next()) is not None:
        order.append(one.stage)
        found.spend(one.stage, cost[one.stage])
    # A, B, C; A has spent 2 and B, which has no more, 3; A has 4, C has 5; A; C
    assert order == ["data-free", "passes", "learned", "data-free", "data-free", "learned"]


def test_where_nothing_is_spent_stages_come_one_after_the_other() -> None:
    found = Turns([A, A, B, C])
    assert [found.next() for _ in range(5)] == [A, A, B, C, None]


def test_what_a_merge_and_the_rungs_are_expected_to_take() -> None:
    pace, other, rows = Pace(), Entrant("combination.trimming", "other"), [50, 100, 400]
    pace.read(100, 2.0)
    pace.merged(1.0, "baseline")
    assert pace.trying(A, rows) == 1.0 + 1.0  # as a baseline
    pace.merged(5.0, A.method, A.kind)
    pace.made(0.5, A)
    assert pace.trying(other, rows) == 0.5 + 5.0 + 1.0  # as others of the kind
    assert pace.going_on(other, rows)
    pace.merged(9.0, other.method, other.kind)
    pace.made(1.5, other)
    assert pace.trying(other, rows) == 1.5 + 9.0 + 8.0  # a merge is dearer than all other rows, so it is read with them
    assert not pace.going_on(other, rows)
    pace.made(70.0, B)
    assert pace.trying(B, rows) == 70.0 + 1.0 + 1.0
    pace.made(70.0, C)
    assert pace.trying(C, rows) == 1.0 + 1.0  # for what it learns it is given the time
    # 4 on 50 more rows and 3 on 300 more, of 0.02 s a row
    merging = [5.0, 4.0, 3.0, 2.0]
    assert pace.rungs(rows, merging, 4) == pytest.approx((14.0 + 4 * 1.0) + (12.0 + 3 * 6.0))
    assert pace.rungs(rows, merging[:1], 4) == pytest.approx((5.0 + 1.0) + (5.0 + 6.0))
    assert pace.rungs(rows[:1], merging, 4) == 0


def test_one_of_a_stage_may_take_what_is_open_of_its_share() -> None:
    turns = Turns([A, B, C])
    turns.spend("data-free", 10.0)
    turns.spend("passes", 50.0)
    assert turns.share("learned", 60.0) == 40.0  # of 120, for three
    turns.spend("learned", 40.0)
    assert turns.share("learned", 30.0) == 10.0  # of what is left a third
    assert turns.share("data-free", 30.0) == 30.0
    assert Turns([C]).share("learned", 60.0) == 20.0


def test_first_settings_of_all_methods_come_before_second_ones(tuned: Family) -> None:
    found, _ = entrants(_plan(tuned), None, labels=True)
    assert Counter(e.stage for e in found) == {"data-free": 42, "passes": 6, "learned": 12}
    for stage in dict.fromkeys(STAGES.values()):
        numbers, seen = [], Counter[str]()
        for one in (e for e in found if e.stage == stage):
            numbers.append(seen[one.method])
            seen[one.method] += 1
        assert numbers == sorted(numbers)
    assert [e.method for e in found][:3] == ["task_arithmetic", "ties", "tsv_m"]
    named, _ = entrants(_plan(tuned), ["ties", "task_arithmetic"], labels=True)
    assert [e.method for e in named][:3] == ["ties", "task_arithmetic", "ties"]


def test_every_stage_has_its_chance_in_a_short_time(tuned: Family, clock: Clock) -> None:
    """Alone the merges that read nothing would take all of it: 42 of 2 s and of 135 rows at 0.01 s."""
    facts = _chosen(tuned, Budget(minutes=4))
    tried = Counter(c["stage"] for c in facts["candidates"] if c["scores"])
    assert min(tried["data-free"], tried["passes"]) >= 2
    assert tried["learned"] >= 1
    assert len(tried) == 3
    assert clock.now <= 240
    assert clock.now > 180  # and it was used
    finalists = [c for c in facts["candidates"] if not c["left"]]
    assert {len(c["scores"]) for c in finalists} == {2}
    assert len(finalists) == auto.FINALISTS
    missed = [c["left"] for c in facts["candidates"] if not c["scores"]]
    assert len(missed) > 10
    assert all(m.startswith("was not tried: ") and ("s were left" in m or "steps of learning" in m) for m in missed)


def test_a_method_that_cannot_end_in_time_leaves_it_to_others(tuned: Family, clock: Clock) -> None:
    clock.cost["regmean"] = clock.cost["mats"] = 40.0
    facts = _chosen(tuned, Budget(minutes=4), methods=["regmean", "mats", "task_arithmetic"])
    tried = [c["name"] for c in facts["candidates"] if c["scores"]]
    assert {"regmean", "task_arithmetic (scale=0.7)", "task_arithmetic (scale=0.2)"} <= set(tried)
    assert sum("mats" in name for name in tried) == 1
    assert clock.now <= 240


def test_what_could_not_be_written_in_time_is_not_chosen(
    tuned: Family, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge of 60 s, as only its trial shows, would be made twice more: for its figures and to be written."""
    made = auto._Contest._weights

    def weights(self: Any, view: LiveMerge, plan: Plan, longest: float = inf) -> Any:
        clock.now += 58.0 * (plan.method == "ties")
        return made(self, view, plan, longest)

    monkeypatch.setattr(auto._Contest, "_weights", weights)
    facts = _chosen(tuned, Budget(minutes=4), methods=["ties", "task_arithmetic"])
    by_name = {c["name"]: c for c in facts["candidates"]}
    assert "merging it takes 60.0 s, too long to write" in by_name["ties (density=0.5, scale=1.5)"]["left"]
    assert by_name["task_arithmetic (scale=0.7)"]["left"] == ""
    assert sum(bool(c["scores"]) for n, c in by_name.items() if n.startswith("ties")) == 1
    assert clock.now <= 240


def test_a_merge_that_could_not_be_written_in_time_is_stopped(
    tuned: Family, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3 s a tensor; it would take twice as much again to judge and to write it."""
    merged = LiveMerge.merged

    def slow(self: LiveMerge, made: Any, seed: Any = None, more: Any = lambda: True) -> Any:
        ties = any(type(m.method).__name__ == "Ties" for m in made)

        def turned() -> bool:
            clock.now += 3.0 * ties
            return bool(more())

        return merged(self, made, seed, turned)

    monkeypatch.setattr(LiveMerge, "merged", slow)
    facts = _chosen(tuned, Budget(minutes=2), methods=["ties", "task_arithmetic"])
    by_name = {c["name"]: c for c in facts["candidates"]}
    left = [c["left"] for n, c in by_name.items() if n.startswith("ties")]
    assert sum(said.startswith("merging it was stopped after ") for said in left) == 1
    assert sum(said.startswith("was not tried: ") for said in left) == len(left) - 1
    assert by_name["task_arithmetic (scale=0.7)"]["left"] == ""
    assert clock.now <= 120


def test_a_clock_that_runs_out_leaves_the_best_of_the_rung(tuned: Family, clock: Clock) -> None:
    """On the second rung rows take forty times as long as before, so fewer go on, and those are the best."""

    def tell(what: str, *_: str) -> None:
        clock.slower = 40.0 if what.startswith("on ") else 1.0

    facts = _chosen(tuned, Budget(minutes=4), methods=["task_arithmetic", "ties"], tell=tell)
    stood = [c for c in facts["candidates"] if c["scores"]]
    went = [c["scores"][0] for c in stood if len(c["scores"]) == 2]
    assert min(went) >= max(c["scores"][0] for c in stood if len(c["scores"]) == 1)


def test_trials_are_shared_too_and_whatever_they_take_the_same_ones(tuned: Family, clock: Clock) -> None:
    one = _chosen(tuned, Budget(trials=9))
    tried = [c for c in one["candidates"] if c["scores"]]
    assert Counter(c["stage"] for c in tried) == {"data-free": 3, "passes": 3, "learned": 3}
    clock.cost = {"": 77.0}
    again = _chosen(tuned, Budget(trials=9))
    assert [(c["name"], c["scores"]) for c in one["candidates"]] == [
        (c["name"], c["scores"]) for c in again["candidates"]
    ]
    assert {c["left"] for c in one["candidates"] if not c["scores"]} == {"was not tried: no more trials were allowed"}


def test_without_a_limit_all_are_tried_stage_by_stage(tuned: Family, clock: Clock) -> None:
    told: list[str] = []
    facts = _chosen(tuned, Budget(), tell=lambda what, *_: told.append(what))
    assert all(c["scores"] for c in facts["candidates"])
    assert list(dict.fromkeys(told))[1:4] == ["data-free", "passes", "learned"]
    assert [w for w in told if w in STAGES.values()] == ["data-free"] * 42 + ["passes"] * 6 + ["learned"] * 12


@dataclass
class Clock:
    """cost: seconds of passes, by method. slower: how much longer rows take."""

    now: float
    cost: dict[str, float]
    slower: float = 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Turned by merges, rows and steps of learning; what is learned is replaced by task arithmetic, which is quick."""
    out, plainly = Clock(0.0, {}), catalogue.make("combination.weighting", "task_arithmetic", scale=0.4)
    made, predicted, real = auto._Contest._weights, auto._predicted, auto.told_by

    def weights(self: Any, view: LiveMerge, plan: Plan, longest: float = inf) -> Any:
        out.now += MERGE
        return made(self, view, plan, longest - MERGE)

    def read(view: LiveMerge, weights: Any, task: int, rows: Any) -> Any:
        out.now += ROW * len(rows) * out.slower
        return predicted(view, weights, task, rows)

    def told(plan: Plan, method: Any, view: LiveMerge, steps: Steps, *_: Any) -> Plan:
        stage = STAGES[next(k for k in STAGES if plan.method in catalogue.entries(k))]
        if stage == "passes":
            out.now += out.cost.get(plan.method, out.cost.get("", PASSES))
        if stage == "learned":
            out.now += STEP * (100 if steps.horizon is None else steps.horizon)
        return real(plan, method if stage == "data-free" else plainly, view, Steps())

    def step(*_: Any) -> None:
        out.now += STEP

    monkeypatch.setattr("headstart.execution.meter.time", SimpleNamespace(monotonic=lambda: out.now))
    monkeypatch.setattr(auto._Contest, "_weights", weights)
    monkeypatch.setattr(auto, "_predicted", read)
    monkeypatch.setattr(auto, "told_by", told)
    monkeypatch.setattr(auto, "gradient", step)
    return out


def _plan(family: Family) -> Plan:
    return planned(list(family.models.values()), "task_arithmetic", base=family.base, heads="separate")


def _chosen(family: Family, budget: Budget, **options: Any) -> Any:
    targets = {
        number: hs.read_target(tables["valid"], label="label", test=tables["test"], name=task)
        for number, (task, tables) in enumerate(family.tables.items())
    }
    return auto.choose(_plan(family), targets, budget=budget, **{"seeds": 1, **options}).facts
