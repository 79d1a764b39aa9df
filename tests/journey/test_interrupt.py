"""Ctrl-C and failures while verify runs: the best so far is saved, and a later session ends what was begun."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.core import Source, Unfit
from headstart.execution import jobs
from headstart.execution.specs import Room
from headstart.inventory.records import fingerprint_of_test
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")


@pytest.fixture
def shelf(text_model: Source) -> list[Source]:
    good = shelves.named(text_model, "good")
    return [shelves.fill(shelves.tickets(40, 30), good, shelves.signal(good))]


def press_at(out: Path, event: str, *, sealed: bool, after: int = 1) -> Callable[[str], None]:
    """Ctrl-C at the so-manieth event of this name, before or after the seal is open."""
    seen = 0

    def hook(name: str) -> None:
        nonlocal seen
        opened = "seal opened" in (out / "run/journal.jsonl").read_text()
        if name.endswith(event) and opened is not sealed:
            seen += 1
            if seen == after:
                signal.raise_signal(signal.SIGINT)

    return hook


def solved(out: Path, shelf: list[Source], bank: hs.Inventory, **more: Any) -> hs.Result:
    return shelves.solved(shelves.tickets(40, 30), shelf, out, bank, **more)


@pytest.mark.parametrize("after", [1, 4])
def test_ctrl_c_while_choosing_leaves_the_test_sealed(tmp_path: Path, shelf: list[Source], after: int) -> None:
    out, bank = tmp_path / "out", hs.Inventory()
    first = solved(out, shelf, bank, hook=press_at(out, "finished.before", sealed=True, after=after))
    notes = [line.get("name") for line in shelves.journal(out)]
    assert (first.verdict, first.summary["interrupted"]) == (None, True)
    assert "seal opened" not in notes
    assert any("stopped by Ctrl-C" in w for w in first.receipt.warnings)
    assert len(first.predict(["the cat"])) == 1
    second = solved(out, shelf, bank, resume=True)
    assert (second.verdict, second.summary["interrupted"]) == ("helps", False)
    assert bank.opened(fingerprint_of_test(shelves.tickets(40, 30))) == 1


@pytest.mark.parametrize("after", [1, 2])
def test_ctrl_c_in_verify_saves_the_best_so_far_and_resume_ends_it(
    tmp_path: Path, shelf: list[Source], after: int
) -> None:
    out, bank = tmp_path / "out", hs.Inventory()
    first = solved(out, shelf, bank, hook=press_at(out, "finished.before", sealed=False, after=after))
    assert (first.verdict, first.summary["interrupted"]) == (None, True)
    assert len(hs.load(out).predict(["the cat"])) == 1
    second = solved(out, shelf, bank, resume=True)
    assert (second.verdict, second.summary["interrupted"], second.summary["sources"]) == ("helps", False, [shelf[0].id])
    assert bank.opened(fingerprint_of_test(shelves.tickets(40, 30))) == 1
    assert [run["verdict"] for run in bank.runs()] == ["helps"]


def fails_on_all_rows(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """These methods cannot be fitted on all labelled rows, though they could on folds."""
    fit = jobs.VERBS["fit"]

    def failing(spec: Mapping[str, Any], room: Room) -> dict[str, Any]:
        if spec["cells"] == "all" and spec["name"] in names:
            raise Unfit("all rows are too many", where="a test", fix="give fewer")
        return fit(spec, room)

    monkeypatch.setitem(jobs.VERBS, "fit", failing)


def test_an_opponent_that_fails_at_the_last_gives_way_to_the_next_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_on_all_rows(monkeypatch, "word_char_tfidf")
    result = shelves.solved(shelves.tickets(told=0.9), None, tmp_path / "out")
    assert (result.verdict, result.receipt.method) == ("no-evidence", "majority")
    assert any("`word_char_tfidf`" in w and "all rows are too many" in w for w in result.receipt.warnings)
    assert result.summary["score"]["value"] < 0.5


def test_a_candidate_that_fails_at_the_last_is_not_returned(
    tmp_path: Path, shelf: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_on_all_rows(monkeypatch, "linear_probe")
    result = shelves.solved(shelves.tickets(40, 30), shelf, tmp_path / "out")
    assert (result.verdict, result.summary["returned"], result.summary["gain"]) == ("no-evidence", "no-transfer", None)
    assert any("`linear_probe of good`" in w and "all rows are too many" in w for w in result.receipt.warnings)
    assert len(result.predict(["the cat"])) == 1
