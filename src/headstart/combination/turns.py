"""Whose turn it is in a choice of merges, and what the next one is expected to take."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import numpy as np

from .entrants import Entrant

FINALISTS = 3


class Turns:
    """Entrants in an order in which every stage has a share.

    Next is the stage that has spent least, of equals the cheapest; so each has as much as the others, and what one does
    not need is theirs. Where nothing is spent, stages come one after the other.
    """

    def __init__(self, found: Sequence[Entrant]) -> None:
        self._waiting: dict[str, deque[Entrant]] = {}
        for one in found:
            self._waiting.setdefault(one.stage, deque()).append(one)
        self._spent = dict.fromkeys(self._waiting, 0.0)

    def next(self) -> Entrant | None:
        """Who is next; it waits no longer."""
        waiting = [s for s, some in self._waiting.items() if some]
        return self._waiting[min(waiting, key=self._spent.__getitem__)].popleft() if waiting else None

    def share(self, stage: str, left: float) -> float:
        """What one of a stage may take of what is left: what is open of the stage's share, or a third where more."""
        stages = max(3, len(self._spent))
        return min(left, max(left / 3, (sum(self._spent.values()) + left) / stages - self._spent[stage]))

    def spend(self, stage: str, amount: float) -> None:
        """amount: seconds, or trials where these are what is limited."""
        self._spent[stage] += amount


class Pace:
    """Seconds that were measured so far, and what follows from them."""

    def __init__(self) -> None:
        self._rows, self._reading = 0, 0.0
        self._making: dict[str, list[float]] = {}
        self._merging: dict[str, list[float]] = {}

    def read(self, rows: int, seconds: float) -> None:
        """So many rows took so long in one model."""
        self._rows, self._reading = self._rows + rows, self._reading + seconds

    def merged(self, seconds: float, *names: str) -> None:
        """Weights were put into memory, of a merge of that method and kind."""
        for name in names:
            self._merging.setdefault(name, []).append(seconds)

    def made(self, seconds: float, entrant: Entrant) -> None:
        """Passes over rows, and whatever else comes before its weights."""
        for name in (entrant.method, entrant.kind):
            self._making.setdefault(name, []).append(seconds)

    def reading(self, rows: int) -> float:
        return rows * self._reading / max(1, self._rows)

    def merging(self, *names: str) -> float:
        """Of weights of the first of these that was measured: a method, or a kind."""
        return _mean(next((self._merging[n] for n in names if n in self._merging), []))

    def merging_of(self, entrant: Entrant) -> float:
        """By its method, else by its kind, else as a baseline."""
        return self.merging(entrant.method, entrant.kind, "baseline")

    def at_once(self, merging: float, rows: Sequence[int]) -> bool:
        """Whether to read the rows of all rungs in one go, as merging again takes as long as the rest of them."""
        return len(rows) > 1 and merging >= self.reading(rows[-1] - rows[0])

    def trying(self, entrant: Entrant, rows: Sequence[int]) -> float:
        """Of making an entrant and of its first rows: by its method, else by its kind, else as a baseline.

        Those that learn take the time that they are given, which is not counted here. rows: on each rung.
        """
        learns, merging = entrant.stage in ("learned", "trained"), self.merging_of(entrant)
        known = self._making.get(entrant.method) or self._making.get(entrant.kind) or []
        first = rows[-1] if self.at_once(merging, rows) else rows[0]
        return (0.0 if learns else _mean(known)) + merging + self.reading(first)

    def going_on(self, entrant: Entrant, rows: Sequence[int]) -> bool:
        """Whether later rungs are expected to take time of their own."""
        return len(rows) > 1 and not self.at_once(self.merging_of(entrant), rows)

    def rungs(self, rows: Sequence[int], merging: Sequence[float], going: int) -> float:
        """Of all rungs after the first. rows: on each, the first too. going: how many go on from there.

        merging: seconds of those who have not read all rows yet, those first that are likest to go on.
        """
        total = 0.0
        for before, after in pairwise(rows):
            total += sum(merging[:going]) + len(merging[:going]) * self.reading(after - before)
            going = kept(going)
        return total


def kept(count: int) -> int:
    """Of so many on a rung, those that go on to the next.

    >>> kept(20), kept(5), kept(2)
    (10, 3, 2)
    """
    return min(count, max(FINALISTS, ceil(count / 2)))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
