"""The race over sources: features of growing samples, and who leaves when; its rules are in `numerics.race`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from headstart import catalogue
from headstart.core import Measured, Problem, Ranking, Refused, Source, Target, called, problem_from

from .certainty import Certainty
from .expect import PROBE, ROUTES, Expected

if TYPE_CHECKING:
    import numpy as np

    from headstart.execution.parts import Part, Tried
    from headstart.execution.run import Run
    from headstart.execution.specs import Outcome, Stop

    Array = np.ndarray[Any, Any]

PROXIES = ("logme", "shrunk_h_score", "nmc", "lda", "ridge_probe", "knn_loo")
RACER = "ridge_probe"  # its losses decide who leaves; see `numerics.race`
Rule = Literal["paired", "bernstein", "none"]
FAST_FROM = 4096  # labelled rows; of fewer, trying other arithmetic takes more than it spares
NORMAL = 1.96  # standard errors to each side, for an interval that holds 95 %
MOST_LOSS = 2.0  # of a row, where a bound needs one: a head that is sure of the wrong one of two classes
ESTIMATORS = "ranking.estimators"


@dataclass(frozen=True, eq=False, slots=True)
class Ranked:
    """One source in a ranking.

    score: the cross-validated probe's metric, with its interval; None for a source that left, was stopped or failed.
    loss: squared error a row of the estimator that the race judges by, where it last judged this source; None where it
    did not. proxies: by name, higher is better. errors: standard errors of those that tell. refused: estimators that
    cannot work on this source, with the reason. dropped: why it left the race, at `rows` rows. error: why it was not
    ranked to the end. stopped: `interrupt` or `time`, where that is why, and no fault of the source. probe: the
    out-of-fold predictions behind the score. certainty: how sure its place is. expected: by route; predicted: the best
    of these that can be believed, by which sources are ordered. lower: the arithmetic that the race computed features
    in, and on how many rows, where it was not float32; all that is told of a source that ran to the end is. lost: of a
    target of tags, the words that the source has no features for; None where it was not scored. pace: seconds that
    reading a row takes; None where all was read before.
    """

    source: Source
    score: Measured | None = None
    proxies: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, Problem] = field(default_factory=dict)
    seconds: float = 0.0
    rows: int = 0
    dropped: str | None = None
    error: Problem | None = None
    stopped: Stop | None = None
    loss: Measured | None = None
    probe: Tried | None = None
    certainty: Certainty | None = None
    expected: tuple[Expected, ...] = ()
    predicted: Expected | None = None
    lower: tuple[str, int] | None = None
    pace: float | None = None

    @property
    def lost(self) -> int | None:
        return self.probe.lost if self.probe is not None else None


def race(
    part: Part,
    sources: Sequence[Source],
    run: Run,
    estimators: Sequence[str | Ranking] = PROXIES,
    *,
    rule: Rule = "paired",
    alike: bool = True,
    errors: bool = False,
) -> list[Ranked]:
    """Features of growing samples; hopeless sources leave early; the rest is scored on all rows, best first.

    Layers and poolings of one source share its passes: they are computed together, leave together, and on all rows
    those that are behind the best of them leave. alike: keeps sources that are as good as the leader and no better, of
    which several may be worth more than one. errors: of the proxies too.
    """
    import numpy as np

    from headstart.numerics import race as races

    target = part.target
    wanted = _fitting(estimators, target)
    course = _Course()
    able: dict[str, Source] = {}
    probe_needs = catalogue.entry(ROUTES, PROBE).needs
    for source in sources:
        if reason := catalogue.refusal(probe_needs, (source,), target):
            fix = "name sources that give features: `headstart inventory list` shows what each gives"
            if source.modality != target.modality:
                fix = readers(target)
            why = Refused(reason, where=f"source `{source.name}`", fix=fix)
            course.failed[source.identity] = why
        else:
            able[source.identity] = source

    rungs: list[int] = []
    # by trunk; none where a bound promises something of the features that are used in the end
    lower: dict[str, tuple[str, int]] | None = {} if rule == "paired" and len(target.labelled) >= FAST_FROM else None

    def losses_at(names: Sequence[str], rows: int) -> dict[str, Array]:
        spent = run.meter.spent_by_stage.get("features")  # not known where a crash came before it was journalled
        if spent is not None and len(rungs) == 1 and part.folder == part.root:
            # the first rung says what all rows would cost, were no source to leave
            run.forecast("features", spent * part.root_rows / part.drawn(rungs[0]))
        rungs.append(rows)
        return _losses(part, [able[n] for n in names], rows, run, course, frozen, lower)

    widths = {name: int(s.facts.get("width") or 1) for name, s in able.items()}
    first = len(target.labelled) if rule == "none" else races.FIRST_RUNG
    sizes = races.rungs(len(target.labelled), min(widths.values(), default=0), first)
    frozen = sizes[0] if rule == "bernstein" else None

    def leave(losses: Mapping[str, Array]) -> Mapping[str, str]:
        if rule == "bernstein":
            bounded = {name: np.clip(one, 0, MOST_LOSS) / MOST_LOSS for name, one in losses.items()}
            return races.bernstein_leavers(bounded, tries=len(sizes) * max(len(widths) - 1, 1))
        return races.leavers(losses, slack=0.0 if alike else races.SLACK)

    models = {name: trunk_of(source) for name, source in able.items()}
    raced = races.race(widths, len(target.labelled), losses_at, leave, first, models)
    behind = (
        _behind_their_own(part, [able[n] for n in raced.kept], run, course)
        if rule == "paired" and len(sizes) > 1
        else {}
    )
    gone = {**raced.left, **{name: (len(target.labelled), why) for name, why in behind.items()}}
    kept = [able[name] for name in raced.kept if name not in course.failed and name not in gone]
    tried = _score(part, kept, wanted, run, course, errors=errors)
    scored = sorted(
        (r for r in tried if r.score), key=lambda r: -target.metric.sign * (r.score.value if r.score else 0)
    )
    unread = [Ranked(s) for s in sources if s.identity in course.stopped.keys() - {r.source.identity for r in tried}]
    left = [Ranked(able[name], rows=rows, dropped=_named(why, sources)) for name, (rows, why) in gone.items()]
    broken = [Ranked(s) for s in sources if s.identity in course.failed.keys() - course.stopped.keys()]
    cut = sorted([*(r for r in tried if not r.score), *unread], key=course.standing)
    found = [*scored, *cut, *sorted(left, key=lambda r: -r.rows), *broken]
    fast = {trunk: told for trunk, told in (lower or {}).items() if told[0] != "float32"}
    return [course.noted(replace(r, lower=fast.get(trunk_of(r.source)))) for r in found]


@dataclass(eq=False, slots=True)
class _Course:
    """What a race has noted of its sources so far, by identity. rows: whose features are at hand."""

    seconds: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    losses: dict[str, Measured] = field(default_factory=dict)
    pace: dict[str, float] = field(default_factory=dict)
    failed: dict[str, Problem] = field(default_factory=dict)  # those that were stopped too
    stopped: dict[str, Stop] = field(default_factory=dict)

    def ended(self, source: Source, outcome: Outcome, share: float = 1.0) -> bool:
        """Notes a job of a source, and what became of it where it did not do all.

        share: of the job's time, less what its process took to start, which the first source is not to be charged.
        """
        name = source.identity
        took = outcome.seconds - float(outcome.value.get("started", 0.0))
        self.seconds[name] = self.seconds.get(name, 0.0) + share * took
        if not outcome.ok:
            self.failed[name] = _problem(outcome, source)
            if outcome.error is None and outcome.stopped is not None:
                self.stopped[name] = outcome.stopped
        return outcome.ok

    def noted(self, one: Ranked) -> Ranked:
        """With what is noted of it."""
        name = one.source.identity
        return replace(
            one,
            seconds=self.seconds.get(name, 0.0),
            rows=one.rows or (self.rows.get(name, 0) if name in self.stopped else 0),
            loss=self.losses.get(name),
            pace=self.pace.get(name),
            error=self.failed.get(name),
            stopped=self.stopped.get(name),
        )

    def standing(self, one: Ranked) -> tuple[float, float]:
        """Sorts those that were stopped: by the loss of their last rung, then, where no rung was run, by a proxy."""
        loss = self.losses.get(one.source.identity)
        proxy = one.proxies.get(RACER, next(iter(one.proxies.values()), float("-inf")))
        return (loss.value if loss else float("inf"), -proxy)


def _losses(
    part: Part,
    sources: Sequence[Source],
    rows: int,
    run: Run,
    course: _Course,
    frozen: int | None,
    lower: dict[str, tuple[str, int]] | None,
) -> dict[str, Array]:
    """Per-row losses of the racing estimator on the first rows of the draw; failures are noted and left out.

    frozen: so many of them fit the heads, for all rungs, and only the rows after them have losses. lower: by trunk,
    the arithmetic that was found fastest and the rows that it was used on, which is noted here; None for float32. All
    rows are always in float32, for what is told of them, and have no losses: models no longer leave.
    """
    import numpy as np

    from headstart.execution.parts import features_job

    share = run.meter.remaining() / 2
    limit = share if share < float("inf") else None
    together = _by_trunk(sources)
    last = rows == len(part.target.labelled)
    may = None if last else lower
    asked = {trunk: "float32" if may is None else may.get(trunk, ("fastest", 0))[0] for trunk in together}
    jobs = [
        features_job(part, taps, 0, part.drawn(rows), dtype=asked[trunk], racer=RACER, limit_seconds=limit)
        for trunk, taps in together.items()
    ]
    alive: list[Source] = []
    for (trunk, taps), outcome in zip(together.items(), run.do(jobs, "features"), strict=True):
        if outcome.ok and may is not None:
            asked[trunk] = outcome.value["dtype"]
            may[trunk] = asked[trunk], rows
        ended = [tap for tap in taps if course.ended(tap, outcome, 1 / len(taps))]
        course.rows |= dict.fromkeys((tap.identity for tap in ended), rows)
        if outcome.ok and outcome.value["pace"] is not None:
            course.pace |= dict.fromkeys((tap.identity for tap in ended), outcome.value["pace"])
        alive += ended
    if last or (frozen is not None and rows <= frozen):
        return {s.identity: np.full(rows, np.nan) for s in alive}
    return _judged(part, alive, rows, run, course, frozen, asked)


def _judged(
    part: Part,
    sources: Sequence[Source],
    rows: int,
    run: Run,
    course: _Course,
    frozen: int | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> dict[str, Array]:
    """Per-row losses of sources whose features are at hand. dtypes: of these, by trunk; all float32 without."""
    import numpy as np

    from headstart.execution.parts import score_job

    racer = [catalogue.make(ESTIMATORS, RACER)]
    upto = part.drawn(rows)
    jobs = [score_job(part, s, upto, racer, frozen, dtype=(dtypes or {}).get(trunk_of(s), "float32")) for s in sources]
    losses: dict[str, Array] = {}
    for source, outcome in zip(sources, run.do(jobs, "rank"), strict=True):
        if not course.ended(source, outcome):
            continue
        if RACER in outcome.value["failed"]:
            course.failed[source.identity] = problem_from(outcome.value["failed"][RACER])
            continue
        one = np.load(outcome.files / f"losses-{RACER}.npy", allow_pickle=False)
        losses[source.identity] = one
        if (mean := _mean_loss(part, one, upto)) is not None:
            course.losses[source.identity] = mean
    return losses


def _behind_their_own(part: Part, sources: Sequence[Source], run: Run, course: _Course) -> dict[str, str]:
    """Who leaves on all rows, with the reason: layers and poolings that are behind another of the same model."""
    from headstart.numerics.race import leavers

    together = _by_trunk([source for source in sources if source.identity not in course.failed])
    several = [source for taps in together.values() if len(taps) > 1 for source in taps]
    losses = _judged(part, several, len(part.target.labelled), run, course)
    gone: dict[str, str] = {}
    for taps in together.values():
        gone |= leavers({s.identity: losses[s.identity] for s in taps if s.identity in losses}, slack=0.0)
    return gone


def _mean_loss(part: Part, losses: Array, upto: int) -> Measured | None:
    """A row's loss with its interval over groups of rows; None for one group."""
    import numpy as np

    from headstart.numerics.chunks import grouped_error

    of = dict(zip(part.target.labelled.ids, part.target.labelled.groups, strict=True))
    groups = np.array([of[name] for name in part.root_ids[:upto] if name in of])
    seen = np.isfinite(losses)
    error = grouped_error(losses[seen], groups[seen])
    if error is None:
        return None
    mean = float(losses[seen].mean())
    return Measured(mean, max(mean - NORMAL * error, 0.0), mean + NORMAL * error, int(seen.sum()))


def readers(target: Target) -> str:
    """What to do where no source reads rows like the target's."""
    if target.modality == "table":
        return "use `headstart solve`, which finds the best system without a source: none reads tables so far"
    return f"add sources that read {target.modality}s with `headstart inventory add FOLDER`"


def trunk_of(source: Source) -> str:
    """Identity of the source whose layer or pooling this is, or its own."""
    tap = source.facts.get("tap")
    return str(tap["of"]) if tap else source.identity


def _by_trunk(sources: Sequence[Source]) -> dict[str, list[Source]]:
    """Layers and poolings beside each other, in order."""
    together: dict[str, list[Source]] = {}
    for source in sources:
        together.setdefault(trunk_of(source), []).append(source)
    return together


def _score(
    part: Part,
    sources: Sequence[Source],
    estimators: Sequence[Ranking],
    run: Run,
    course: _Course,
    *,
    errors: bool,
) -> list[Ranked]:
    """Estimators and the cross-validated probe of those that ran to the end; what there is of those stopped here."""
    from headstart.execution.parts import fit_job, probe_of, score_job, tried

    target, rows = part.target, len(part.target.labelled)
    jobs = [score_job(part, s, part.root_rows, estimators, errors=errors) for s in sources] if estimators else []
    proxies = run.do(jobs, "rank")
    probes = run.do([fit_job(part, probe_of(s), target.folds.cells()) for s in sources], "rank")
    ranked = []
    for at, (source, outcome) in enumerate(zip(sources, probes, strict=True)):
        values: dict[str, float] = {}
        off: dict[str, float] = {}
        refused: dict[str, Problem] = {}
        if proxies and "scores" in proxies[at].value:
            course.seconds[source.identity] += proxies[at].seconds
            values = {n: float(v) for n, v in proxies[at].value["scores"].items()}
            off = {n: float(v) for n, v in proxies[at].value["errors"].items()}
            refused = {n: problem_from(p) for n, p in proxies[at].value["failed"].items()}
        if course.ended(source, outcome):
            probe = tried(part, probe_of(source), [outcome])
            score = _measured(target, probe)
            ranked.append(Ranked(source, score, values, off, refused, rows=rows, probe=probe))
        elif source.identity in course.stopped:
            ranked.append(Ranked(source, proxies=values, errors=off, refused=refused, rows=rows))
    return ranked


def _measured(target: Target, probe: Tried) -> Measured:
    from headstart.execution.parts import measured_out_of_fold

    return measured_out_of_fold(target, probe)


def _problem(outcome: Outcome, source: Source) -> Problem:
    fix = "give more minutes or memory, or a smaller source"
    return outcome.problem("it was ranked", f"source `{source.name}`", fix)


def _fitting(estimators: Sequence[str | Ranking], target: Target) -> list[Ranking]:
    """Those that cover this task; asked for by name and unable to is `Refused`."""
    kept: list[Ranking] = []
    for estimator in estimators:
        made: Ranking = catalogue.make(ESTIMATORS, estimator)
        if reason := catalogue.refusal(made.needs, (), target):
            if tuple(estimators) != PROXIES:
                raise Refused(f"`{estimator}` {reason}", where="ranking", fix="see `headstart methods ranking`")
            continue
        kept.append(made)
    return kept


def _named(reason: str, sources: Sequence[Source]) -> str:
    for identity, name in called(sources).items():
        reason = reason.replace(identity, name)
    return reason
