"""A shell in this process, with a bank of its own; what takes a worker elsewhere runs here."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
import tiny_models
from headstart import cli, execution
from headstart.execution import alone

SAID = {
    "card": ("where is my card", "my card was lost", "the card got stuck"),
    "refund": ("I want my money back", "refund it please", "when is the refund here"),
}


@dataclass(frozen=True)
class Said:
    """What one command answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """All of stdout as one JSON object."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Shell = Callable[..., Said]


@pytest.fixture(scope="session", autouse=True)
def _quiet_disk() -> Iterator[None]:
    """A crash of this process alone loses no written page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's bank, and each sees a pipe of 100 columns."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process."""
    monkeypatch.setattr(hs, "solve", partial(hs.solve, executor="in_process"))
    monkeypatch.setattr(alone, "begin", partial(execution.begin, executor="in_process"))


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """Type a command."""

    def run(*words: object) -> Said:
        code = cli.main([str(w) for w in words])
        told = capsys.readouterr()
        return Said(code, told.out, told.err)

    return run


def table(file: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """A CSV file."""
    with file.open("w", newline="", encoding="utf-8", errors="surrogatepass") as held:
        writer = csv.writer(held)
        writer.writerow(columns)
        writer.writerows(rows)
    return file


def tickets(file: Path, rows: int = 40, *, seed: int = 0) -> Path:
    """Texts of two classes, all different."""
    draw = random.Random(seed)
    made = []
    for at in range(rows):
        label = list(SAID)[at % 2]
        made.append((f"{draw.choice(SAID[label])} {draw.choice(tiny_models.WORDS)} {seed}{at}", label))
    return table(file, ("text", "intent"), made)


def houses(file: Path, rows: int = 60, *, seed: int = 0) -> Path:
    """Numbers to predict from a number and a category."""
    draw = random.Random(seed)
    made = []
    for _ in range(rows):
        area, city = draw.uniform(30, 150), draw.choice("AB")
        made.append((f"{area:.4f}", city, round(1000 * area + (9000 if city == "A" else 0) + draw.gauss(0, 3000))))
    return table(file, ("area", "city", "price"), made)


@pytest.fixture
def ticket_file(tmp_path: Path) -> Path:
    return tickets(tmp_path / "tickets.csv")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one tiny text model."""
    folder = tmp_path_factory.mktemp("shelf")
    tiny_models.save_model(folder / "tiny", "bert", num_hidden_layers=1)
    return folder


@pytest.fixture(scope="session")
def text_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved result of texts without any source."""
    return _solved(tmp_path_factory.mktemp("texts"), tickets, "intent")


@pytest.fixture(scope="session")
def number_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved result of numbers from columns."""
    return _solved(tmp_path_factory.mktemp("houses"), houses, "price")


def _solved(folder: Path, make: Callable[..., Path], label: str) -> Path:
    target = hs.read_target(make(folder / "train.csv"), label=label, test=make(folder / "test.csv", seed=1))
    budget = hs.Budget(trials=1)
    hs.solve(target, None, budget, out=folder / "result", executor="in_process", show="none")
    return folder / "result"
