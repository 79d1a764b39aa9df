"""Which plan is taken, from a measured speed and the time left: against counts and sums made by hand."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest

from headstart import adaptation
from headstart.adaptation import plans
from headstart.adaptation.plans import PLANS, Plan, Speed, measured, planned


class Run:
    """What planning asks of a run: the time left, and decisions that are taken once."""

    def __init__(self, left: float, trials: float = inf) -> None:
        self.meter = SimpleNamespace(remaining=lambda: left, trials_left=trials)
        self.workers = 2
        self.decided: dict[str, Any] = {}
        self.forecasts: dict[str, float] = {}

    def forecast(self, stage: str, seconds: float) -> None:
        self.forecasts[stage] = seconds

    def decide(self, name: str, compute: Any) -> Any:
        return self.decided.setdefault(name, compute())


def outcome(seconds: float, ok: bool = True, stopped: str | None = None) -> Any:
    return SimpleNamespace(ok=ok, seconds=seconds, stopped=stopped, value={"folds": [{"facts": {"horizon": 90}}]})


PART: Any = SimpleNamespace(
    target=SimpleNamespace(seed=0, folds=SimpleNamespace(cells=lambda: [(0, 0), (0, 1), (0, 2)]))
)
SOURCE: Any = object()


@pytest.fixture
def at_speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def given(speed: Speed | None) -> None:
        monkeypatch.setattr(plans, "measured", lambda *_: speed)

    return given


def plan(run: Run, *, able: int = 1, parts: float = 1.0, cached: float = 0.0) -> Plan:
    return planned(PART, [SOURCE] * able, run, parts=parts, cached=cached)  # type: ignore[arg-type]  # a stand-in


def test_seconds_count_rounds_of_all_workers_and_the_refit() -> None:
    one, two = Speed(8.0, 60, workers=1), Speed(8.0, 60, workers=2)
    # 2 × 3 fittings on fold 0, 3 × 2 on the others, and 1.25 at the end
    assert PLANS[0].seconds(one, folds=3) == (6 + 6 + 1.25) * 8
    assert PLANS[0].seconds(two, folds=3) == (3 + 3 + 1.25) * 8
    assert PLANS[-1].seconds(two, folds=3) == (1 + 1 + 1.25) * 8
    assert PLANS[-1].seconds(one, folds=1) == (1 + 0 + 1.25) * 8


def test_the_largest_plan_that_fits_is_taken(at_speed: Any) -> None:
    speed = Speed(10.0, 60, workers=1)
    at_speed(speed)
    for wanted in PLANS:
        enough = wanted.seconds(speed, 3) / plans.SHARE
        assert replace(plan(Run(enough + 1e-6), able=2), reason="", forecast=None) == wanted
    assert plan(Run(PLANS[0].seconds(speed, 3) / plans.SHARE + 1e-6), able=1).sources == 1
    assert replace(plan(Run(inf), able=2), reason="") == PLANS[0]


def test_the_forecast_is_of_all_that_follows_but_refits(at_speed: Any) -> None:
    at_speed(Speed(10.0, 60, workers=2))
    run = Run(1e6)
    assert plan(run, able=2, parts=5).forecast == run.forecasts["adapt"] == 5 * (3 + 3) * 10
    endless = Run(inf)
    assert plan(endless, able=2).forecast is None
    assert not endless.forecasts


def test_outer_folds_need_their_time_too(at_speed: Any) -> None:
    speed = Speed(10.0, 60, workers=1)
    at_speed(speed)
    need = 5 * PLANS[-1].seconds(speed, 3)
    # what each of four more choices takes beside routes is not theirs to spend
    assert plan(Run(need / plans.SHARE + 4 * 7.0 + 1e-6), parts=5, cached=7.0).routes == ("lp_ft",)
    short = plan(Run(need / plans.SHARE + 4 * 7.0 - 1e-3), parts=5, cached=7.0)
    assert (short.sources, short.routes) == (0, ())
    assert "all outer folds" in short.reason


def test_without_outer_folds_a_long_schedule_is_cut(at_speed: Any) -> None:
    at_speed(Speed(100.0, 1000, workers=1))
    cut = plan(Run(0.5 * 4.25 * 100 / plans.SHARE + 1e-6))
    assert (cut.routes, cut.horizon) == (("lp_ft",), 500)
    assert plan(Run(0.05 * 4.25 * 100 / plans.SHARE)).routes == ()
    at_speed(Speed(100.0, 100, workers=1))
    assert plan(Run(0.31 * 4.25 * 100 / plans.SHARE)).horizon == 31
    assert plan(Run(0.165 * 4.25 * 100 / plans.SHARE)).horizon == 16
    assert plan(Run(0.155 * 4.25 * 100 / plans.SHARE)).routes == (), "16 steps are the least"


def test_what_cannot_compete_says_why(at_speed: Any) -> None:
    at_speed(None)
    assert "no source" in plan(Run(60.0), able=0).reason
    assert "trials" in plan(Run(60.0, trials=0)).reason
    assert "few steps" in plan(Run(60.0)).reason


def test_it_is_decided_once(at_speed: Any) -> None:
    run = Run(inf)
    first = plan(run, able=2)
    assert plan(run, able=0) == first


def test_speed_is_the_slower_route_without_what_a_start_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, dict[str, Any], float]] = []

    def fit(_part: Any, systems: Any, _cells: Any, _run: Any, _stage: str, *, limit_seconds: float, steps: Any) -> Any:
        asked.append((len(systems), steps, limit_seconds))
        count = steps["until"] * plans.MEASURED
        return [outcome(3.0 + 0.25 * count), outcome(2.0 + 0.5 * count)][: len(systems)]

    monkeypatch.setattr(adaptation, "fit", fit)
    monkeypatch.setattr(adaptation, "route", lambda source, name, seed: name)
    found = measured(PART, SOURCE, Run(600.0))  # type: ignore[arg-type]  # a stand-in
    assert found is not None
    assert (found.horizon, found.workers) == (90, 2)
    assert found.seconds == pytest.approx(2.0 + 0.5 * 90)
    assert [limit for _, _, limit in asked] == [100.0, 100.0, 100.0]
    monkeypatch.setattr(adaptation, "fit", lambda *a, **k: [outcome(1.0), outcome(1.0, ok=False)])
    assert measured(PART, SOURCE, Run(600.0)) is None  # type: ignore[arg-type]


def test_a_speed_that_is_cut_is_what_was_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last few steps of one route were stopped at 100 s: its speed is at least that, and more is not asked."""

    def fit(_part: Any, _systems: Any, _cells: Any, _run: Any, _stage: str, *, limit_seconds: float, steps: Any) -> Any:
        slow = steps["until"] * plans.MEASURED > plans.FEW
        return [outcome(4.0), outcome(limit_seconds, ok=False, stopped="time") if slow else outcome(10.0)]

    monkeypatch.setattr(adaptation, "fit", fit)
    monkeypatch.setattr(adaptation, "route", lambda source, name, seed: name)
    found = measured(PART, SOURCE, Run(600.0))  # type: ignore[arg-type]  # a stand-in
    assert found is not None
    assert found.seconds == pytest.approx(10 + (100 - 10) / (plans.MORE - plans.FEW) * (90 - plans.FEW))
