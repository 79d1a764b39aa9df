"""What a person sees, on a terminal and elsewhere."""

from __future__ import annotations

import io
from math import inf

import pytest

from headstart.execution import progress
from headstart.execution.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(file: io.StringIO, show: progress.Show = "auto", left: float = inf) -> str:
    one = Progress(lambda: left, show=show, file=file)
    one.stage("adapt\x1b[31m [red]", 3)
    one.advance("probe of `mini[lm]`")
    one.best("macro-F1 0.81")
    one.stage("verify")
    one.close()
    return file.getvalue()


def test_short_runs_say_nothing_where_there_is_no_terminal() -> None:
    assert shown(io.StringIO()) == ""


def test_longer_ones_say_a_plain_line_without_escape_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(progress, "STAGE_SECONDS", 0.0)
    said = shown(io.StringIO(), left=75.0)
    assert "\x1b" not in said
    assert said.splitlines()[1] == "adapt�[31m [red] 1/3 · probe of `mini[lm]` · 1:15 left"
    assert said.splitlines()[-1] == "verify · best: macro-F1 0.81 · 1:15 left"


def test_stages_that_last_a_moment_are_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(progress, "STAGE_SECONDS", 3600.0)
    assert shown(io.StringIO()) == ""


def test_the_best_within_an_outer_fold_is_not_the_best_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUIET_SECONDS", "PLAIN_SECONDS", "STAGE_SECONDS"):
        monkeypatch.setattr(progress, name, 0.0)
    file = io.StringIO()
    one = Progress(lambda: 9.0, file=file)
    one.best("probe of a: macro-F1 0.81")
    one.within("outer fold 2 of 5")
    one.best("probe of b: macro-F1 0.99")
    one.stage("rank", 3)
    assert (
        file.getvalue().splitlines()[-1] == "outer fold 2 of 5 · rank 0/3 · best: probe of a: macro-F1 0.81 · 0:09 left"
    )


def test_a_terminal_shows_living_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert "verify · best: macro-F1 0.81 · 0:09 left" in shown(Terminal(), left=9.0)


def test_silence_when_asked() -> None:
    assert shown(Terminal(), show="none") == ""
