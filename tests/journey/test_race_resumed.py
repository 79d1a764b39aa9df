"""A race that crashed or was interrupted, and taken up again: a line for each source, and in the end the same table."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.core import Source
from headstart.execution import begin
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")

NAMES = ("good", "fair", "useless", "broken")


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def shelf(text_model: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """Three encoders by their features in the cache, and one whose files are gone."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    target = shelves.tickets(300)
    made = [shelves.named(text_model, name) for name in NAMES[:3]]
    for source in made:
        shelves.fill(target, source, (shelves.noise if source.name == "useless" else shelves.signal)(source))
    return [*made, shelves.named(shelves.model(tmp_path / "gone"), NAMES[3])]


def go(out: Path, shelf: list[Source], hook: Callable[[str], None] | None = None, resume: bool = False) -> Any:
    def begun(event: str) -> None:
        if hook is not None and entered:
            hook(event)

    entered = False  # only then does Ctrl-C reach the run
    with begin(out, hs.Budget(), inputs={}, resume=resume, executor="in_process", show="none", hook=begun) as run:
        entered = True
        ranked = hs.rank(shelves.tickets(300), shelf, hs.Budget(), "nmc", run=run)
    told = []
    for source in ranked:
        assert source.receipt is not None
        facts, score = source.receipt.facts, source.receipt.scores.get("score")
        told.append((source.name, score, facts["rows"], facts["dropped"], facts["proxies"], facts["error"]))
        assert score or facts["dropped"] or facts["error"], "a line says nothing"
        assert not facts["stopped"] or (hook and facts["error"])
    return told


def test_every_crash_and_every_interrupt_end_in_the_same_table(shelf: list[Source], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "gone")
    events: list[str] = []
    whole = go(tmp_path / "whole", shelf, events.append)
    assert {name for name, *_ in whole} == set(NAMES)
    assert whole[-1][0] == "broken"
    assert whole[-1][5] is not None
    assert any(dropped for _, _, _, dropped, _, _ in whole), "the useless one leaves"
    for number in range(1, len(events) + 1, max(len(events) // 12, 1)):
        for kind in ("crash", "interrupt"):
            out, counted = tmp_path / f"{kind}-{number}", 0

            def hook(_: str, kind: str = kind, number: int = number) -> None:
                nonlocal counted
                counted += 1
                if counted == number:
                    if kind == "crash":
                        raise Crash
                    signal.raise_signal(signal.SIGINT)

            if kind == "interrupt":
                assert {name for name, *_ in go(out, shelf, hook)} == set(NAMES), "a line is missing"
            else:
                with pytest.raises(Crash):
                    go(out, shelf, hook)
            assert go(out, shelf, resume=True) == whole


def test_what_was_stopped_stands_between_scores_and_those_that_left(shelf: list[Source], tmp_path: Path) -> None:
    events: list[str] = []
    go(tmp_path / "whole", shelf[:3], events.append)
    kinds = set()
    for number in range(1, len(events) + 1):
        if not events[number - 1].endswith(".begin"):
            continue
        seen: list[str] = []

        def hook(event: str, number: int = number, seen: list[str] = seen) -> None:
            seen.append(event)
            if len(seen) == number:
                signal.raise_signal(signal.SIGINT)

        with begin(
            tmp_path / str(number), hs.Budget(), inputs={}, executor="in_process", show="none", hook=hook
        ) as run:
            ranked = hs.rank(shelves.tickets(300), shelf[:3], hs.Budget(), "nmc", run=run)
        told = [(s.receipt.scores.get("score"), s.receipt.facts) for s in ranked if s.receipt is not None]
        states = ["scored" if score else "left" if facts["dropped"] else facts["stopped"] for score, facts in told]
        assert states == sorted(states, key=("scored", "interrupt", "left").index)
        for _, facts in told:
            loss = facts["loss"]
            assert loss is None or (0 <= loss["low"] < loss["value"] < loss["high"] and loss["rows"] < 300)
            assert not facts["dropped"] or facts["dropped"].startswith(f"loss {loss['value']:.3g} a row")
        losses = [facts["loss"]["value"] for _, facts in told if facts["stopped"] and facts["loss"]]
        assert losses == sorted(losses)
        kinds |= {(state, bool(f["loss"]), f["rows"]) for state, (_, f) in zip(states, told, strict=True)}
    assert {("interrupt", False, 0), ("interrupt", True, 128), ("left", True, 128), ("interrupt", True, 300)} <= kinds
