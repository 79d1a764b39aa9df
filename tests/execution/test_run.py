"""Runs: barriers, failures, decisions, limits without a clock, and a crash at every event; all in this process."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart import execution
from headstart.core import Budget, OverBudget, Refused, Unfit
from headstart.execution.run import Run
from headstart.execution.specs import Job, Outcome

VERBS = "execution.verbs_for_tests"


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash of this process alone loses no page that was written, and syncing takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def opened(out: Path, budget: Budget | None = None, **more: Any) -> Any:
    given = {"inputs": {"data": "d"}, "executor": "in_process", "show": "none", "jobs": VERBS, **more}
    return execution.begin(out, budget or Budget(), **given)


def job(do: str, name: str = "", **spec: Any) -> Job:
    return Job("fit", name or do, {"do": do, **spec})


def numbers(*seeds: int) -> list[Job]:
    return [job("number", f"number {s}", seed=s) for s in seeds]


def seen(outcome: Outcome) -> Any:
    files = {p.name: p.read_bytes() for p in sorted(outcome.files.rglob("*")) if p.is_file()}
    error = outcome.error.as_dict() if outcome.error else None
    return outcome.ok, dict(outcome.value), error, outcome.stopped, files


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "run" / "journal.jsonl").read_text().splitlines()]


def script(run: Run) -> list[Any]:
    """A small journey: two rungs, a failure, a decision on what came out, a note."""
    first = run.do([*numbers(3, 1, 2), job("refuse")], "rung 1")
    keep = run.decide("keep", lambda: [i for i, o in enumerate(first) if o.ok and o.value["value"] > 0.5])
    second = run.do(numbers(*[10 * (i + 1) for i in keep]), "rung 2")
    run.note("seal opened", rows=len(second))
    return [seen(o) for o in first + second]


def test_outcomes_come_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        found = run.do(numbers(2, 0, 1), "s")
    assert [o.value["value"] for o in found] == [2 * 0.1 + 1 / 3, 1 / 3, 0.1 + 1 / 3]
    assert [o.files.name for o in found] == ["0001", "0002", "0003"]


def test_a_failed_job_is_an_outcome_and_costs_the_others_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        refused, broken, fine = run.do([job("refuse"), job("break_down", zero=0), *numbers(1)], "s")
    assert (refused.ok, type(refused.error), broken.ok, fine.ok) == (False, Unfit, False, True)
    assert broken.error is not None
    assert broken.error.what == "ZeroDivisionError: integer division or modulo by zero"
    assert "Traceback" in (tmp_path / "run" / "log.txt").read_text()


def test_the_same_job_is_done_once(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        a, b = run.do(numbers(1, 1), "s")
        (c,) = run.do(numbers(1), "later")
    assert a.files == b.files == c.files
    assert (tmp_path / "run" / "ran.txt").read_text().count("number 1") == 1


class Crash(BaseException):
    """The process ends here."""


def crash_at(number: int) -> Callable[[str], None]:
    counted = 0

    def hook(name: str) -> None:
        nonlocal counted
        counted += 1
        if counted == number:
            raise Crash(name)

    return hook


def test_a_crash_at_every_event_changes_nothing(tmp_path: Path) -> None:
    events: list[str] = []
    with opened(tmp_path / "whole", hook=events.append) as run:
        expected = script(run)
    assert len(events) > 40
    for number in range(1, len(events) + 1):
        out = tmp_path / str(number)
        with pytest.raises(Crash), opened(out, hook=crash_at(number)) as run:
            script(run)
        with opened(out, resume=True) as run:
            assert script(run) == expected, events[number - 1]
        ends = [line["key"] for line in lines(out) if line["event"] in ("finished", "failed")]
        assert len(ends) == len(set(ends)) == 6, events[number - 1]
        assert not list((out / "run" / "trials").glob("*.part-*"))


def test_crash_after_crash_comes_to_the_same_end(tmp_path: Path) -> None:
    with opened(tmp_path / "whole") as run:
        expected = script(run)
    found = None
    for _ in range(60):
        try:
            with opened(tmp_path / "torn", resume=True, hook=crash_at(11)) as run:
                found = script(run)
                break
        except Crash:
            with (tmp_path / "torn" / "run" / "journal.jsonl").open("ab") as file:
                file.write(b'{"n":')
    assert found == expected


def test_a_finished_run_is_replayed_without_work(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        expected = script(run)
    ran = (tmp_path / "run" / "ran.txt").read_text()
    with opened(tmp_path, resume=True) as run:
        assert script(run) == expected
    assert (tmp_path / "run" / "ran.txt").read_text() == ran


def test_a_job_whose_files_are_gone_is_done_again(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        (one,) = run.do(numbers(1), "s")
        expected = seen(one)
        (one.files / "deep" / "number.txt").unlink()
    with opened(tmp_path, resume=True) as run:
        assert seen(run.do(numbers(1), "s")[0]) == expected


def test_a_dropped_job_is_not_done_again(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        (one,) = run.do(numbers(1), "s")
        run.drop(one)
        assert not one.files.exists()
    with opened(tmp_path, resume=True) as run:
        assert run.do(numbers(1), "s")[0].ok
    assert (tmp_path / "run" / "ran.txt").read_text() == "number 1\n"


def test_a_decision_is_computed_once(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        assert run.decide("speed", lambda: {"rows": (1, 2.5)}) == {"rows": [1, 2.5]}
    with opened(tmp_path, resume=True) as run:
        assert run.decide("speed", lambda: pytest.fail("computed again")) == {"rows": [1, 2.5]}


def test_equal_notes_are_one(tmp_path: Path) -> None:
    for _ in range(2):
        with opened(tmp_path, resume=True) as run:
            run.note("seal opened", rows=3)
            assert run.noted("seal opened") == [{"rows": 3}]


def test_a_changed_input_is_refused_by_name(tmp_path: Path) -> None:
    with opened(tmp_path, inputs={"data": "d", "settings": {"seed": 0, "metric": "f1"}}):
        pass
    with (
        pytest.raises(Refused, match=r"`settings.seed` \(was 0, is 1\) changed"),
        opened(tmp_path, resume=True, inputs={"data": "d", "settings": {"seed": 1, "metric": "f1"}}),
    ):
        pass


def test_a_run_that_was_begun_needs_resume(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with pytest.raises(Refused, match="begun before"), opened(tmp_path):
        pass


def test_trials_are_counted_without_a_clock(tmp_path: Path) -> None:
    def trial(seed: int, fold: int) -> Job:
        spec = {"do": "number", "kind": "adaptation.routes", "name": "probe", "seed": seed, "cells": [[0, fold]]}
        return Job("fit", f"{seed}-{fold}", spec)

    with opened(tmp_path, Budget(trials=2)) as run:
        assert run.meter.trials_left == 2
        first = run.do([trial(0, 0), trial(0, 1), trial(1, 0), trial(2, 0), *numbers(5)], "s")
        assert run.meter.trials_left == 0
        again = run.do([trial(0, 2)], "a later rung of a trial that has started")
    assert [o.ok for o in first + again] == [True, True, True, False, True, True]
    assert isinstance(first[3].error, OverBudget)


def test_a_forecast_above_the_memory_limit_is_refused_before_it_starts(tmp_path: Path) -> None:
    with opened(tmp_path, Budget(memory="1 GB")) as run:
        (found,) = run.do([Job("fit", "huge", {"do": "number", "seed": 1}, memory=2e9)], "s")
    assert isinstance(found.error, OverBudget)
    assert not (tmp_path / "run" / "ran.txt").exists()


def test_bytes_written_are_counted(tmp_path: Path) -> None:
    with opened(tmp_path, Budget(disk="100 KB")) as run:
        assert run.do(numbers(1), "s")[0].ok
        assert 0 < run.meter.disk_spent < 1000
        with pytest.raises(OverBudget):
            run.spend_disk(100_000)
        assert isinstance(run.do(numbers(2), "s")[0].error, OverBudget)


def test_a_spent_budget_stops_softly_and_more_minutes_go_on(tmp_path: Path) -> None:
    jobs = [job("nap", "long", steps=50, seconds=0.004), *numbers(1)]
    with opened(tmp_path, Budget(minutes=0.1 / 60)) as run:
        long, after = run.do(jobs, "s")
        assert (long.stopped, after.stopped, run.meter.bound) == ("time", "time", True)
        assert 0 < long.value["step"] < 50
        assert (long.files / "whole.txt").read_text() == str(long.value["step"])
        assert run.decide("chosen", lambda: "cut short") == "cut short"
    with opened(tmp_path, Budget(minutes=0.1 / 60), resume=True) as run:
        assert seen(run.do(jobs, "s")[0]) == seen(long)
    with opened(tmp_path, Budget(minutes=1), resume=True) as run:
        assert all(o.ok for o in run.do(jobs, "s"))
        assert run.decide("chosen", lambda: "whole") == "whole"


def test_after_the_seal_is_open_more_minutes_are_refused_and_late_decisions_stand(tmp_path: Path) -> None:
    with opened(tmp_path, Budget(minutes=0.01 / 60)) as run:
        assert run.do([job("nap", steps=50, seconds=0.004)], "s")[0].stopped == "time"
        run.decide("chosen", lambda: "cut short")
        run.note("seal opened")
        assert not run.sealed
    with pytest.raises(Refused, match="more minutes"), opened(tmp_path, Budget(minutes=1), resume=True):
        pass
    with opened(tmp_path, Budget(minutes=0.01 / 60), resume=True) as run:
        assert run.decide("chosen", lambda: pytest.fail("chosen again")) == "cut short"
        assert run.do(numbers(1), "verify", must=True)[0].ok


def test_limit_seconds_stops_one_job_for_good(tmp_path: Path) -> None:
    jobs = [Job("fit", "nap", {"do": "nap", "steps": 500, "seconds": 0.004}, limit_seconds=0.02), *numbers(1)]
    with opened(tmp_path) as run:
        nap, after = run.do(jobs, "s")
        assert (nap.stopped, after.ok, run.meter.bound) == ("time", True, False)
    with opened(tmp_path, resume=True) as run:
        assert seen(run.do(jobs, "s")[0]) == seen(nap)


def test_ctrl_c_gives_what_is_finished_and_resume_goes_on(tmp_path: Path) -> None:
    def press(name: str) -> None:
        if name == "trial.0001.renamed" and not pressed:
            pressed.append(name)
            signal.raise_signal(signal.SIGINT)

    pressed: list[str] = []
    with opened(tmp_path, hook=press) as run:
        first, second = run.do(numbers(1, 2), "s")
        assert (first.ok, second.stopped, run.interrupted) == (True, "interrupt", True)
        assert run.decide("chosen", lambda: "cut short") == "cut short"
    with opened(tmp_path, resume=True) as run:
        assert [o.ok for o in run.do(numbers(1, 2), "s")] == [True, True]
        assert run.decide("chosen", lambda: "whole") == "whole"
    assert (tmp_path / "run" / "ran.txt").read_text() == "number 1\nnumber 2\n"


def test_after_ctrl_c_what_saving_needs_may_run(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        signal.raise_signal(signal.SIGINT)
        assert run.do(numbers(1), "choose")[0].stopped == "interrupt"
        run.calm()
        assert run.do(numbers(2), "refit", must=True)[0].ok
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_interrupted_equals_uninterrupted_where_no_clock_binds(tmp_path: Path) -> None:
    with opened(tmp_path / "whole", Budget(trials=9)) as run:
        expected = script(run)
    for number in (1, 2, 3, 5):

        def press(name: str, number: int = number) -> None:
            if name == f"trial.{number:04d}.end":
                signal.raise_signal(signal.SIGINT)

        out = tmp_path / str(number)
        with opened(out, Budget(trials=9), hook=press) as run:
            run.do([*numbers(3, 1, 2), job("refuse")], "rung 1")
        with opened(out, Budget(trials=9), resume=True) as run:
            assert script(run) == expected


def test_a_read_only_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match="cannot be written"), opened(tmp_path / "file" / "out"):
        pass


def test_forecasts_stand_beside_bills(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.forecast("adapt", 2.0)
        run.forecast("adapt", 3.0)
        run.do(numbers(1), "adapt")
        with run.meter.timed("verify"):
            pass
        assert run.meter.forecasts == {"adapt": 2.0}
        assert set(run.meter.spent_by_stage) == {"adapt", "verify"}
    with opened(tmp_path, resume=True) as run:
        run.forecast("adapt", 4.0)
        assert run.meter.forecasts == {"adapt": 2.0}, "the first is kept"
