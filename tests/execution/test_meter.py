"""The meter counts down, over sessions, and holds a reserve."""

from __future__ import annotations

import time
from math import inf

import pytest

from headstart.core import Budget, OverBudget
from headstart.execution.meter import Meter, cores, machine_memory


def test_without_minutes_time_never_ends() -> None:
    meter = Meter(Budget())
    assert (meter.left(), meter.remaining_for_all(), meter.trials_left, meter.bound) == (inf, inf, inf, False)


def test_the_clock_starts_where_the_caller_says_and_counts_earlier_sessions() -> None:
    meter = Meter(Budget(minutes=1), started=time.monotonic() - 10, earlier=20)
    assert meter.left() == pytest.approx(30, abs=0.5)
    meter.keep(25)
    assert meter.left() == pytest.approx(5, abs=0.5)
    meter.keep(40)
    assert (meter.bound, meter.left(), meter.bound) == (False, 0.0, True)


def test_to_look_at_the_clock_binds_nothing() -> None:
    meter = Meter(Budget(minutes=1), earlier=60)
    assert (meter.remaining(), meter.bound) == (0.0, False)


def test_what_a_result_needs_has_the_tolerance_and_never_less_than_half_a_minute() -> None:
    assert Meter(Budget(minutes=10), earlier=600).remaining_for_all() == pytest.approx(60, abs=0.5)
    assert Meter(Budget(minutes=0.5), earlier=30).remaining_for_all() == 30


def test_a_trial_is_counted_once() -> None:
    meter = Meter(Budget(trials=1))
    assert [meter.start_trial(t) for t in ("a", "a", "b", "a")] == [True, True, False, True]


def test_bytes_can_be_given_back() -> None:
    meter = Meter(Budget(disk="1 KB"))
    meter.spend_disk(900, step="s")
    meter.spend_disk(-500, step="s")
    meter.spend_disk(500, step="s")
    with pytest.raises(OverBudget):
        meter.spend_disk(200, step="s")


def test_the_machine_has_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1
    assert Meter(Budget()).memory == pytest.approx(0.9 * machine_memory())
    assert Meter(Budget(memory="3 GB")).memory == 3e9
