"""Test rows are read by verify alone, once, and counted once; until then no label of them lies in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart import flow
from headstart.core import Refused, Rows, Seal, Source, Target
from headstart.execution.run import Run
from headstart.inventory.records import fingerprint_of_test
from headstart.io import targets
from journey import shelves


class Watched:
    """A target whose test may be read inside verify only; says how often that was."""

    def __init__(self, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.inside = 0, False
        hidden, verify = shelves.sealed_rows(target), flow.verify

        def rows() -> Rows:
            if not self.inside:
                raise AssertionError("the test was read outside verify")
            self.opened += 1
            return hidden

        def watched_verify(*given: Any) -> Any:
            self.inside = True
            try:
                return verify(*given)
            finally:
                self.inside = False

        seal = Seal(rows, ids=hidden.ids, content=hidden.content, groups=hidden.groups)
        self.target = replace(target, seal=seal)
        monkeypatch.setattr(flow, "verify", watched_verify)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Target], Watched]:
    shelves.cheap_baselines(monkeypatch, "word_char_tfidf")
    monkeypatch.setattr("headstart.ranking.racing.race.__defaults__", ((),))
    return lambda target: Watched(target, monkeypatch)


def _shelf(text_model: Source, target: Target) -> list[Source]:
    source = shelves.named(text_model, "good")
    return [shelves.fill(target, source, shelves.signal(source))]


def test_verify_alone_reads_the_test_and_once(
    tmp_path: Path, text_model: Source, watch: Callable[[Target], Watched]
) -> None:
    target = shelves.tickets()
    shelf = _shelf(text_model, target)
    watched, bank = watch(target), hs.Inventory()
    result = shelves.solved(watched.target, shelf, tmp_path / "out", bank)
    assert result.verdict == "helps"
    assert (watched.opened, watched.target.seal.opened, bank.opened(fingerprint_of_test(target))) == (1, 1, 1)
    notes = [line["name"] for line in shelves.journal(tmp_path / "out") if line["event"] == "note"]
    assert notes.count("seal opened") == 1


def test_a_second_solve_of_one_target_is_refused(tmp_path: Path, watch: Callable[[Target], Watched]) -> None:
    watched = watch(shelves.tickets())
    shelves.solved(watched.target, None, tmp_path / "first")
    with pytest.raises(Refused, match="were read before"):
        shelves.solved(watched.target, None, tmp_path / "second")
    assert not (tmp_path / "second").exists()  # before anything was spent


class Crash(BaseException):
    """The process ends here."""


def test_over_crash_and_resume_the_test_is_counted_once(
    tmp_path: Path, text_model: Source, watch: Callable[[Target], Watched]
) -> None:
    shelf = _shelf(text_model, shelves.tickets())
    bank, opened = hs.Inventory(), False

    def crash(name: str) -> None:
        nonlocal opened
        opened = opened or bool(bank.opened(fingerprint_of_test(shelves.tickets())))
        if opened and name.startswith("trial.") and name.endswith(".renamed"):  # in the midst of verify
            raise Crash

    with pytest.raises(Crash):
        shelves.solved(watch(shelves.tickets()).target, shelf, tmp_path / "out", bank, hook=crash)
    assert opened
    watched = watch(shelves.tickets())
    result = shelves.solved(watched.target, shelf, tmp_path / "out", bank, resume=True)
    assert (result.verdict, watched.opened) == ("helps", 1)
    assert bank.opened(fingerprint_of_test(shelves.tickets())) == 1
    notes = [line["name"] for line in shelves.journal(tmp_path / "out") if line["event"] == "note"]
    assert notes.count("seal opened") == 1
    assert not any("was opened" in w for w in result.receipt.warnings)
    again = shelves.solved(watch(shelves.tickets()).target, shelf, tmp_path / "again", bank)
    assert any("was opened once before" in w for w in again.receipt.warnings)
    assert bank.opened(fingerprint_of_test(shelves.tickets())) == 2


def _everything(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file())


@pytest.mark.parametrize("rows", [(60, 30), pytest.param((25, 0), marks=pytest.mark.slow)])
def test_before_verify_nothing_of_the_test_lies_in_the_run(
    tmp_path: Path,
    text_model: Source,
    watch: Callable[[Target], Watched],
    monkeypatch: pytest.MonkeyPatch,
    rows: tuple[int, int],
) -> None:
    """Neither inputs nor labels of a test of one's own; under outer folds, the parts hold no row of their test."""
    target = shelves.tickets(*rows)
    shelf = _shelf(text_model, target)
    hidden = shelves.sealed_rows(target)

    note = Run.note

    def no_notes(run: Any, name: str, **facts: Any) -> None:
        if name == "seal opened":
            raise Crash  # the first moment after all choices
        note(run, name, **facts)

    monkeypatch.setattr(Run, "note", no_notes)
    with pytest.raises(Crash):
        shelves.solved(target, shelf, tmp_path / "out")
    held = _everything(tmp_path / "out")
    assert held
    for text in hidden.inputs["text"].to_pylist():
        assert text.encode() not in held
    for folder in sorted((tmp_path / "out/run/targets").iterdir()):
        part = targets.load(folder)
        with pytest.raises(Refused):
            part.seal.open()
        assert not {*part.labelled.ids, *part.unlabelled.ids} & set(part.seal.ids)
    assert len(list((tmp_path / "out/run/targets").iterdir())) == (1 if rows[1] else 6)
