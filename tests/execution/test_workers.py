"""Workers: limits that a job cannot pass, death of either side, and callers without a `__main__` guard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from headstart import execution
from headstart.core import Budget, OverBudget, Unfit
from headstart.execution.specs import Job

VERBS = "verbs_for_tests"
HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"


@pytest.fixture(autouse=True)
def _verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def opened(out: Path, budget: Budget | None = None, **more: Any) -> Any:
    return execution.begin(out, budget or Budget(), **{"inputs": {}, "show": "none", "jobs": VERBS, **more})


def job(do: str, limit_seconds: float | None = None, **spec: Any) -> Job:
    return Job("fit", do, {"do": do, **spec}, limit_seconds=limit_seconds)


def numbers(*seeds: int) -> list[Job]:
    return [Job("fit", f"number {s}", {"do": "number", "seed": s}) for s in seeds]


def test_workers_say_what_this_process_says(tmp_path: Path) -> None:
    found = []
    for executor in ("workers", "in_process"):
        jobs = "execution.verbs_for_tests" if executor == "in_process" else VERBS
        with opened(tmp_path / executor, executor=executor, jobs=jobs) as run:
            outcomes = run.do([*numbers(1, 2), job("refuse"), job("break_down", zero=0)], "s")
        errors = [o.error.as_dict() if o.error else None for o in outcomes]
        found.append(([(o.ok, o.value, o.files.name) for o in outcomes], errors))
    assert found[0] == found[1]
    assert found[0][1][2] == Unfit("a hostile \x1b[31m text", where="here", fix="there").as_dict()
    assert "ZeroDivisionError" in (tmp_path / "workers" / "run" / "log.txt").read_text()


def test_a_worker_stays_warm_and_libraries_may_print(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        pids = {run.do([job("pid", n=n)], "s")[0].value["pid"] for n in range(3)}
        (chatter,) = run.do([job("chatter")], "s")
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert chatter.value["threads"] == "1"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "a line on stdout" in log
    assert "a line of a child" in log


def test_the_first_job_is_not_charged_for_the_start_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_verbs.py").write_text("import time\ntime.sleep(1)\ndef run(job, room):\n    return {}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with opened(tmp_path / "out", jobs="slow_verbs") as run:
        (outcome,) = run.do([job("nothing")], "s")
    assert outcome.ok, outcome.error
    assert outcome.seconds < 0.5


def test_workers_end_with_the_run(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        pid = run.do([job("pid")], "s")[0].value["pid"]
    assert not psutil.pid_exists(pid)


def test_two_workers_and_their_number_is_journalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.execution.run.cores", lambda: 2)
    with opened(tmp_path) as run:
        found = run.do([job("nap", n=n, steps=3, seconds=0.1) for n in range(2)], "s")
        assert run.journal.decisions["workers"]["value"] == {"cores": 2, "workers": 2}
        assert len({w.process.pid for w in run.executor._workers}) == 2
    assert all(o.ok for o in found)


def test_one_that_sleeps_for_ever_is_killed_at_its_limit(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        begun = time.monotonic()
        sleeper, after = run.do([job("sleep_for_ever", limit_seconds=0.3), *numbers(1)], "s")
    assert (sleeper.stopped, sleeper.value, after.ok) == ("time", {"step": 0}, True)
    assert time.monotonic() - begun < 4


def test_one_that_sleeps_for_ever_does_not_pass_the_deadline(tmp_path: Path) -> None:
    begun = time.monotonic()
    with opened(tmp_path, Budget(minutes=0.8 / 60)) as run:
        sleeper, waiting = run.do([job("sleep_for_ever"), *numbers(1)], "s")
    assert (sleeper.stopped, waiting.stopped, run.meter.bound) == ("time", "time", True)
    assert time.monotonic() - begun < 3.5


def test_a_job_stops_softly_at_a_step(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        (nap,) = run.do([job("nap", limit_seconds=0.5, steps=1000, seconds=0.02)], "s")
    assert nap.stopped == "time"
    assert (nap.files / "whole.txt").read_text() == str(nap.value["step"])


def test_one_that_allocates_30_gb_fails_alone(tmp_path: Path) -> None:
    with opened(tmp_path, Budget(memory="2 GB")) as run:
        hungry, after = run.do([job("allocate"), *numbers(1)], "s")
    assert (hungry.stopped, type(hungry.error), after.ok) == ("memory", OverBudget, True)


def test_memory_that_the_kernel_does_not_count_is_polled(tmp_path: Path) -> None:
    limit = psutil.Process().memory_info().rss + 200 * 2**20
    with opened(tmp_path, Budget(memory=limit)) as run:
        hungry, after = run.do([job("touch_shared", bytes=400 * 2**20), *numbers(1)], "s")
    assert (hungry.stopped, type(hungry.error), after.ok) == ("memory", OverBudget, True)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_worker_is_a_failed_job_with_a_reason(tmp_path: Path, sign: signal.Signals) -> None:
    with opened(tmp_path) as run:
        dead, after = run.do([job("die", signal=int(sign)), *numbers(1)], "s")
    assert (dead.ok, after.ok) == (False, True)
    assert dead.error is not None
    assert f"signal {int(sign)} ({sign.name})" in dead.error.what


SCRIPT = """
import sys
from pathlib import Path
from headstart import execution
from headstart.core import Budget
from headstart.execution.specs import Job
with execution.begin(Path(sys.argv[1]), Budget(), inputs={}, resume=True, show="none", jobs="verbs_for_tests") as run:
    print("begun", flush=True)
    spec = {"do": "nap", "steps": int(sys.argv[3]), "seconds": 0.02}
    found = run.do([Job("fit", f"nap {n}", {**spec, "n": n}) for n in range(int(sys.argv[2]))], "s")
    last = run.do([Job("fit", "last", {"do": "number", "seed": sum(o.value["steps"] for o in found if o.ok)})], "t")
print([o.ok for o in found], last[0].value, run.interrupted)
"""


def script(tmp_path: Path, jobs: int, steps: int) -> subprocess.Popen[str]:
    file = tmp_path / "script.py"  # without a guard, beside a module that shadows one of Python's own
    file.write_text(SCRIPT)
    (tmp_path / "queue.py").write_text("raise SystemExit('shadowed')")
    env = {**os.environ, "PYTHONPATH": f"{SOURCE}{os.pathsep}{HERE}"}
    command = [sys.executable, "-P", str(file), str(tmp_path / "out"), str(jobs), str(steps)]
    return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)


def ends(tmp_path: Path) -> list[str]:
    text = (tmp_path / "out" / "run" / "journal.jsonl").read_text()
    return [line["key"] for line in map(json.loads, text.splitlines()) if line["event"] == "finished"]


def ended(process: psutil.Process) -> bool:
    """Whether it ends within two seconds; one that nobody has waited for yet counts."""
    for _ in range(100):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def killed_and_resumed(tmp_path: Path, kills: int, jobs: int, steps: int, after: float) -> None:
    for number in range(kills):
        process = script(tmp_path, jobs, steps)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(after * (number + 1) / kills)
        workers = psutil.Process(process.pid).children()
        process.kill()
        process.wait()
        assert all(ended(worker) for worker in workers)
    said = script(tmp_path, jobs, steps).communicate()[0].splitlines()[1]
    assert said == f"{[True] * jobs} {{'value': {jobs * steps * 0.1 + 1 / 3}}} False"
    assert len(ends(tmp_path)) == len(set(ends(tmp_path))) == jobs + 1


def test_three_kills_and_each_job_finishes_once(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, kills=3, jobs=3, steps=5, after=0.3)


@pytest.mark.slow
def test_fifty_kills_and_each_job_finishes_once(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, kills=50, jobs=60, steps=10, after=2.0)


def test_ctrl_c_in_a_plain_script_gives_what_is_finished(tmp_path: Path) -> None:
    process = script(tmp_path, jobs=2, steps=10_000)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=10)[0]
    assert out == "[False, False] {'step': 0} True\n"
