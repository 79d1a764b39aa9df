"""A race that crashed or was interrupted, and taken up again: a line for each source, and in the end the same table."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.core import Refused, Source
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
    with begin(out, hs.Budget(), inputs={}, resume=resume, executor="in_process", show="none", hook=hook) as run:
        ranked = hs.rank(shelves.tickets(300), shelf, hs.Budget(), "nmc", run=run)
    told = []
    for source in ranked:
        assert source.receipt is not None
        facts, score = source.receipt.facts, source.receipt.scores.get("score")
        told.append((source.name, score, facts["rows"], facts["dropped"], facts["proxies"], facts["error"]))
    return told


def test_every_crash_and_every_interrupt_end_in_the_same_table(shelf: list[Source], tmp_path: Path) -> None:
    import shutil

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

            try:
                cut = go(out, shelf, hook)
            except (Crash, Refused, KeyboardInterrupt):
                cut = None
            if cut is not None:
                assert {name for name, *_ in cut} == set(NAMES), "a line is missing"
            assert go(out, shelf, resume=True) == whole
