"""A crash at every journal and write event, and real kills: each trial finishes once, and the result is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.core import Source
from headstart.inventory.records import fingerprint_of_test
from journey import shelves

NOT_THE_SAME = ("seconds", "out")  # of two runs in two folders


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


@pytest.fixture
def shelf(text_model: Source) -> list[Source]:
    made = [shelves.named(text_model, name) for name in ("useless", "good")]
    for rows in ((40, 30), (40, 0)):
        target = shelves.tickets(*rows)
        for source in made:
            shelves.fill(target, source, (shelves.signal if source.name == "good" else shelves.noise)(source))
    return made


class Journey:
    """One journey that can be begun, crashed and resumed in any folder, each with a bank of its own."""

    def __init__(self, place: Path, shelf: list[Source], rows: tuple[int, int]) -> None:
        self.place, self.shelf, self.rows = place, shelf, rows
        hs.Inventory(place / "empty.db").close()

    def go(self, name: str, *, hook: Callable[[str], None] | None = None, resume: bool = False) -> Path:
        bank = self.place / f"{name}.db"
        if not bank.exists():
            shutil.copy(self.place / "empty.db", bank)
        out = self.place / name
        target = shelves.tickets(*self.rows)
        with hs.Inventory(bank) as inventory:
            shelves.solved(target, self.shelf, out, inventory, hook=hook, resume=resume)
        return out

    def openings(self, name: str) -> int:
        with hs.Inventory(self.place / f"{name}.db") as inventory:
            (run,) = inventory.runs()  # remembered once
            assert run["status"] == "done"
            return inventory.opened(fingerprint_of_test(shelves.tickets(*self.rows)))


def essence(out: Path) -> dict[str, Any]:
    """What must be equal bit for bit: members, predictions, receipt; all but seconds and the folder's name."""
    saved = json.loads((out / "headstart.json").read_text())
    receipt = json.loads((out / "receipt.json").read_text())
    del receipt["seconds"], receipt["facts"]["stages"], saved["files"]["receipt.json"]
    for name in NOT_THE_SAME:
        del saved["summary"][name]
    paths = [*sorted((out / "members").rglob("*")), out / "predictions.parquet", out / "rows.json"]
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in paths if p.is_file()}
    return {"saved": saved, "receipt": receipt, **files}


def each_trial_finished_once(out: Path) -> None:
    ends = [line["key"] for line in shelves.journal(out) if line["event"] in ("finished", "failed")]
    admitted = [job["key"] for line in shelves.journal(out) if line["event"] == "admitted" for job in line["jobs"]]
    assert len(ends) == len(set(ends))
    assert sorted(ends) == sorted(admitted)
    assert not [p for p in out.rglob("*.part-*") if p.parent.name == "trials"]
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def crashed_everywhere(journey: Journey, every: int, first: int = 1) -> int:
    """Crash at every so many events, resume, and compare; gives how many events there are."""
    events: list[str] = []
    expected = essence(journey.go("whole", hook=events.append))
    for number in range(first, len(events) + 1, every):
        name, event = str(number), events[number - 1]
        with pytest.raises(Crash):
            journey.go(name, hook=crash_at(number))
        out = journey.go(name, resume=True)
        assert essence(out) == expected, event
        each_trial_finished_once(out)
        assert journey.openings(name) == journey.openings("whole") == 1, event
        shutil.rmtree(out)
    return len(events)


@pytest.mark.usefixtures("light")
def test_a_crash_at_some_events_changes_nothing(tmp_path: Path, shelf: list[Source]) -> None:
    assert crashed_everywhere(Journey(tmp_path, shelf, (40, 30)), every=29, first=22) > 90


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_a_crash_at_every_event_changes_nothing(tmp_path: Path, shelf: list[Source]) -> None:
    assert crashed_everywhere(Journey(tmp_path, shelf, (40, 30)), every=1) > 90


@pytest.mark.slow
@pytest.mark.usefixtures("light")
def test_a_crash_in_outer_folds_changes_nothing(tmp_path: Path, shelf: list[Source]) -> None:
    assert crashed_everywhere(Journey(tmp_path, shelf, (40, 0)), every=23, first=5) > 300


@pytest.mark.usefixtures("light")
def test_crash_after_crash_comes_to_the_same_end(tmp_path: Path, shelf: list[Source]) -> None:
    """And each crash tears the journal's last line."""
    journey = Journey(tmp_path, shelf, (40, 30))
    expected = essence(journey.go("whole"))
    for _ in range(60):
        try:
            out = journey.go("torn", hook=crash_at(40), resume=True)
            break
        except Crash:
            with (tmp_path / "torn/run/journal.jsonl").open("ab") as file:
                file.write(b'{"n":')
    assert essence(out) == expected
    each_trial_finished_once(out)
    assert journey.openings("torn") == 1
