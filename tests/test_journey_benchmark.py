"""The benchmark of the journey: what it says without sets, and the tables that it draws from a file by hand."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
TRUTH = ["a", "b"] * 20
SUMMARY: dict[str, Any] = {
    "verdict": "helps",
    "returned": "chosen",
    "score": {"value": 1.0, "low": 1.0, "high": 1.0},
    "candidate": {"name": "probe", "value": 1.0, "low": 1.0, "high": 1.0},
    "gain": {"verdict": "helps", "value": 0.5, "low": 0.35, "high": 0.65, "opponent": "majority"},
    "choice_gain": None,
    "baselines": [{"name": "majority", "value": 0.5, "low": 0.5, "high": 0.5}],
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "journey.py"), *arguments]
    env = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file of the benchmarks as a module of another name: `journey` is a folder of the tests, too."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_without_sets_it_says_what_to_give(tmp_path: Path) -> None:
    ended = run("--data", str(tmp_path / "none"), "--json", str(tmp_path / "f.json"), "--work", str(tmp_path / "w"))
    assert ended.returncode == 2
    assert "--data" in ended.stderr
    assert not (tmp_path / "w").exists()


def test_tables_follow_from_the_file_alone(tmp_path: Path) -> None:
    about = {"modality": "text", "task": "single_label", "metric": "accuracy", "rows": 16, "size": 8}
    half = ["a"] * 40
    cells: dict[str, Any] = {
        "budget/t/8/one/0.15": {
            "settings": {"minutes": 0.15}, "limit_seconds": 9.0, "seconds": 15.5, "over_seconds": 6.5, "held": False,
            "code": 0, "valid": True, "modality": "text",
        },
        "solve/t/8": {"settings": {}, **about, "classes": ["a", "b"], "truth": TRUTH, "groups": list(range(40))},
        "solve/t/8/headstart": {
            "settings": {"minutes": 1.5}, "seconds": 60.0, "summary": SUMMARY, "members": {"probe": 1.0},
            "predictions": TRUTH,
        },
        "solve/t/8/recipe": {"settings": {"steps": None}, "seconds": 30.0, "predictions": half},
        "solve/t/8/setfit": {"settings": {}, "error": "code 1: no memory"},
    }  # fmt: skip
    machine = {"cores": 2, "system": "Linux", "python": "3.11"}
    (tmp_path / "f.json").write_text(json.dumps({"machine": machine, "cells": cells}))
    ended = run("--only", "report", "--json", str(tmp_path / "f.json"), "--work", str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "was kept in 0 of 1" in ended.stdout
    assert (
        "| helps: chosen | 1.000 [0.912, 1.000] | 1.000 [1.000, 1.000] | 0.500 [0.500, 0.500] majority |"
        in ended.stdout
    )
    # all of one class against all right: on 20 rows of each class, every draw differs by exactly a half
    assert "+0.500 [+0.500, +0.500]" in ended.stdout
    assert "against the plain recipe, 1 cells: better in 1, worse in 0" in ended.stdout
    assert "--quick" not in ended.stdout
    assert "- failed: setfit on t, 8: code 1: no memory" in ended.stdout


def test_what_was_done_with_the_same_settings_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journey = loaded("journey", monkeypatch)
    first = journey.Record(tmp_path / "f.json")
    first.put("a", {"steps": None, "sizes": (8, 32)}, {"settings": "of the rival", "seconds": 1.0})
    first.put("b", {}, {"error": "no memory"})
    again = journey.Record(tmp_path / "f.json")
    assert again.has("a", {"steps": None, "sizes": (8, 32)})
    assert not again.has("a", {"steps": 10, "sizes": (8, 32)})
    assert not again.has("b", {})
    assert not again.has("c", {})


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data sets are not beside the repository")
def test_a_cut_has_the_labels_asked_for_and_no_test_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import journey_sets as sets
    import pyarrow.parquet as pq

    cut = sets.cut(DATA, "trec6", 8, 50, tmp_path)
    train = pq.read_table(cut.train)
    labels = train["label"].to_pylist()
    assert {labels.count(name) for name in cut.classes} == {8}
    assert len(cut.truth) == len(cut.inputs) == 50
    assert not {t.casefold() for t in train["text"].to_pylist()} & {
        t.casefold() for t in pq.read_table(cut.test)["text"].to_pylist()
    }
    assert sets.fits(DATA, "banking77", 128) is not None
    assert sets.fits(DATA, "auto_mpg", 32) is None
