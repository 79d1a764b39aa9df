"""Sets: how good several sources are together, to ensemble or to merge; higher is better. A file here is a method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from headstart import catalogue
from headstart.core import Candidate, Gathering, Refused

if TYPE_CHECKING:
    from headstart.numerics.greedy import Found

KIND = "ranking.sets"


def choose(
    candidates: Sequence[Candidate],
    most: int,
    method: str | Gathering = "ensemble_selection",
    *,
    least: int = 1,
    exhaustively: bool = False,
    poll: Callable[[], None] | None = None,
) -> Found:
    """The best of at most so many candidates, in the order in which they join; none joins beyond `least` without gain.

    Searched greedily, and lazily where the method claims to be submodular. exhaustively: all sets are looked at, which
    is for 12 candidates at most. poll: called before each set that is looked at; what it raises ends the search. Raises
    `Refused` for a method that does not work on the candidates' task.
    """
    from headstart.numerics.greedy import exhaustive, greedy, lazy_greedy

    made: Gathering = catalogue.make(KIND, method)
    task = candidates[0].task if candidates else None
    if task is not None and task not in made.needs.tasks:
        able = [n for n, e in catalogue.entries(KIND).items() if task in e.needs.tasks]
        raise Refused(
            f"`{catalogue.name_of(made)}` does not work on a {task.replace('_', '-')} task",
            where="the choice of a set",
            fix=f"use one of: {', '.join(able)}" if able else "no method for sets works on this task yet",
        )
    function = made(candidates)

    def value(members: tuple[int, ...]) -> float:
        if poll is not None:
            poll()
        return function(members)

    search = exhaustive if exhaustively else lazy_greedy if "submodular" in made.claims else greedy
    return search(value, len(candidates), most, least=least)
