"""The merge that does best on validation rows, chosen within a budget and beside the baselines that cost nothing.

Rows of every task have three sides: `learn` for merges that read rows, `choose` for the choice, and `verify` for the
figures at the end, which no choice has seen: the sealed test where the target has one, else a fold of its own.

The choice is successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", 2016): all entrants on some rows, the better half on twice as many, until few are left on all. Within a
budget the stages take turns on the first rung, from data-free to learned, and one is tried only where what it is
expected to take leaves the time for all later rungs: without these it could not be chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, inf
from typing import Any

import numpy as np
import torch

from headstart import catalogue
from headstart.core import METRICS, Budget, Learned, Problem, Refused, Steps, Target
from headstart.execution.meter import Meter
from headstart.numerics.artifacts import linked
from headstart.numerics.bootstrap import interval, resampled
from headstart.numerics.learning import draws, entropy, gradient
from headstart.numerics.metrics import value
from headstart.numerics.stream import Stopped

from .entrants import Entrant, entrants
from .heads import numbered
from .interference import measured
from .learned import settled, told_by
from .live import LiveMerge, TaskRows, alive, task_rows
from .plans import Plan, renamed
from .turns import FINALISTS, Pace, Turns, kept

Array = np.ndarray[Any, Any]
Tables = tuple[Array, ...]  # of each task, (rows, outputs) predictions
LEAST_ROWS = 8  # of a task to choose by; fewer say nothing
FIRST_ROWS = 64  # of a task, with which the halving begins
STEPS = 100  # the most that a merge learns for; published numbers of steps are for one merge, not for a choice of many
LEAST_STEPS = 10  # for which the time must suffice; a merge that learns for fewer is hardly another one
OWN, TOGETHER = "each task by its own model", "ensemble of models with a task's labels"
SAVE_SECONDS = 3.0  # for the page and the account
RESERVE = 1.5  # how much longer than measured the end may take


@dataclass(frozen=True)
class Sides:
    """Rows of one task by what they are for. kept: labelled rows to verify by, where no test is sealed."""

    learn: TaskRows
    choose: TaskRows
    target: Target
    kept: tuple[int, ...]

    @property
    def verify(self) -> int:
        """How many rows there are to verify by."""
        return len(self.kept) or len(self.target.seal)

    def opened(self, task: TaskRows) -> Opened:
        """Those rows; a seal is broken here."""
        found = self.target.labelled.take(self.kept) if self.kept else self.target.seal.open()
        return Opened(dataclasses.replace(task, inputs=found.inputs, labels=found.labels), found.groups)


@dataclass(frozen=True)
class Opened:
    """Rows to verify by, and their groups."""

    rows: TaskRows
    groups: tuple[str, ...]


@dataclass
class Tried:
    """One entrant and how far it came. scores: on more and more rows. left: why it went no further."""

    name: str
    stage: str
    plan: Plan | None = None
    method: Any = None
    tables: list[list[Array]] = field(default_factory=list)  # of each task, of the rows so far
    scores: list[float] = field(default_factory=list)
    spread: list[float] = field(default_factory=list)  # scores with other seeds
    seconds: float = 0.0
    merging: float = 0.0  # seconds, of its weights
    left: str = ""

    @property
    def score(self) -> float:
        """With the seeds that were tried."""
        return float(np.mean([self.scores[-1], *self.spread]))


@dataclass(frozen=True)
class Chosen:
    """plan: of the best merge. facts: what was tried, and the figures on rows that no choice has seen, as JSON."""

    plan: Plan
    facts: Mapping[str, Any]


Tell = Callable[[str, str, str], None]  # what is going on, with whom, and which is the best so far


def choose(
    plan: Plan, targets: Mapping[int, Target] | Target, *, methods: Sequence[str] | None = None,
    budget: Budget | None = None, started: float | None = None, seeds: int = 3, steps: int = STEPS,
    tell: Tell = lambda *_: None,
) -> Chosen:  # fmt: skip
    """The best of the merges that fit the models of a plan.

    targets: one for all models, or one for each by its number in the plan. methods: names of those that may take part;
    None is all. started: `time.monotonic()` when the clock of the budget began. seeds: with how many a
    finalist that draws is made. steps: the most that a merge learns for.

    Raises `Refused` where there are too few rows to choose by.
    """
    meter = Meter(budget or Budget(), started=started)
    sides = _all_sides(plan, targets)
    contest = _Contest(plan, sides, meter, seeds, steps, tell)
    with alive(plan, [s.choose for s in sides], labels=True) as view:
        return contest.held(view, *entrants(plan, methods, labels=True))


@dataclass(frozen=True)
class Foreseen:
    """What a choice would do. entrants: in the order in which they are tried. tasks: as in the facts of a choice."""

    entrants: Sequence[Entrant]
    refused: Sequence[Mapping[str, str]]
    tasks: Sequence[Mapping[str, Any]]


def foresee(plan: Plan, targets: Mapping[int, Target] | Target, *, methods: Sequence[str] | None = None) -> Foreseen:
    """Who would take part, and on how many rows; nothing is learned, and no seal is broken.

    Raises `Refused` where there are too few rows to choose by.
    """
    sides = _all_sides(plan, targets)
    return Foreseen(*entrants(plan, methods, labels=True), [_counted(s, plan) for s in sides])


def _all_sides(plan: Plan, targets: Mapping[int, Target] | Target) -> list[Sides]:
    named = list(targets.items()) if isinstance(targets, Mapping) else [(None, targets)]
    return [_sides(target, plan, own) for own, target in named]


def _sides(target: Target, plan: Plan, own: int | None) -> Sides:
    """A fifth to verify by, where no test is sealed; of the rest half to learn from and half to choose by."""
    task, of = task_rows(target, plan, own), np.array(target.folds.of[0])
    last = len(target.seal) == 0
    if target.folds.kind == "split":
        parts = [np.flatnonzero(of != 0), np.flatnonzero(of == 0)]
        verify = parts[1][: len(parts[1]) // 2] if last else parts[1][:0]
        parts[1] = parts[1][len(verify) :]
    else:
        verify = np.flatnonzero(of == 0) if last else np.arange(0)
        rest = np.setdiff1d(np.arange(len(of)), verify)
        chosen = np.isin(of[rest], (1, 2) if last else (0, 1, 2))
        parts = [rest[~chosen], rest[chosen]]
    if min(len(parts[0]), len(parts[1]), len(verify) if last else LEAST_ROWS) < LEAST_ROWS:
        raise Refused(
            f"`{target.name}` has {len(of)} labelled rows, too few to learn from, to choose by and to verify with",
            where=f"target `{target.name}`",
            fix=f"label {6 * LEAST_ROWS} rows or more, or merge with a method that reads none",
        )
    mixed = np.random.default_rng(target.seed).permutation(parts[1])  # the first of them are a fair sample
    learn = task.take(parts[0].tolist())
    return Sides(learn, task.take(mixed.tolist()), target, tuple(int(i) for i in verify))


class _Contest:
    """Entrants on rungs of rows, the finalists with other seeds, and the best on rows that nobody has seen."""

    def __init__(self, plan: Plan, sides: Sequence[Sides], meter: Meter, seeds: int, steps: int, tell: Tell) -> None:
        self.plan, self.sides, self.meter, self.seeds, self.steps, self.tell = plan, sides, meter, seeds, steps, tell
        self._singles: list[float] = []  # of each task, the score of its own model
        self._pace = Pace()
        self._baselines: list[Tried] = []
        self._best = (-inf, "")  # score and name, on the rows of this rung
        self._step: dict[tuple[bool, int], float] = {}  # seconds, by whether it has gradients and by rows

    def held(self, view: LiveMerge, found: Sequence[Entrant], refused: Sequence[Mapping[str, str]]) -> Chosen:
        self._baselines = baselines = self._alone(view)
        if self.plan.apart:
            self._singles = [self._on_task(baselines[s.choose.own or 0], t) for t, s in enumerate(self.sides)]
        for one in baselines:
            one.scores = [self._score(one)]
        self.meter.keep(self._end(self._pace.merging("baseline")))
        tried = self._tried(view, found)
        finalists = self._halved(view, tried)
        self._reseeded(view, finalists)
        best = max([*baselines, *finalists], key=lambda t: t.score)  # of equals the first: what costs nothing
        opponent = max(baselines, key=lambda t: t.score)
        self.meter.keep(0)
        self._say("verify", best.name)
        assert best.plan is not None  # it has a score
        trusted = self._trusted() if self.plan.apart else ""
        facts = {
            "metric": self.sides[0].choose.metric,
            "tasks": [_counted(s, self.plan) for s in self.sides],
            "seconds": round(self.meter.session(), 1),
            "winner": best.name,
            "opponent": opponent.name,
            "candidates": [_told(t) for t in sorted(tried, key=_standing)],
            "baselines": [_told(t) for t in baselines],
            "refused": list(refused),
            "trusted": trusted,
            **self._verified(view, best, opponent, baselines),
        }
        warnings = (*best.plan.warnings, *([trusted] if trusted else []))
        learned = {**best.plan.learned, "choice": facts}
        return Chosen(dataclasses.replace(best.plan, learned=learned, warnings=warnings), facts)

    def _say(self, what: str, who: str) -> None:
        score, name = self._best
        self.tell(what, who, f"{name} {score:.3f}" if name else "")

    def _begin(self, rows: int) -> None:
        """A rung begins; on its rows the best so far is a baseline."""
        self._best = (-inf, "")
        for one in self._baselines:
            self._compare(one.name, self._score(one, rows))

    def _compare(self, name: str, score: float) -> None:
        if score > self._best[0]:
            self._best = score, name

    def _alone(self, view: LiveMerge) -> list[Tried]:
        """Each model alone, and the mean of all; on all rows."""
        count = len(view.models)
        shares = [*np.eye(count), np.full(count, 1 / count)]
        out = []
        for name, share in zip([*view.models, "mean of all"], shares, strict=True):
            self._say("baselines", name)
            alone = Learned(np.tile(share, (len(view.tensors), 1)))
            plan = dataclasses.replace(renamed(settled(self.plan, view, alone), "linear", {}), learned={})
            one = Tried(name, "baseline", plan, tables=[[] for _ in self.sides])
            self._seen(view, one, inf)
            self._pace.merged(one.merging, "baseline")
            out.append(one)
        return out

    def _end(self, best: float) -> float:
        """Seconds that the figures, the page and writing may take. best: of merging what comes out best, at most."""
        count = len(self.plan.models)
        meet = bool(self.plan.apart) and any(self._columns(s, m) for s in self.sides for m in range(count))
        alone = count * (2 if meet else 1) + 1
        a_pass = self._pace.reading(sum(s.verify for s in self.sides))
        return SAVE_SECONDS + RESERVE * (alone * (self._pace.merging("baseline") + a_pass) + 2 * best + a_pass)

    def _tried(self, view: LiveMerge, found: Sequence[Entrant]) -> list[Tried]:
        """All entrants made and scored on the first rung; those for which the budget has no room say so."""
        out = {e.name: Tried(e.name, e.stage, tables=[[] for _ in self.sides]) for e in found}
        timed, counted = self.meter.remaining() < inf, self.meter.trials_left < inf
        turns = Turns(found)
        self._begin(self._rungs[0])
        while (entrant := turns.next()) is not None:
            one = out[entrant.name]
            standing = [t for t in out.values() if t.scores and not t.left]
            writing = max([self._pace.merging_of(entrant), *(t.merging for t in standing)])
            self.meter.keep(self._end(writing))
            trying, later = self._expected(entrant, standing)
            left = self.meter.left()
            if not left:
                one.left = "was not tried: the time was up"
                continue
            if trying + later > left:
                one.left = (
                    f"was not tried: it and the rungs of rows that follow would take about {trying + later:.1f} s, and "
                    f"{left:.1f} s were left"
                )
                continue
            if not self.meter.start_trial(f"{entrant.kind} {entrant.name}"):
                one.left = "was not tried: no more trials were allowed"
                continue
            self._say(entrant.stage, entrant.name)
            began = self.meter.session()
            try:
                one.method = catalogue.make(entrant.kind, entrant.method, **entrant.settings)
                share = turns.share(entrant.stage, left - trying - later)
                one.plan = self._plan(view, entrant, one.method, share)
                self._pace.made(self.meter.session() - began, entrant)
                self._seen(view, one, self._rungs[0], self._longest(writing, later))
                self._pace.merged(one.merging, entrant.method, entrant.kind)
            except Stopped:
                self._pace.merged(one.merging, entrant.method)  # at least
                one.left = (
                    f"merging it was stopped after {one.merging:.1f} s: there would have been no time to write it"
                )
            except Problem as problem:
                one.left = problem.what
            else:
                one.scores.append(self._score(one))
                self._compare(one.name, one.scores[-1])
                one.seconds = self.meter.session() - began
                self.meter.keep(self._end(one.merging))
                if not self.meter.left():
                    one.left = f"merging it takes {one.merging:.1f} s, too long to write it in the time that was left"
            if timed or counted:
                turns.spend(entrant.stage, self.meter.session() - began if timed else 1)
        merging = [t.merging for t in out.values() if t.scores and not t.left]
        self.meter.keep(self._end(max([self._pace.merging("baseline"), *merging])))
        return list(out.values())

    def _longest(self, writing: float, later: float) -> float:
        """Seconds of merging, beyond which an entrant could not be written any more after the later rungs.

        writing: seconds of merging for which the end has its time already.
        """
        return (self.meter.remaining() - later + 2 * RESERVE * writing) / (1 + 2 * RESERVE)

    def _expected(self, entrant: Entrant, standing: Sequence[Tried]) -> tuple[float, float]:
        """Seconds of an entrant on the first rung, and of all later rungs when it has joined those who stand there."""
        rows = [self._rows(r) for r in self._rungs]
        merging = [t.merging for t in standing if not self._through(t)]
        if self._pace.going_on(entrant, rows):
            merging.append(self._pace.merging_of(entrant))
        later = self._pace.rungs(rows, sorted(merging, reverse=True), kept(len(standing) + 1))
        return self._pace.trying(entrant, rows), later

    def _through(self, one: Tried) -> bool:
        """Whether it has read the rows of all rungs."""
        return len(one.tables[0]) == len(self._rungs)

    def _plan(self, view: LiveMerge, entrant: Entrant, method: Any, seconds: float | None = None) -> Plan:
        """seconds: for which it may learn; None is a third of what is left."""
        plan = renamed(self.plan, entrant.method, catalogue.settings(method))
        learn = view.on([s.learn for s in self.sides], labels=method.needs.labels)
        steps = entrant.stage not in ("data-free", "passes")
        horizon = self._horizon(learn, method, entrant.stage, seconds) if steps else None
        return told_by(plan, method, learn, Steps(horizon=horizon))

    def _horizon(self, view: LiveMerge, method: Any, stage: str, seconds: float | None = None) -> int | None:
        """The fewest of the method's own steps, of `steps`, and of what the seconds allow: a third of the time left.

        None for the method's own number. Merges that train are bound by the time alone. Raises `Refused` where the time
        is for next to no steps.
        """
        trains = stage == "trained"
        own = None if trains else getattr(method, "steps", getattr(method, "trials", None))
        timed = self._steps_in_time(view, method, self.meter.remaining() / 3 if seconds is None else seconds)
        limits = [n for n in (None if trains else self.steps, own) if n is not None]
        least = LEAST_STEPS if "gradients" in method.needs.gives else 1
        if timed is not None and timed < min([least, *limits]):
            raise Refused(
                f"was not tried: the time that was left for it is for {timed} steps of learning",
                where=f"`{type(method).__name__}`",
                fix="give more --minutes, or name fewer methods with --methods",
            )
        known = min([*limits, *([] if timed is None else [timed])], default=None)
        return None if known == own else known

    def _steps_in_time(self, view: LiveMerge, method: Any, seconds: float) -> int | None:
        """How many steps fit into so many seconds, by one of them; None without a limit."""
        if seconds == inf:
            return None
        key = "gradients" in method.needs.gives, getattr(method, "batch", 16)
        if key not in self._step:
            began = self.meter.session()
            weights = view.shared(np.zeros((len(view.tensors), len(view.models))))
            if key[0]:
                batch = [next(draws(view.rows(t), key[1], 0)) for t in range(len(view.tasks))]
                gradient(view, weights, batch, lambda t, x: entropy(x, view.link(t)) if x.shape[1] > 1 else x.mean())
            else:
                with torch.no_grad():
                    for task in range(len(view.tasks)):
                        view.logits(weights, task, range(view.rows(task)))
            self._step[key] = max(1e-3, self.meter.session() - began)
        return int(seconds / self._step[key])

    @property
    def _rungs(self) -> list[int]:
        """Rows of a task: the first, twice as many, and so on; the last is all of the largest task."""
        most = max(s.choose.inputs.num_rows for s in self.sides)
        found = [most]
        while found[0] > FIRST_ROWS:
            found.insert(0, ceil(found[0] / 2))
        return found

    def _rows(self, rung: float) -> int:
        """Of all tasks together, on that rung."""
        return sum(int(min(rung, s.choose.inputs.num_rows)) for s in self.sides)

    def _halved(self, view: LiveMerge, tried: Sequence[Tried]) -> list[Tried]:
        left = sorted((t for t in tried if t.scores and not t.left), key=lambda t: -t.scores[-1])
        for at, (rows, more) in enumerate(pairwise(self._rungs)):
            for one in left[kept(len(left)) :]:
                one.left = f"behind on {rows} rows of a task"
            left = left[: kept(len(left))]
            for one in left[self._fitting([self._rows(r) for r in self._rungs[at:]], left) :]:
                one.left = f"behind on {rows} rows of a task, and the time was for fewer on {more}"
            self._begin(more)
            for one in left:
                if one.left:
                    continue
                if not self._through(one) and not self.meter.left():
                    one.left = "the time was up"
                    continue
                self._say(f"on {more} rows of a task", one.name)
                began = self.meter.session()
                self._seen(view, one, more)
                one.scores.append(self._score(one))
                self._compare(one.name, one.scores[-1])
                one.seconds += self.meter.session() - began
            left = sorted((t for t in left if not t.left), key=lambda t: -t.scores[-1])
        for one in left[FINALISTS:]:
            one.left = f"behind on {self._rungs[-1]} rows of a task"
        return left[:FINALISTS]

    def _fitting(self, rows: Sequence[int], left: Sequence[Tried]) -> int:
        """How many of those that go on can go through all rungs that follow in the time that is left; one may try."""
        time = self.meter.left()

        def fits(count: int) -> bool:
            return self._pace.rungs(rows, [t.merging for t in left[:count] if not self._through(t)], count) <= time

        return next((n for n in range(len(left), 1, -1) if fits(n)), 1)

    def _reseeded(self, view: LiveMerge, finalists: Sequence[Tried]) -> None:
        """Those that draw are made again with other seeds, so that a lucky draw is seen to be one."""
        for one in finalists:
            assert one.plan is not None  # finalists have scores
            if not _draws(one):
                continue
            for seed in range(1, self.seeds):
                if one.merging + self._pace.reading(self._rows(self._rungs[-1])) >= self.meter.left():
                    return
                self._say("other seeds", one.name)
                again = Tried(one.name, one.stage, tables=[[] for _ in self.sides])
                if one.stage in ("learned", "trained"):
                    learn = view.on([s.learn for s in self.sides], labels=one.method.needs.labels)
                    method = dataclasses.replace(one.method, seed=seed)
                    try:
                        horizon = Steps(horizon=self._horizon(learn, method, one.stage))
                    except Refused:  # the time is for no more
                        return
                    again.plan = told_by(self.plan, method, learn, horizon)
                else:
                    again.plan = dataclasses.replace(one.plan, seed=self.plan.seed + seed)
                self._seen(view, again, inf)
                one.spread.append(self._score(again))

    def _weights(self, view: LiveMerge, plan: Plan, longest: float = inf) -> dict[str, torch.Tensor]:
        """Raises `Stopped` after so many seconds."""
        names, last = set(view.tensors), self.meter.session() + longest
        made = [m for m in plan.made if m.name in names]
        return view.merged(made, plan.seed, lambda: self.meter.session() <= last)

    def _seen(self, view: LiveMerge, one: Tried, rows: float, longest: float = inf) -> None:
        """Its predictions on the first rows of each task that it has not seen yet, each rung's by themselves.

        Where merging again would take longer than all rows that follow, it reads these too, for the rungs to come.
        Raises `Stopped` where merging takes more than so many seconds.
        """
        assert one.plan is not None  # made before
        if len(one.tables[0]) > len(one.scores):
            return
        began = self.meter.session()
        try:
            weights = self._weights(view, one.plan, longest)
        finally:
            one.merging = self.meter.session() - began
        rungs = [r for r in self._rungs if r > rows]
        ahead = self._pace.at_once(one.merging, [self._rows(r) for r in (rows, *rungs)]) if rungs else False
        for rung in (rows, *(rungs if ahead else [])):
            began, before = self.meter.session(), sum(len(p) for parts in one.tables for p in parts)
            for task, parts in enumerate(one.tables):
                begin = sum(len(p) for p in parts)
                parts.append(_predicted(view, weights, task, range(begin, int(min(rung, view.rows(task))))))
            after = sum(len(p) for parts in one.tables for p in parts)
            self._pace.read(after - before, self.meter.session() - began)

    def _score(self, one: Tried, rows: float = inf) -> float:
        """Mean over the tasks of its metric, higher is better; where each task has a model of its own, over that's.

        rows: the most, of those that it has read.
        """
        found = [self._on_task(one, t, rows) for t in range(len(self.sides))]
        if self._singles and all(s > 0 for s in self._singles):
            found = [f / s for f, s in zip(found, self._singles, strict=True)]
        return float(np.mean(found))

    def _on_task(self, one: Tried, task: int, rows: float = inf) -> float:
        side = self.sides[task].choose
        table = np.concatenate(one.tables[task][: len(one.scores) + 1])  # of the rows on which no score stands yet
        table = table[: int(min(rows, len(table)))]
        assert side.labels is not None  # the rows of a target are labelled
        return METRICS[side.metric].sign * value(side.metric, side.labels[: len(table)], table)

    def _verified(self, view: LiveMerge, best: Tried, opponent: Tried, baselines: Sequence[Tried]) -> dict[str, Any]:
        """Figures of the best, of the baselines and of what keeps several models, on rows that no choice has seen."""
        opened = [s.opened(s.choose) for s in self.sides]
        unseen = view.on([o.rows for o in opened], labels=True)
        tables: dict[str, Tables] = {}
        costs: dict[str, tuple[int, int]] = {}  # models kept, and passes for a row, where not one
        for one in [*baselines, *([] if best in baselines else [best])]:
            assert one.plan is not None  # it has a score
            weights = self._weights(view, one.plan)
            tables[one.name] = tuple(
                _predicted(unseen, weights, t, range(unseen.rows(t))) for t in range(len(self.sides))
            )
            if one is best:
                clashes = measured(view, weights)
        if not self.plan.apart:  # heads of one label space
            alone = [tables[name] for name in view.models]
            tables["ensemble of all"] = tuple(np.mean([a[t] for a in alone], axis=0) for t in range(len(self.sides)))
            costs["ensemble of all"] = len(alone), len(alone)
        elif len(self.sides) > 1:
            kept = len({s.choose.own for s in self.sides})
            own = tuple(tables[view.models[s.choose.own or 0]][t] for t, s in enumerate(self.sides))
            tables[OWN], costs[OWN] = own, (kept, 1)
            together = self._together(view, opened, own, baselines)
            if any(len(alone) > 1 for alone in together):
                tables[TOGETHER] = tuple(np.mean(alone, axis=0) for alone in together)
                costs[TOGETHER] = len(self.plan.models), max(map(len, together))
        spread = {name: _resampled(opened, parts) for name, parts in tables.items()}
        single = None
        if self.plan.apart:  # every task has a model of its own
            names = [self.plan.models[s.choose.own or 0].name for s in self.sides]
            single = tuple(np.array([spread[name][k][t] for t, name in enumerate(names)]) for k in (0, 1))
        systems = [self._system(name, *spread[name], single, *costs.get(name, (1, 1))) for name in tables]
        gain = None
        verdict = "no-evidence"
        if best is not opponent:
            each, drawn = (a - b for a, b in zip(spread[best.name], spread[opponent.name], strict=True))
            low, high = interval(drawn.mean(axis=0))
            gain = {"value": float(each.mean()), "low": low, "high": high}
            verdict = "helps" if low > 0 else "hurts" if high < 0 else "no-evidence"
        return {"systems": systems, "gain": gain, "verdict": verdict, "interference": clashes}

    def _together(
        self, view: LiveMerge, opened: Sequence[Opened], own: Tables, baselines: Sequence[Tried]
    ) -> list[list[Array]]:
        """Of each task, predictions of its own model, and of every other that has its labels, under that one's head."""
        out = [[table] for table in own]
        for number in range(len(self.plan.models)):
            meeting = [(t, columns) for t, s in enumerate(self.sides) if (columns := self._columns(s, number))]
            if not meeting:
                continue
            plan = baselines[number].plan
            assert plan is not None  # baselines have scores
            weights = self._weights(view, plan)
            for task, columns in meeting:
                rows = dataclasses.replace(opened[task].rows, own=number, columns=columns)
                out[task].append(_predicted(view.on([rows], labels=True), weights, 0, range(rows.inputs.num_rows)))
        return out

    def _columns(self, side: Sides, model: int) -> tuple[int, ...]:
        """Which outputs of another task's model are this task's classes; none where it has not all of them.

        Classes that are numbers are the same only where the other model has the same rows: 0 and 1 are of any task.
        """
        if model == side.choose.own or (numbered(side.target.task.classes) and not self._same(side, model)):
            return ()
        try:
            return task_rows(side.target, self.plan, model).columns
        except Refused:
            return ()

    def _same(self, side: Sides, model: int) -> bool:
        """Whether another model was given the same rows and labels as this task's own."""
        return any(s.choose.own == model and s.target.fingerprint == side.target.fingerprint for s in self.sides)

    def _trusted(self) -> str:
        """What is believed of models that answer for each other's tasks, by the names of their labels alone."""
        for side in self.sides:
            for model, one in enumerate(self.plan.models):
                if self._columns(side, model) and not self._same(side, model):
                    own = self.plan.models[side.choose.own or 0].name
                    some = ", ".join(f"`{c}`" for c in side.target.task.classes[:3])
                    return f"that {some} mean the same for `{own}` and `{one.name}` is taken on trust by the ensemble"
        return ""

    def _system(
        self, name: str, values: Array, drawn: Array, single: Tables | None, models: int, passes: int
    ) -> dict[str, Any]:
        """single: values and draws of each task's own model."""
        tasks = []
        for side, own, draw in zip(self.sides, values, drawn, strict=True):
            sign, (low, high) = METRICS[side.choose.metric].sign, interval(draw)
            low, high = sorted((sign * low, sign * high))
            tasks.append({"task": side.choose.name, "value": sign * float(own), "low": low, "high": high})
        low, high = interval(drawn.mean(axis=0))
        out: dict[str, Any] = {
            "name": name, "tasks": tasks, "mean": float(values.mean()), "low": low, "high": high,
            "models": models, "passes": passes,
        }  # fmt: skip
        if single is not None and single[0].min() > 0:
            out["normalised"] = float(np.mean(values / single[0]))
            # in the same draws; those in which an own model has nothing right tell no share
            some = (single[1] > 0).all(axis=0)
            out["normalised_low"], out["normalised_high"] = interval((drawn[:, some] / single[1][:, some]).mean(axis=0))
        return out


def _counted(side: Sides, plan: Plan) -> dict[str, Any]:
    own = None if side.choose.own is None else plan.models[side.choose.own].name
    rows = {"learn": side.learn.inputs.num_rows, "choose": side.choose.inputs.num_rows, "verify": side.verify}
    return {"task": side.choose.name, "model": own, **rows}


def _predicted(view: LiveMerge, weights: Mapping[str, torch.Tensor], task: int, rows: Sequence[int]) -> Array:
    if not rows:
        return np.zeros((0, max(1, len(view.columns(task)))))
    with torch.no_grad():
        return linked(view.logits(weights, task, rows).numpy(), view.link(task))


def _resampled(opened: Sequence[Opened], parts: Tables) -> tuple[Array, Array]:
    """(tasks,) values and (tasks, draws) of resampled rows; higher is better. The same rows for every system."""
    values, drawn = [], []
    for number, (one, table) in enumerate(zip(opened, parts, strict=True)):
        metric, labels = one.rows.metric, one.rows.labels
        assert labels is not None  # the rows of a target are labelled
        sign = METRICS[metric].sign
        values.append(sign * value(metric, labels, table))
        drawn.append(sign * resampled(metric, labels, [table], one.groups, seed=number)[0])
    return np.array(values), np.array(drawn)


def _draws(one: Tried) -> bool:
    """Whether another seed gives another merge."""
    if one.stage in ("learned", "trained"):
        return any(f.name == "seed" for f in dataclasses.fields(one.method))
    return "seeds_differ" in getattr(one.method, "claims", ())


def _standing(one: Tried) -> tuple[int, float]:
    return -len(one.scores), -(one.score if one.scores else -inf)


def _told(one: Tried) -> dict[str, Any]:
    return {
        "name": one.name, "stage": one.stage, "scores": [round(s, 6) for s in one.scores],
        "spread": [round(s, 6) for s in one.spread], "seconds": round(one.seconds, 2), "left": one.left,
    }  # fmt: skip
