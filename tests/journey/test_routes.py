"""Routes that train weights, through all of solve: rungs, soups, refits, and what is saved of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import headstart as hs
from headstart import combination
from headstart.adaptation import plans
from headstart.core import Budget, Source
from journey import shelves

STEPS = 5  # of a whole schedule here
ROUTES = ("lp_ft", "lora", "full_finetune")
pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Short schedules, and the systems that an ensemble may be made of."""
    combine = combination.combine

    def given(routes: tuple[str, ...], survivors: int, wanted: Callable[[Any], bool]) -> None:
        def some(part: Any, trials: Any, method: str = "greedy_ensemble") -> Any:
            return combine(part, [t for t in trials if wanted(t.system)], method)

        monkeypatch.setattr(plans, "PLANS", (plans.Plan(sources=1, routes=routes, survivors=survivors, horizon=STEPS),))
        monkeypatch.setattr(combination, "combine", some)

    return given


def admitted(out: Path, stage: str) -> dict[str, dict[str, Any]]:
    lines = [line for line in shelves.journal(out) if line["event"] == "admitted" and line["stage"] == stage]
    return {job["name"]: job["spec"] for line in lines for job in line["jobs"]}


def solved(out: Path, source: Source, **more: Any) -> tuple[hs.Result, hs.Target]:
    both = shelves.texts(70, told=1.0)
    target = hs.read_target(both.slice(0, 40), label="label", text="text", test=both.slice(40))
    return shelves.solved(target, [source], out, when_unsure="best", budget=Budget(), **more), target


def says_again(result: hs.Result, target: hs.Target) -> None:
    """What was judged is what was saved."""
    kept = pq.read_table(Path(result.where) / "predictions.parquet").to_pydict()
    found = hs.load(result.where).predict(shelves.sealed_rows(target).inputs)
    assert list(found.labels) == kept["chosen: predicted"]
    np.testing.assert_allclose([p[1] for p in found.probabilities], kept["chosen: p(class 1)"], atol=1e-5)


def test_a_soup_is_refitted_from_its_ingredients(
    tmp_path: Path, text_model: Source, choose: Callable[..., None]
) -> None:
    choose(ROUTES, 3, lambda system: bool(system.ingredients))
    result, target = solved(tmp_path / "out", text_model)
    assert result.receipt.method == "uniform_soup"
    refits = admitted(tmp_path / "out", "refit")
    for route in ("lp_ft", "full_finetune"):  # an adapter is no ingredient
        assert refits[f"{route} of bert"]["steps"] == {"horizon": round(STEPS * 40 / 32), "until": 1.0}
    assert "lora of bert" not in refits
    says_again(result, target)


def test_losers_leave_after_the_first_fold(tmp_path: Path, text_model: Source, choose: Callable[..., None]) -> None:
    choose(ROUTES, 1, lambda system: system.method in ROUTES)
    solved(tmp_path / "out", text_model)
    (rung,) = [line["facts"] for line in shelves.journal(tmp_path / "out") if line.get("name") == "rung"]
    assert len(rung["stay"]) == 1
    assert rung["scores"][rung["stay"][0]] == max(rung["scores"].values())
    cells = [
        (job["name"], job["spec"]["cells"])
        for line in shelves.journal(tmp_path / "out")
        if line["event"] == "admitted" and line["stage"] == "adapt"
        for job in line["jobs"]
    ]
    later = [(rung["stay"][0], [[0, fold]]) for fold in (1, 2)]
    assert cells == [*((f"{route} of bert", [[0, 0]]) for route in ROUTES), *later]


@pytest.mark.parametrize("route", ROUTES)
def test_a_fine_tune_is_saved_as_it_was_judged(
    tmp_path: Path, text_model: Source, choose: Callable[..., None], route: str
) -> None:
    choose((route,), 1, lambda system: system.method == route)
    result, target = solved(tmp_path / "out", text_model)
    assert result.receipt.method == route
    says_again(result, target)


def test_an_ensemble_of_two_is_saved_as_it_was_judged(
    tmp_path: Path, text_model: Source, choose: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(("full_finetune",), 1, lambda system: True)
    combine = combination.combine

    def both(part: Any, trials: Any, method: str = "greedy_ensemble") -> Any:
        found = combine(part, trials, method)
        members = tuple((t, 0.5) for t in trials[:2])
        return combination.Combined(members, found.score, found.table)

    monkeypatch.setattr(combination, "combine", both)
    result, target = solved(tmp_path / "out", text_model)
    assert [m["weight"] for m in result.receipt.facts["members"]] == [0.5, 0.5]
    assert {m["method"] for m in result.receipt.facts["members"]} == {"linear_probe", "full_finetune"}
    says_again(result, target)
