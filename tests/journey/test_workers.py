"""Journeys in processes of their own: real kills, Ctrl-C, hostile sources, limits of time."""

from __future__ import annotations

import functools
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

import headstart as hs
from headstart import execution
from headstart.core import Budget, Source
from headstart.inventory.records import fingerprint_of_test
from journey import shelves
from journey.test_crashes import each_trial_finished_once, essence

HERE = Path(__file__).parent
PATH = os.pathsep.join(map(str, (HERE.parents[1] / "src", HERE.parent, HERE)))
TOLERANCE = 5.0  # seconds, or a tenth of the limit where that is more
FREE: dict[str, Any] = {"trials": 3}


# as people write them: a plain script without a `__main__` guard; its options come as JSON
SCRIPT = """
import functools
import json
import sys
from pathlib import Path

import pytest

import headstart as hs
from headstart import execution
from headstart.cli.show import process_start
from headstart.io.sources import scan
from journey import shelves

given = json.loads(sys.argv[1])
if given.get("jobs"):  # the name of a module whose jobs are slow, or worse
    execution.begin = functools.partial(execution.begin, jobs=given["jobs"])
if given.get("light"):  # what takes long, and is not what the test is about
    shelves.lighten(pytest.MonkeyPatch(), draw=True)
if given.get("model"):
    target = shelves.tickets(*given["rows"])
    (base,), _ = scan(given["model"])
    shelf = [shelves.named(base, name) for name in given["shelf"]]
    for source in shelf:
        shelves.fill(target, source, (shelves.signal if source.name == "good" else shelves.noise)(source))
else:
    target, shelf = shelves.prices(*given["rows"]), None
print("begun", flush=True)
with hs.Inventory(Path(given["out"]).with_suffix(".db")) as bank:
    result = hs.solve(
        target,
        bank,
        hs.Budget(**given["budget"]),
        out=given["out"],
        sources=shelf,
        resume=given.get("resume", False),
        show="none",
        started=process_start(),
    )
print(json.dumps(dict(result.summary)), flush=True)
sys.exit(130 if result.summary["interrupted"] else 0)
"""


class Script:
    """The script with these options, begun."""

    def __init__(self, out: Path, *, budget: dict[str, Any] | None = None, **options: Any) -> None:
        given = {"out": str(out), "rows": (60, 40), "budget": budget or FREE, "light": True, **options}
        environment = {**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"}
        file = out.parent / "script.py"
        file.write_text(SCRIPT)
        command = [sys.executable, "-P", str(file), json.dumps(given)]
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=out.parent)
        assert self.process.stdout is not None
        self.lines = self.process.stdout
        assert self.lines.readline() == "begun\n"

    def kill(self) -> None:
        """The hard way; workers end with it."""
        workers = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(workers, timeout=3)
        assert not [w for w in alive if w.status() != psutil.STATUS_ZOMBIE]

    def ended(self) -> tuple[dict[str, Any], int]:
        """Its summary and exit status."""
        said = self.lines.read().splitlines()
        return json.loads(said[-1]), self.process.wait()


def events(out: Path) -> int:
    """Whole lines of the journal, of a run that may be writing."""
    path = out / "run" / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(out: Path, kills: int, *, every: int, **options: Any) -> None:
    """Killed again and again, each time after so many more events of the journal."""
    for number in range(kills):
        script = Script(out, resume=number > 0, jobs="hostile_jobs", **options)
        until = events(out) + every
        while script.process.poll() is None and events(out) < until:
            time.sleep(0.01)
        assert script.process.poll() is None, "the run ended before it was killed"
        script.kill()


@pytest.mark.usefixtures("light")
def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    """A run that is killed with its worker, and ends in one process, comes to the same bits as one that never was."""
    killed(tmp_path / "killed", 1, every=7)
    for name in ("killed", "whole"):
        out = tmp_path / name
        with hs.Inventory(out.with_suffix(".db")) as bank:
            target = shelves.prices(60, 40)
            shelves.solved(target, None, out, bank, budget=Budget(**FREE), resume=name == "killed")
            assert bank.opened(fingerprint_of_test(target)) == 1
        each_trial_finished_once(out)
    assert essence(tmp_path / "killed") == essence(tmp_path / "whole")


@pytest.mark.slow
def test_ten_kills_on_a_shelf_change_nothing(tmp_path: Path, text_model: Source) -> None:
    options = {"model": text_model.where, "rows": (60, 40), "shelf": ["vain", "good", "useless"], "light": False}
    killed(tmp_path / "killed", 10, every=3, **options)
    for name in ("killed", "whole"):
        summary, status = Script(tmp_path / name, resume=name == "killed", **options).ended()
        assert (status, summary["verdict"]) == (0, "helps")
        each_trial_finished_once(tmp_path / name)
        with hs.Inventory(tmp_path / f"{name}.db") as bank:
            assert bank.opened(fingerprint_of_test(shelves.tickets(60, 40))) == 1
            assert [run["verdict"] for run in bank.runs()] == ["helps"]
    assert essence(tmp_path / "killed") == essence(tmp_path / "whole")


@pytest.mark.usefixtures("light")
def test_ctrl_c_saves_the_best_so_far_and_resume_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = Script(out, jobs="hostile_jobs")
    while events(out) < 8:
        time.sleep(0.01)
    script.process.send_signal(signal.SIGINT)
    summary, status = script.ended()
    assert (status, summary["verdict"], summary["interrupted"]) == (130, None, True)
    assert "seal opened" not in [line.get("name") for line in shelves.journal(out)]
    assert len(hs.load(out).predict(shelves.pa.table({"a": [0.5], "b": [0.0], "c": [1.0]}))) == 1
    assert (out / "report.html").is_file()
    with hs.Inventory(out.with_suffix(".db")) as bank:
        result = shelves.solved(shelves.prices(60, 40), None, out, bank, budget=Budget(**FREE), resume=True)
        assert [run["verdict"] for run in bank.runs()] == ["no-evidence"]
    assert (result.verdict, result.summary["interrupted"]) == ("no-evidence", False)
    ends = [line["key"] for line in shelves.journal(out) if line["event"] in ("finished", "failed")]
    assert len(ends) == len(set(ends))


def kept(limit_seconds: float, seconds: float) -> bool:
    return seconds <= limit_seconds + max(0.1 * limit_seconds, TOLERANCE)


def valid(summary: dict[str, Any], out: Path) -> None:
    """A result that can be read, and predicts."""
    assert summary["verdict"] in ("helps", "no-evidence", "hurts", None)
    assert summary["returned"] in ("chosen", "no-transfer")
    rows = (
        ["the cat sat"] if hs.load(out).summary["metric"] == "macro_f1" else shelves.pa.table({n: [0.5] for n in "abc"})
    )
    assert len(hs.load(out).predict(rows)) == 1


def test_a_fifth_of_a_minute_is_enough(tmp_path: Path) -> None:
    """In a script without a guard, as all of these are; imports are charged too."""
    summary, status = Script(tmp_path / "out", budget={"minutes": 0.2}).ended()
    assert status == 0
    valid(summary, tmp_path / "out")


HOSTILE = {"jobs": "hostile_jobs", "rows": (60, 40)}


@pytest.mark.usefixtures("light")
def test_one_that_sleeps_for_ever_and_one_that_takes_30_gb_cost_only_time(
    tmp_path: Path, text_model: Source, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setattr(execution, "begin", functools.partial(execution.begin, jobs="hostile_jobs"))
    shelf = [shelves.named(text_model, name) for name in ("sleeper", "hog")]
    limit, began = 9.0, time.monotonic()
    budget = Budget(minutes=limit / 60)
    result = shelves.solved(shelves.tickets(60, 40), shelf, tmp_path / "out", budget=budget, executor="workers")
    assert kept(limit, time.monotonic() - began)
    valid(dict(result.summary), tmp_path / "out")
    assert result.summary["returned"] == "no-transfer"
    for name in ("sleeper", "hog"):
        assert any(f"`{name}` failed" in w for w in result.receipt.warnings), name


@pytest.mark.slow
def test_hostile_sources_do_not_keep_the_good_one_from_winning(tmp_path: Path, text_model: Source) -> None:
    limit = 60.0
    options = {"model": text_model.where, "shelf": ["hog", "sleeper", "vain", "good"], **HOSTILE}
    script = Script(tmp_path / "out", budget={"minutes": limit / 60}, light=False, **options)
    summary, status = script.ended()
    seconds = time.monotonic() - script.began
    print(f"limit {limit:.0f} s, took {seconds:.1f} s")
    assert kept(limit, seconds)
    valid(summary, tmp_path / "out")
    assert (status, summary["verdict"]) == (0, "helps")
    warnings = hs.load(tmp_path / "out").receipt.warnings
    for name in ("sleeper", "hog"):
        assert any(f"`{name}` failed" in w for w in warnings), name


@pytest.mark.slow
def test_limits_are_kept_in_many_runs(tmp_path: Path, text_model: Source) -> None:
    """From the start of the process; the greatest overrun is printed."""
    options = {"model": text_model.where, "shelf": ["vain", "good"], "light": False}
    worst = float("-inf")
    for number, limit in enumerate((12, 16, 20, 25, 30, 40) * 3):
        out = tmp_path / str(number)
        rows = (60, 0) if number % 2 else (60, 40)
        script = Script(out, budget={"minutes": limit / 60}, **({**options, "rows": rows} if number % 3 else {}))
        summary, _ = script.ended()
        over = time.monotonic() - script.began - limit
        worst = max(worst, over)
        print(f"limit {limit} s: {over:+.1f} s, verdict {summary['verdict']}")
        valid(summary, out)
    print(f"the greatest overrun: {worst:+.1f} s")
    assert worst <= TOLERANCE
