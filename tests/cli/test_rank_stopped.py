"""A ranking that Ctrl-C or the clock ended: a table of all sources, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import tiny_models
from cli.conftest import Shell
from headstart.core import Candidate, SetFunction
from headstart.execution.meter import Meter
from headstart.ranking.sets.ensemble_selection import EnsembleSelection

HERE = Path(__file__).parent
PATH = os.pathsep.join(map(str, (HERE.parents[1] / "src", HERE.parent, HERE.parent / "journey")))
# the jobs of a source named `sleeper` never end
SCRIPT = """
import functools
import sys

from headstart import cli, execution
from headstart.execution import alone

alone.begin = functools.partial(execution.begin, jobs="hostile_jobs")
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture
def shelf(models: Path, tmp_path: Path) -> Path:
    """Two models, read in this order."""
    shutil.copytree(models / "tiny", tmp_path / "shelf" / "first")
    tiny_models.save_model(tmp_path / "shelf" / "sleeper", "bert", num_hidden_layers=1, seed=1)
    return tmp_path / "shelf"


def chunks(home: Path) -> dict[Path, int]:
    """What the feature cache holds; a file that is written again is another."""
    return {p: p.stat().st_ino for p in (home / "cache").rglob("*.npy")}


def test_ctrl_c_leaves_a_table_and_the_same_command_goes_on(
    shell: Shell, shelf: Path, ticket_file: Path, home: Path
) -> None:
    asked = [str(w) for w in ("rank", ticket_file, "--sources", shelf, "--method", "nmc")]
    environment = {**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *asked],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not chunks(home) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    kept = chunks(home)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert kept, err
    assert process.returncode == 130, err
    stopped = out[out.index("was stopped") :].splitlines()
    assert [line.split()[0] for line in stopped[2:4]] == ["first", "sleeper"]
    assert [line.split()[-2:] for line in stopped[2:4]] == [["40", "Ctrl-C"], ["0", "Ctrl-C"]]
    assert "2 sources not ranked to the end; the same command goes on from there" in err
    assert out.splitlines()[-1].startswith("ranked 0 of 2 sources in ")

    said = shell(*asked)
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1].startswith("ranked 2 sources in ")
    assert kept.items() <= chunks(home).items(), "what was read is read again"
    assert len(chunks(home)) > len(kept)


def test_where_the_minutes_run_out_every_source_is_told(shell: Shell, shelf: Path, ticket_file: Path) -> None:
    said = shell("rank", ticket_file, "--sources", shelf, "--minutes", 1e-6)
    assert said.code == 3
    assert "first" in said.out
    assert "sleeper" in said.out
    assert "the end of its time" in said.out
    assert "the same command goes on from there" in said.err


@pytest.mark.parametrize(("end", "code"), [("interrupt", 130), ("time", 3)])
def test_where_sets_are_not_chosen_any_more_all_sources_are_told(
    end: str, code: int, shell: Shell, shelf: Path, ticket_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = EnsembleSelection.__call__

    def cut(self: EnsembleSelection, candidates: Sequence[Candidate]) -> SetFunction:
        if end == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            monkeypatch.setattr(Meter, "remaining", lambda self: 0.0)
        return begun(self, candidates)

    monkeypatch.setattr(EnsembleSelection, "__call__", cut)
    asked = ("rank", ticket_file, "--sources", shelf, "--method", "nmc", "--sets", 2, "--minutes", 9)
    said = shell(*asked)
    assert said.code == code
    assert "was stopped" not in said.out, "all sources were scored"
    assert said.out.splitlines()[-1].startswith("ranked 2 sources in ")
    came = "Ctrl-C" if end == "interrupt" else "the end of its time"
    assert f"no set by `ensemble_selection`: {came} came first; the same command goes on from there" in said.err
