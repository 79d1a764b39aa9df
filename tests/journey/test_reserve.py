"""What is held back for the end, from how long the first worker took to start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headstart import flow


class Run:
    """What the reserve asks of a run."""

    def __init__(self, **spent: float) -> None:
        self.meter = SimpleNamespace(spent_by_stage=spent, spent=lambda: 100.0)
        self.decided: dict[str, Any] = {}

    def decide(self, name: str, compute: Any) -> Any:
        return self.decided.setdefault(name, compute())


@pytest.mark.parametrize(("start", "times"), [(1.0, 1.0), (flow.START_SECONDS, 1.0), (3 * flow.START_SECONDS, 3.0)])
def test_a_busy_machine_holds_back_more(start: float, times: float) -> None:
    run: Any = Run(baselines=start)
    assert flow._held_back(run) == pytest.approx(times * (flow.SAVE_SECONDS + flow.START_SECONDS))
    run.meter.spent_by_stage["baselines"] = 50.0
    assert flow._held_back(run) == pytest.approx(times * (flow.SAVE_SECONDS + flow.START_SECONDS)), "it was the first"


def test_before_anything_ran_the_machine_counts_as_idle() -> None:
    run: Any = Run()
    assert flow._held_back(run) == flow.SAVE_SECONDS + flow.START_SECONDS
    assert not run.decided, "nothing is decided yet"


def test_an_outer_fold_repeats_neither_features_nor_forecasts_nor_the_first_start() -> None:
    run: Any = Run(baselines=3.0)
    assert flow._repeated(run) == 97.0
    run.meter.spent_by_stage.update(features=20.0, forecast=10.0, rank=30.0)
    assert flow._repeated(run) == 67.0
