"""The demonstration: its task, where it keeps its bank, and, slowly, the whole of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import demonstration, flow
from headstart.core import Refused, Result
from headstart.inventory import Inventory


class Solved:
    """Stands in for `solve`: keeps what it was asked, and leaves what a run would leave."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, target: Any, inventory: Inventory, budget: Any, **given: Any) -> None:
        given |= {"target": target, "budget": budget, "bank": inventory.file, "shelf": inventory.sources("image")}
        self.asked.append(given)
        (given["out"] / "run").mkdir(parents=True, exist_ok=True)
        (given["out"] / "run" / "journal.jsonl").write_text("{}\n")


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Solved:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    one = Solved()
    monkeypatch.setattr(flow, "solve", one)
    return one


def test_five_rows_of_each_digit_are_labelled_and_all_others_are_the_test() -> None:
    target = demonstration.digits()
    assert target.labelled.labels is not None
    assert Counter(target.labelled.labels.tolist()) == dict.fromkeys(range(10), 5)
    assert len(target.seal) == 1797 - 50
    assert not set(target.labelled.content) & set(target.seal.content)
    assert (target.modality, target.protocol, target.metric.name) == ("image", "user_test", "accuracy")
    assert target.task.classes == tuple("0123456789")


def test_the_seed_draws_the_labelled_rows() -> None:
    again, other = demonstration.digits(), demonstration.digits(1)
    assert again.fingerprint == demonstration.digits(0).fingerprint
    assert set(again.labelled.content) != set(other.labelled.content)


def test_the_shelf_comes_from_the_package_and_the_bank_lies_in_the_folder(solved: Solved, tmp_path: Path) -> None:
    began = time.monotonic()
    demonstration.demonstrate(tmp_path / "out", seed=3, started=began, asked={"command": "headstart demo"})
    (asked,) = solved.asked
    assert asked["bank"] == tmp_path / "out" / demonstration.BANK
    assert [s.where for s in asked["sources"]] == sorted(str(p) for p in demonstration.STARTER.iterdir())
    assert [s.identity for s in asked["shelf"]] == [s.identity for s in asked["sources"]]
    assert asked["failed"] == []
    assert asked["budget"].minutes == demonstration.MINUTES
    assert (asked["seed"], asked["target"].seed, asked["started"]) == (3, 3, began)
    assert asked["asked"] == {"command": "headstart demo"}


def test_a_run_that_was_begun_is_refused_resumed_or_begun_again(solved: Solved, tmp_path: Path) -> None:
    out = tmp_path / "out"
    demonstration.demonstrate(out)
    with Inventory(out / demonstration.BANK) as bank:
        bank.count_opening("a test", "a run")
    with pytest.raises(Refused, match="begun"):
        demonstration.demonstrate(out)
    demonstration.demonstrate(out, resume=True, minutes=9)
    with Inventory(out / demonstration.BANK) as bank:
        assert bank.opened("a test") == 1, "a resumed run goes on with its bank"
    demonstration.demonstrate(out, overwrite=True)
    with Inventory(out / demonstration.BANK) as bank:
        assert bank.opened("a test") == 0, "a new run has a new bank"
    assert [a["resume"] for a in solved.asked] == [False, True, False]
    assert solved.asked[1]["budget"].minutes == 9


def test_nothing_is_made_where_the_folder_is_taken(solved: Solved, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(Refused):
        demonstration.demonstrate(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md"]
    assert not solved.asked


@pytest.mark.slow
def test_the_whole_demonstration_helps_and_tells_its_story(tmp_path: Path) -> None:
    environment = {
        **os.environ, "HEADSTART_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(demonstration.STARTER.parents[1]),
    }  # fmt: skip
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "headstart", "demo", "--out", str(out)]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert told.returncode == 0, told.stderr
    for line in ("1. The ranking", "2. Adaptation", "3. Harm caught", "verdict: helps", "resnet-digit-loops"):
        assert line in told.stdout
    again = subprocess.run([*command, "--resume", "--json"], capture_output=True, text=True, env=environment)
    summary = json.loads(again.stdout)
    assert summary["verdict"] == "helps"
    assert summary["gain"]["low"] > 0
    assert summary["score"]["value"] > 0.93
    import headstart as hs

    result: Result = hs.load(out)
    from sklearn.datasets import load_digits

    held = load_digits()
    found = result.predict(np.rint(held.images[:200] * (255 / 16)).astype(np.uint8))
    right = [int(a) == b for a, b in zip(found.labels, held.target[:200], strict=True)]
    assert sum(right) > 170
