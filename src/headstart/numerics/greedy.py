"""Which few of many: the best set under a limit on its size, by greedy steps, lazy ones, or all sets.

A gain is rounded to twelve decimals, so that sums in another order tie; of equals the first in order is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from itertools import combinations

from headstart.core import Unfit

Value = Callable[[tuple[int, ...]], float]
DECIMALS = 12
FEW = 12  # candidates of which all sets are looked at: 4,095 of them


@dataclass(frozen=True, slots=True)
class Found:
    """A set, in the order in which its members joined. values: of the set after each; evaluations: of the function."""

    members: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    evaluations: int = 0

    @property
    def gains(self) -> tuple[float, ...]:
        """What each member added to those before it."""
        return tuple(b - a for a, b in zip((0.0, *self.values), self.values, strict=False))


def greedy(value: Value, candidates: int, most: int, *, least: int = 0) -> Found:
    """Add the candidate that gains most, until `most` are in or none gains.

    value: of a set of candidates' numbers, whose order tells nothing; no candidates are worth 0, and not asked about.
    least: so many join even at a loss. At most candidates · most evaluations; for monotone submodular functions no
    less than 1 − 1/e of the best (Nemhauser, Wolsey and Fisher, 1978).

    >>> weights = [1.0, 5.0, 3.0]
    >>> greedy(lambda s: sum(weights[i] for i in s), 3, 2).members
    (1, 2)
    """
    found = Found()
    while len(found.members) < min(most, candidates):
        rest = [i for i in range(candidates) if i not in found.members]
        values = [value((*found.members, i)) for i in rest]
        gains = [_gain(v, found) for v in values]
        at = max(range(len(rest)), key=gains.__getitem__)  # the first of equals
        spent = found.evaluations + len(rest)
        if gains[at] <= 0 and len(found.members) >= least:
            return Found(found.members, found.values, spent)
        found = _with(found, rest[at], values[at], spent)
    return found


def lazy_greedy(value: Value, candidates: int, most: int, *, least: int = 0) -> Found:
    """As `greedy`, with fewer evaluations, where the function is submodular: a gain never grows as others join.

    Minoux, 1978: what a candidate gained earlier bounds what it gains now, so one whose bound is below the best gain of
    this round need not be asked again.

    >>> weights = [1.0, 5.0, 3.0]
    >>> lazy_greedy(lambda s: sum(weights[i] for i in s), 3, 2).members
    (1, 2)
    """
    found = Found(evaluations=candidates)
    first = [value((i,)) for i in range(candidates)]
    heap = [(-_gain(v, found), i, 0, v) for i, v in enumerate(first)]  # the last two: when it was asked, what it said
    heapify(heap)
    while heap and len(found.members) < most:
        minus, i, asked, told = heap[0]
        if asked < len(found.members):
            told = value((*found.members, i))
            found = Found(found.members, found.values, found.evaluations + 1)
            heapreplace(heap, (-_gain(told, found), i, len(found.members), told))
            continue
        if minus >= 0 and len(found.members) >= least:
            break
        heappop(heap)
        found = _with(found, i, told, found.evaluations)
    return found


def exhaustive(value: Value, candidates: int, most: int, *, least: int = 0) -> Found:
    """The best of all sets, the smallest of equals; its members in the order in which they gain most.

    Raises `Unfit` for more than 12 candidates.

    >>> exhaustive(lambda s: {(0,): 2.0, (1,): 1.9, (2,): 1.9}.get(s, 2.5 if 0 in s else 3.0), 3, 2).members
    (1, 2)
    """
    if candidates > FEW:
        raise Unfit(
            f"{candidates} candidates have {2**candidates - 1:,} sets",
            where="the search of all sets",
            fix=f"search greedily, or among {FEW} candidates at most",
        )
    sizes = range(min(least, candidates), min(most, candidates) + 1)
    sets = [s for n in sizes for s in combinations(range(candidates), n)]
    values = [round(value(s), DECIMALS) if s else 0.0 for s in sets]
    best = sets[max(range(len(sets)), key=values.__getitem__)] if sets else ()
    ordered = greedy(lambda s: value(tuple(best[i] for i in s)), len(best), len(best), least=len(best))
    spent = sum(1 for s in sets if s) + ordered.evaluations
    return Found(tuple(best[i] for i in ordered.members), ordered.values, spent)


def _gain(value: float, found: Found) -> float:
    return round(value - (found.values[-1] if found.values else 0.0), DECIMALS)


def _with(found: Found, member: int, value: float, evaluations: int) -> Found:
    return Found((*found.members, member), (*found.values, value), evaluations)
