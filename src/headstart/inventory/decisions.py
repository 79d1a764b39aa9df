"""What sources decide about a fixed set of probes: asked once, kept as a vector without any name of a class.

The probes are whatever rows are given; a hash of them names the space, so that vectors of two sets never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headstart.core import Problem, Refused, Rows, Source, Unfit

from .database import Database
from .readings import arrays_of, distinct, keep, newest, on, opened_for

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Answering = Callable[[Any], Array]

LEAST_PROBES = 30  # different inputs


def asked(
    database: Database, sources: Sequence[Source], others: Mapping[str, Answering], rows: Rows
) -> tuple[list[str], list[tuple[str, Problem]]]:
    """Asks every source, and every black box by its name, about the probes, and keeps what each decides.

    others: from an Arrow table of inputs to (rows, classes) shares or (rows,) names of classes. Those that answered,
    sources by identity, as two may have one name; and those that did not, or say the same of all probes, with the
    reason.
    """
    probes = distinct(rows, "headstart probes")
    if len(probes) < LEAST_PROBES:
        raise Unfit(
            f"{len(probes)} different rows are too few to tell models apart",
            where="the probes",
            fix=f"give {LEAST_PROBES} at least, and better some hundreds",
        )
    answered: list[str] = []
    failed: list[tuple[str, Problem]] = []
    asking: list[tuple[str, str, Answering]] = [(s.name, s.identity, _by_head(s, probes)) for s in sources]
    asking += [(name, name, answer) for name, answer in others.items()]
    for name, key, answer in asking:
        try:
            _keep(database, name, key, answer(probes.inputs), probes)
        except Problem as problem:
            failed.append((key, problem))
        else:
            answered.append(key)
    return answered, failed


def vectors(database: Database, sources: Sequence[str]) -> Array | None:
    """(S, V) of the sources, by identity or name, NaN for those that were not asked; None where none was.

    Where sources were asked about several sets of probes, the set that most of them answered counts, then the newest.
    """
    import numpy as np

    from . import shelf

    if not sources:
        return None
    named = {source.name: source.identity for source in shelf.listed(database)}
    wanted = [{source, named.get(source, source)} for source in sources]
    held = newest(database, "decisions", sources=[name for names in wanted for name in names])
    spaces = {reading.space: {r.source: r for r in held if r.space == reading.space} for reading in held}
    if not spaces:
        return None
    by_source = max(
        reversed(list(spaces.values())), key=lambda found: sum(bool(names & set(found)) for names in wanted)
    )
    width = int(next(iter(by_source.values())).facts["width"])
    out = np.full((len(sources), width), np.nan)
    for row, names in zip(out, wanted, strict=True):
        if here := sorted(names & set(by_source)):
            row[:] = arrays_of(database, by_source[here[0]])["vector"]
    return out


def _keep(database: Database, name: str, key: str, answers: Array, probes: Rows) -> None:
    import numpy as np

    from headstart.numerics.decisions import SKETCH_VERSION, WIDTH, decision_vector

    given = np.asarray(answers)
    if given.ndim not in (1, 2) or len(given) != len(probes):
        raise Unfit(
            f"it gave answers of the shape {given.shape} to {len(probes)} probes",
            where=f"source `{name}`",
            fix="give (rows, classes) shares, or (rows,) names of classes",
        )
    vector = decision_vector(given)
    if not vector.any():
        raise Refused(
            "it says the same of all probes",
            where=f"source `{name}`",
            fix="give probes of the kind that it was made for",
        )
    facts = {"probes": len(probes), "width": WIDTH}
    keep(database, "decisions", key, f"{on(probes)} v{SKETCH_VERSION}", facts, {"vector": vector})


def _by_head(source: Source, probes: Rows) -> Answering:
    def answer(inputs: Any) -> Array:
        with opened_for(source, probes, "predictions") as here:
            return here.predictions(inputs)

    return answer
