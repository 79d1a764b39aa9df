"""What a person sees while a run works: stage, what is tried, best so far, time left. On stderr, never on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from math import inf
from typing import IO, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

Show = Literal["auto", "plain", "none"]

QUIET_SECONDS = 2.0  # nothing is said about shorter runs
PLAIN_SECONDS = 5.0  # between two plain lines
STAGE_SECONDS = 2.0  # between a plain line and the next stage: many last a moment only


def plain(text: str) -> str:
    """Text as it may be shown: control characters, and so escape sequences, are replaced.

    >>> plain("a\\x1b[31mb")
    'a�[31mb'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def clock(seconds: float) -> str:
    """
    >>> clock(75.2), clock(8), clock(3700)
    ('1:15', '0:08', '1:01:40')
    """
    whole = int(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02d}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02d}"


class Progress:
    """Shows itself on a terminal as two living lines, elsewhere as a plain line now and then, or not at all."""

    def __init__(
        self, left: Callable[[], float] = lambda: inf, *, show: Show = "auto", file: IO[str] | None = None
    ) -> None:
        self._console = Console(file=file or sys.stderr, highlight=False, markup=False)
        self._left, self._begun, self._said = left, time.monotonic(), time.monotonic()
        self._mode = "live" if show == "auto" and self._console.is_terminal else "none" if show == "none" else "plain"
        self._live: Live | None = None
        self._stage, self._text, self._best, self._done, self._total = "", "", "", 0, 0
        self._within = ""

    def stage(self, name: str, total: int = 0) -> None:
        """A new stage begins, of so many steps (0: not known)."""
        self._stage, self._text, self._done, self._total = plain(name), "", 0, total
        if self._mode == "live" and self._live is None:
            self._live = Live(console=self._console, get_renderable=self._lines, refresh_per_second=4, transient=True)
            self._live.start()
        self._say(at_once=True)

    def advance(self, text: str = "", by: int = 1) -> None:
        """One more step is done, or with by=0 something is being tried."""
        self._done += by
        self._text = plain(text) or self._text
        self._say()

    def within(self, text: str = "") -> None:
        """Which part of the run the stages that follow belong to; nothing for the run itself."""
        self._within = plain(text)

    def best(self, text: str) -> None:
        """The best so far, in a few words; what is best within a part is not the best of the run."""
        if not self._within:
            self._best = plain(text)
            self._say()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _facts(self) -> str:
        count = f" {self._done}/{self._total}" if self._total else ""
        left = self._left()
        parts = [self._within, f"{self._stage}{count}", self._text, f"best: {self._best}" if self._best else ""]
        parts.append(f"{clock(left)} left" if left < inf else clock(time.monotonic() - self._begun))
        return " · ".join(p for p in parts if p)

    def _lines(self) -> Group:
        bar = ProgressBar(total=self._total or 1, completed=self._done, width=32, pulse=not self._total)
        return Group(Text(self._facts(), overflow="ellipsis", no_wrap=True), bar)

    def _say(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._mode != "plain" or now - self._begun < QUIET_SECONDS:
            return
        if now - self._said >= (STAGE_SECONDS if at_once else PLAIN_SECONDS):
            self._said = now
            self._console.print(Text(self._facts()), soft_wrap=True)
