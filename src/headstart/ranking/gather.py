"""Gather: which few of the ranked sources to use together, and whether that is better than the best one alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headstart import catalogue
from headstart.core import Gathering, Measured, Problem, Refused, Source

from .certainty import GOES_ON, STOPS
from .own_rows import Own

if TYPE_CHECKING:
    import numpy as np

    from headstart.core import Needs, Target
    from headstart.execution.candidates import Told
    from headstart.execution.parts import Part
    from headstart.execution.run import Run
    from headstart.execution.specs import Stop
    from headstart.numerics.greedy import Found
    from headstart.ranking.racing import Ranked

    Array = np.ndarray[Any, Any]

SETS = "ranking.sets"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Gathered:
    """The set that one method chose.

    members: as they joined. values: of the set after each, on the method's own scale. score: of the average of the
    members' probes, in the target's metric; each row by a set that was chosen without the rows of its fold. best: the
    source that is best alone. gain: of the score over the best source's, in pairs of rows; that source was picked on
    all rows, which favours it. left_out: sources that the method cannot judge, each with the reason. error: why it
    chose none. stopped: `interrupt` or `time`, where that is why. own_rows: of a method that reads rows which sources
    learned from, how many of each source it judged were at hand, or why none.
    """

    method: str
    members: tuple[Source, ...] = ()
    values: tuple[float, ...] = ()
    score: Measured | None = None
    best: Source | None = None
    gain: Measured | None = None
    left_out: tuple[tuple[Source, Problem], ...] = ()
    error: Problem | None = None
    stopped: Stop | None = None
    own_rows: tuple[tuple[Source, int | Problem], ...] = ()

    @property
    def gains(self) -> tuple[float, ...]:
        """What each member added to those before it."""
        return tuple(b - a for a, b in zip((0.0, *self.values), self.values, strict=False))

    @property
    def verdict(self) -> Literal["helps", "hurts", "no-evidence"]:
        """Whether the set is worth it: the interval of its gain is above 0, below, or neither."""
        if self.gain is None or len(self.members) < 2:
            return "no-evidence"
        return "helps" if self.gain.low > 0 else "hurts" if self.gain.high < 0 else "no-evidence"

    @property
    def one_base(self) -> bool:
        """Whether several members are known to come from one base, so that their weights could be merged."""
        several = len({s.weights for s in self.members}) == len(self.members) > 1  # two layers of one are not
        return several and len({s.base or s.weights for s in self.members}) == 1


class _Ended(Exception):
    """Ctrl-C, or the end of the minutes, came before the set was chosen."""

    def __init__(self, stopped: Stop) -> None:
        super().__init__(stopped)
        self.stopped: Stop = stopped


def able(methods: Sequence[str | Gathering], target: Target) -> list[Gathering]:
    """The methods themselves. Raises `Refused` for one that does not work on this target."""
    made: list[Gathering] = []
    for method in methods:
        one: Gathering = catalogue.make(SETS, method)
        if reason := catalogue.refusal(one.needs, (), target):
            name = catalogue.name_of(one)
            raise Refused(f"`{name}` {reason}", where="the choice of a set", fix="see `headstart methods ranking.sets`")
        made.append(one)
    return made


def gather(
    part: Part,
    ranked: Sequence[Ranked],
    run: Run,
    most: int,
    method: Gathering,
    *,
    exhaustively: bool = False,
    own: Mapping[str, Own | Problem] | None = None,
) -> Gathered:
    """The best set of at most so many sources among those that were ranked to the end, best first.

    The probes of the ranking are used as they are. What a method reads beyond them, sources are asked for once. own: by
    identity of each source rows that it learned from, or why there are none. Where Ctrl-C or the end of the minutes
    comes first, no set is chosen, and `stopped` says so.
    """
    try:
        return _gather(part, ranked, run, most, method, own or {}, exhaustively=exhaustively)
    except _Ended as end:
        name = catalogue.name_of(method)
        error = Problem(f"{STOPS[end.stopped]} came first", where=f"`{name}`", fix=GOES_ON)
        return Gathered(method=name, error=error, stopped=end.stopped)


def _gather(
    part: Part,
    ranked: Sequence[Ranked],
    run: Run,
    most: int,
    method: Gathering,
    own: Mapping[str, Own | Problem],
    *,
    exhaustively: bool,
) -> Gathered:
    import numpy as np

    from headstart.execution.parts import gained_out_of_fold, measured
    from headstart.execution.words import by_words
    from headstart.numerics.crossfit import crossfit_cells
    from headstart.ranking.sets import choose

    def poll() -> None:
        if run.interrupted:
            raise _Ended("interrupt")
        if not run.meter.left():
            raise _Ended("time")

    poll()
    name, target = catalogue.name_of(method), part.target
    probed = [r for r in ranked if r.probe is not None]
    held = _readable(own, method.needs) if method.needs.own_rows else {}
    judged, candidates, left_out = _candidates(part, probed, run, method, held)
    if not judged:
        return Gathered(method=name, left_out=left_out, error=_nobody(name, left_out))
    known = [(one.source, held[one.source.identity]) for one in judged if one.source.identity in held]
    counted = tuple((source, one if isinstance(one, Problem) else len(one.rows)) for source, one in known)
    seen = by_words(target)
    labels = seen.labelled.labels
    assert labels is not None
    chosen: list[Found] = []
    shared = np.flatnonzero(np.all([c.seen for c in candidates], axis=0))

    def fitted(cells: Array) -> Array:
        rows = np.intersect1d(np.nonzero(cells)[1], shared)
        if not len(rows):
            raise _nothing_seen(name, judged)
        among = [c.among(rows) for c in candidates]
        poll()
        found = choose(among, most, method, exhaustively=exhaustively, poll=poll)
        chosen.append(found)
        return np.isin(np.arange(len(among)), found.members) / len(found.members)

    tables = np.stack([_cells(r) for r in judged])
    try:
        blended, _ = crossfit_cells(tables, labels, np.array(seen.folds.of), fitted)
    except Problem as problem:
        return Gathered(method=name, left_out=left_out, error=problem, own_rows=counted)
    if not chosen:
        return Gathered(method=name, left_out=left_out, error=_nothing_shared(name, judged), own_rows=counted)
    final = chosen[-1]  # of all rows
    return Gathered(
        method=name,
        members=tuple(judged[i].source for i in final.members),
        values=final.values,
        score=measured(target, blended),
        best=probed[0].source,
        gain=gained_out_of_fold(target, blended, _cells(probed[0])),
        left_out=left_out,
        own_rows=counted,
    )


def _readable(own: Mapping[str, Own | Problem], needs: Needs) -> dict[str, Own | Problem]:
    """The same, where the labels are what a method with these needs reads."""
    return {
        name: one if isinstance(one, Problem) or not needs.labels or one.task in needs.tasks else _of_another_task(one)
        for name, one in own.items()
    }


def _candidates(
    part: Part,
    probed: Sequence[Ranked],
    run: Run,
    method: Gathering,
    held: Mapping[str, Own | Problem],
) -> tuple[list[Ranked], list[Told], tuple[tuple[Source, Problem], ...]]:
    """Sources that the method can judge, what each of them told, and those that it cannot, with the reason.

    held: rows that sources learned from, where the method reads such rows.
    """
    import numpy as np

    from headstart.execution.candidates import Told, asked_of
    from headstart.execution.parts import tell_job
    from headstart.execution.words import by_words

    target, name, gifts = part.target, catalogue.name_of(method), asked_of(method.needs)
    seen = by_words(target)
    fitting: list[Ranked] = []
    left_out: list[tuple[Source, Problem]] = []
    for one in probed:
        if reason := catalogue.refusal(method.needs, (one.source,), target):
            refused = Refused(reason, where=f"`{name}`", fix="see `headstart methods ranking.sets`")
            left_out.append((one.source, refused))
        else:
            fitting.append(one)
    own = {name: one for name, one in held.items() if not isinstance(one, Problem)}
    folders = [own[name].folder if (name := one.source.identity) in own else None for one in fitting]
    jobs = [tell_job(part, one.source, gifts, at) for one, at in zip(fitting, folders, strict=True)] if gifts else []
    outcomes = run.do(jobs, "rank") if jobs else []
    for outcome in outcomes:
        if outcome.error is None and outcome.stopped in STOPS:
            raise _Ended(outcome.stopped)
    judged, told = [], []
    for at, one in enumerate(fitting):
        if gifts and not outcomes[at].ok:
            left_out.append((one.source, outcomes[at].problem("it was asked", f"`{name}`")))
            continue
        judged.append(one)
        told.append(
            Told(
                needs=method.needs,
                method=name,
                task=seen.task.type,
                classes=len(seen.task.classes),
                rows=np.arange(len(seen.labelled)),
                known=np.asarray(seen.labelled.labels),
                dealt=np.array(seen.folds.of[0]),
                scored=_cells(one)[0],
                files=outcomes[at].files if gifts else None,
                own_labels=_labels(own[one.source.identity]) if one.source.identity in own else None,
            )
        )
    return judged, told, tuple(left_out)


def _of_another_task(own: Own) -> Problem:
    kind = own.task.replace("_", "-")
    return Refused(
        f"its data set is of a {kind} task, of which the labels are no classes",
        where="the rows that it learned from",
        fix="give rows with classes, or leave them out",
    )


def _labels(own: Own) -> Array | None:
    """Of its rows, or of their words."""
    import numpy as np

    labels = own.rows.labels
    return labels if labels is None or own.task != "tagging" else np.array([tag for tags in labels for tag in tags])


def _cells(ranked: Ranked) -> Array:
    assert ranked.probe is not None
    return ranked.probe.cells()


def _nothing_shared(name: str, judged: Sequence[Ranked]) -> Problem:
    return Refused(
        f"`{name}` has no row to judge by: none was scored for all of {len(judged)} sources",
        where="the choice of a set",
        fix="label more rows: two of each class at least, in different groups",
    )


def _nothing_seen(name: str, judged: Sequence[Ranked]) -> Problem:
    return Refused(
        f"`{name}` has nothing to judge by: there is no row, or word, of which all {len(judged)} sources say something",
        where="the choice of a set",
        fix="leave out sources that see few words or give no numbers, or use ensemble_selection",
    )


def _nobody(name: str, left_out: Sequence[tuple[Source, Problem]]) -> Problem:
    reasons = "; ".join(f"`{source.name}`: {problem.what}" for source, problem in left_out)
    return Refused(
        f"`{name}` can judge no source ({reasons or 'none was ranked to the end'})",
        where="the choice of a set",
        fix="use ensemble_selection, which works with every source",
    )
