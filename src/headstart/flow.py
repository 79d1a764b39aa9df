"""The journey, from a target to a verified model and back to the shelf. Read it from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart import adaptation, catalogue, combination
from headstart.adaptation.plans import Plan, planned
from headstart.core import Budget, Problem, Refused, Result, Source, Target, Unfit
from headstart.ranking.racing import race

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from headstart.combination import Combined
    from headstart.combination.merging import Merged
    from headstart.evidence import Verified
    from headstart.execution.parts import Part, System, Tried
    from headstart.execution.run import Run
    from headstart.execution.specs import Outcome
    from headstart.inventory import Inventory
    from headstart.ranking.racing import Ranked

    Array = np.ndarray[Any, Any]

OUTER_FOLDS = 5
# held back for the report, the card and reading the result again, and for a worker that may have to start again: what
# they take on two idle cores, stretched by as much as the first worker took longer to start
SAVE_SECONDS, START_SECONDS = 5.0, 2.5
CHOSEN, NO_TRANSFER, NAIVE = "chosen", "no-transfer", "naive"  # tables of the three that verify compares


@dataclass(frozen=True, eq=False, slots=True)
class Choice:
    """What was chosen on train and validation rows of one part, and against what it will be held."""

    part: Part
    baselines: list[Tried]
    ranked: list[Ranked]
    tuned: list[Tried]
    chosen: Combined | None
    no_transfer: Tried
    naive: Tried | None

    def systems(self) -> list[Tried]:
        """Everything that verify needs predictions of, each once, the chosen members first."""
        members = [t for t, _ in self.chosen.members] if self.chosen else []
        others = [self.no_transfer, *([self.naive] if self.naive else []), *(b for b in self.baselines if b.usable)]
        unique: dict[Any, Tried] = {}
        for trial in [*members, *others]:
            unique.setdefault(trial.system, trial)
        return list(unique.values())


def solve(
    target: Target,
    inventory: Inventory | None = None,
    budget: Budget | None = None,
    *,
    out: str | Path,
    sources: Sequence[Source] | None = None,
    failed: Sequence[tuple[str, Problem]] = (),
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    when_unsure: Literal["no-transfer", "best"] = "no-transfer",
    examples: bool = True,
    executor: Literal["workers", "in_process"] = "workers",
    started: float | None = None,
    show: Literal["auto", "plain", "none"] = "auto",
    hook: Callable[[str], None] | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Result:
    """A verified model for the target, or the finding that nothing on the shelf helps, saved in the folder `out`.

    sources: those to consider, in the order given; without it the inventory's. failed: sources that could not be read,
    for the report. when_unsure: what is returned where transfer is not proven to help. Raises `Refused` before
    anything is spent where the task type cannot go on, or `out` holds a result or a run already.
    """
    from headstart import outcome
    from headstart.execution import begin
    from headstart.io.places import cache_folder

    began = time.monotonic() if started is None else started
    limits = budget or Budget()
    _refuse_task(target)
    outcome.refuse_folder(Path(out), resume=resume, overwrite=overwrite)
    shelf = list(sources) if sources is not None else outcome.banked(inventory, target, Path(out))
    shelf, unfit = _usable(shelf, target)
    inputs = outcome.inputs_of(target, shelf, limits, seed=seed, when_unsure=when_unsure)
    with begin(
        Path(out), limits, inputs=inputs, resume=resume, executor=executor, started=began, show=show, hook=hook
    ) as run:
        run.meter.keep(SAVE_SECONDS if limits.seconds < inf else 0.0)
        known = outcome.bank_snapshot(run, inventory, target, shelf)
        given = [s for s in shelf if s.id not in known.contaminated]
        unfit += [(s.name, known.refusal(s)) for s in shelf if s.id in known.contaminated]
        clean = known.ordered(given)
        from headstart.execution.parts import part_of

        root = part_of(run, target, "root", cache_folder())
        outer = target.protocol == "outer_cv"
        before = _repeated(run)
        choice = choose(root, clean, run, given=given, outer=outer)
        took = _repeated(run) - before
        if not outer:
            run.forecast("refit", _refit_seconds(choice.systems()))
        choices = _outer_choices(choice, clean, run, took, given) if outer else [choice]
        verified = verify(choices, run, known, inventory) if _may_verify(choices, run) else None
        final = finish(choice, choices, verified, run, when_unsure)
        return outcome.save(
            final,
            run,
            out=Path(out),
            target=target,
            inventory=inventory,
            known=known,
            failed=[*failed, *unfit],
            examples=examples,
            budget=limits,
            asked=dict(asked or {}),
            replace_old=overwrite or resume,
        )


def choose(
    part: Part,
    sources: Sequence[Source],
    run: Run,
    *,
    given: Sequence[Source],
    outer: bool,
) -> Choice:
    """Everything that is decided on train and validation rows: the candidate, and the opponents it will meet.

    sources: best prospects first. given: the same in the user's order, whose first is what naive transfer takes.
    outer: whether all of this is done again in outer folds, for which there must be time.
    """
    before = _repeated(run)
    plain = adaptation.no_transfer(part, run)
    if run.meter.budget.seconds < inf and part.folder == part.root:
        run.meter.keep(_held_back(run) + _refit_seconds(plain))
    ranked = race(part, sources, run) if sources else []
    naive = _naive(part, given, ranked, run)
    probes = [r.probe for r in ranked if r.probe is not None]
    able = [r.source for r in ranked if r.score is not None and "gradients" in r.source.gives]
    parts = OUTER_FOLDS * 0.8 + 1 if outer else 1.0  # a fold has four fifths of the rows
    plan = planned(part, able, run, parts=parts, cached=_repeated(run) - before)
    tuned = _tune(part, able, run, plan)
    mixed = combination.soups(part, tuned, run) if not run.interrupted else []
    chosen = combination.combine(part, [*probes, *tuned, *mixed])
    opponent = _best(part, plain)
    if chosen is not None:
        run.progress.best(f"{chosen.name}: {part.target.metric.title} {chosen.score:.3f}")
    return Choice(part, plain, ranked, [*tuned, *mixed], chosen, opponent, naive)


def verify(choices: Sequence[Choice], run: Run, known: Any, inventory: Inventory | None) -> Verdict | None:
    """Open each part's seal once, predict its rows with systems refitted on all its labelled rows, and judge."""
    import numpy as np

    from headstart.evidence import verify as judge
    from headstart.execution.parts import dump_rows
    from headstart.numerics.bootstrap import outer_factor

    run.progress.stage("verify", len(choices))
    rows = [len(c.part.target.seal) for c in choices]
    run.note("seal opened", rows=sum(rows), test=known.test)
    if inventory is not None:
        inventory.count_opening(known.test, known.run)
    opened = [c.part.target.seal.open() for c in choices]
    refits = []
    for choice, test in zip(choices, opened, strict=True):
        folder = dump_rows(run, test, f"test-{choice.part.folder.rpartition('/')[2]}")
        refits.append(refitted(choice, choice.systems(), run, test=folder))
    stands = [_standing(c, done) for c, done in zip(choices, refits, strict=True)]
    if None in stands or any(o.stopped == "interrupt" for done in refits for o in done.values()):
        return None  # a later session finishes what was stopped
    opponents = [t for t in stands if t is not None]
    tables = _tables(choices, opponents, refits)
    labels = np.concatenate([t.labels for t in opened if t.labels is not None])
    groups = [g for t in opened for g in t.groups]
    ids = [i for t in opened for i in t.ids]
    content = [c for t in opened for c in t.content]
    keep = np.array([c not in known.left_out for c in content])
    if not keep.any():
        return None
    pooled = {name: np.concatenate(some)[keep] for name, some in tables.items()}
    plain = _said([t.system.name for t in opponents], "the best no-transfer system of each fold")
    naive = _said([c.naive.system.name for c in choices if c.naive], "the naive transfer of each fold")
    verified = judge(
        pooled.get(CHOSEN),
        (plain, pooled[NO_TRANSFER]),
        (naive, pooled[NAIVE]) if NAIVE in pooled else None,
        labels[keep],
        [g for g, k in zip(groups, keep, strict=True) if k],
        choices[0].part.target.metric.name,
        factor=outer_factor(OUTER_FOLDS) if len(choices) > 1 else 1.0,
        baselines={n: t for n, t in pooled.items() if n not in (CHOSEN, NO_TRANSFER, NAIVE, plain, naive)},
    )
    run.note("verified", verdict=verified.verdict)
    import pyarrow as pa

    where = np.flatnonzero(keep)
    inputs = pa.concat_tables([t.inputs for t in opened]).take(where)
    return Verdict(verified, pooled, labels[keep], [ids[i] for i in where], inputs, refits)


def _standing(choice: Choice, done: Mapping[Any, Outcome]) -> Tried | None:
    """The no-transfer opponent; where it could not be refitted, the best of those that could, by validation."""
    could = [t for t in choice.baselines if t.usable and t.system in done and done[t.system].ok]
    if done[choice.no_transfer.system].ok:
        return choice.no_transfer
    return _best(choice.part, could) if could else None


def _tables(
    choices: Sequence[Choice], opponents: Sequence[Tried], refits: Sequence[Mapping[Any, Outcome]]
) -> dict[str, list[Array]]:
    """Predictions of the test rows by name, one table a part; only systems that every part could refit."""
    found: dict[str, list[Array]] = {NO_TRANSFER: [], CHOSEN: [], NAIVE: []}
    for choice, opponent, done in zip(choices, opponents, refits, strict=True):
        found[NO_TRANSFER].append(_test_table(done[opponent.system]))
        if choice.chosen is not None and all(done[t.system].ok for t, _ in choice.chosen.members):
            found[CHOSEN].append(_blend(choice.chosen, done))
        if choice.naive is not None and done[choice.naive.system].ok:
            found[NAIVE].append(_test_table(done[choice.naive.system]))
        for baseline in choice.baselines:
            if baseline.usable and done[baseline.system].ok:
                found.setdefault(baseline.system.name, []).append(_test_table(done[baseline.system]))
    return {name: tables for name, tables in found.items() if len(tables) == len(choices)}


def _said(names: Sequence[str], otherwise: str) -> str:
    return names[0] if len(set(names)) == 1 else otherwise


@dataclass(frozen=True, eq=False, slots=True)
class Verdict:
    """What verify found, and the tables it judged, by name; rows, labels and inputs in the order of ids."""

    verified: Verified
    tables: Mapping[str, Array]
    labels: Array
    ids: Sequence[str]
    inputs: pa.Table
    refits: Sequence[Mapping[System, Outcome]]


@dataclass(frozen=True, eq=False, slots=True)
class Final:
    """What is saved: members with weights, of what is returned and of the other, each with the folder of its fit."""

    choice: Choice
    choices: Sequence[Choice]
    verdict: Verdict | None
    returned: Literal["chosen", "no-transfer"]
    chosen: tuple[tuple[System, float, Outcome], ...]
    no_transfer: tuple[tuple[System, float, Outcome], ...]
    interrupted: bool = False
    unfitted: tuple[tuple[System, Outcome], ...] = ()  # what could not be fitted on all rows


def finish(choice: Choice, choices: Sequence[Choice], verdict: Verdict | None, run: Run, when_unsure: str) -> Final:
    """Refit what will be saved on all rows that it may learn from, and say which of the two is returned."""
    stopped_by_user = run.interrupted
    run.calm()
    if verdict is not None and choices == [choice]:
        done = dict(verdict.refits[0])
    else:
        members = [t for t, _ in choice.chosen.members] if choice.chosen else []
        done = refitted(choice, [choice.no_transfer, *members], run)
    chosen = tuple((t.system, w, done[t.system]) for t, w in (choice.chosen.members if choice.chosen else ()))
    if not all(o.ok for _, _, o in chosen):
        chosen = ()
    word = verdict.verified.verdict if verdict else None
    proven = word == "helps" or (word is None and _leads(choice))
    returned: Literal["chosen", "no-transfer"] = (
        "chosen" if chosen and (proven or when_unsure == "best") else "no-transfer"
    )
    opponent = _standing(choice, done)
    if opponent is None:  # the class prior can always be fitted
        opponent = next(t for t in choice.baselines if t.system.method == "majority")
        done |= refitted(choice, [opponent], run)
        if not (end := done[opponent.system]).ok and returned == "no-transfer":
            why = f"not even the class prior could be fitted: it was cut by {end.stopped}"
            raise end.error or Problem(
                why, where="the last step of solve", fix="go on with `--resume`, and more minutes"
            )
    plain = ((opponent.system, 1.0, done[opponent.system]),)
    every = [done, *(verdict.refits if verdict else ())]
    unfitted = tuple({s: o for some in every for s, o in some.items() if not o.ok}.items())
    return Final(choice, choices, verdict, returned, chosen, plain, stopped_by_user, unfitted)


def refitted(choice: Choice, trials: Sequence[Tried], run: Run, *, test: str | None = None) -> dict[Any, Outcome]:
    """Each system on all labelled rows of the part; a soup's ingredients first, and then their average.

    Each ingredient runs the fraction of the schedule that its own folds chose.
    """
    from headstart.execution.parts import soup_job

    part, fine_tunes = choice.part, {t.system: t for t in choice.tuned}
    wanted = {t.system: t for t in trials if not t.system.ingredients}
    for trial in trials:
        wanted.update({i: fine_tunes[i] for i in trial.system.ingredients})
    done: dict[Any, Outcome] = dict(
        zip(wanted, adaptation.refit(part, list(wanted.values()), run, test=test), strict=True)
    )
    for trial in trials:
        if ingredients := trial.system.ingredients:
            failed = next((done[i] for i in ingredients if not done[i].ok), None)
            folders = [[done[i].files] for i in ingredients]
            job = soup_job(part, trial.system, folders, "all", test=test)
            done[trial.system] = failed or run.do([job], "refit", must=True)[0]
    return done


def merge_auto(
    models: Sequence[str | Path], targets: Mapping[str, Target] | Sequence[Target], *, out: str | Path, **options: Any
) -> Merged:
    """The merge of models that does best on rows of the targets, with a page about the choice.

    targets: one, of the labels that all models give; or one for each model, by the model's name. options: those of
    `combination.merging.merge_auto`, such as base, methods, budget, heads and seed.
    """
    from headstart.combination import merging
    from headstart.evidence import merge_report

    return merging.merge_auto(models, targets, out=out, page=merge_report.render, **options)


def _refuse_task(target: Target) -> None:
    if target.task.type not in ("single_label", "regression") or target.task.pair:
        kind = target.task.type.replace("_", "-") + " task" + (" over text pairs" if target.task.pair else "")
        raise Refused(
            f"`{target.name}` is a {kind}, and `solve` works on single-label and regression tasks so far",
            where="solve",
            fix="look at it with `headstart inspect`; give one label a row, and one text",
        )
    if target.folds.k < 1:
        raise Refused(
            "no labelled row can be scored: every class lies in one row or group alone",
            where=f"the labels of `{target.name}`",
            fix="label at least two rows of each of two classes",
        )
    if target.seal.opened:
        target.seal.open()  # says why it cannot be, before anything is spent
    if target.protocol == "outer_cv":
        from headstart.inspection import outer_targets

        try:
            outer_targets(target, OUTER_FOLDS)
        except Unfit as problem:
            raise Unfit(
                f"the {len(target.labelled)} labelled rows are too few, or too alike, to prove anything on",
                where=f"the labels of `{target.name}`",
                fix="label more rows, two of each class at least that differ, or bring a test with `--test`",
            ) from problem


def _usable(sources: Sequence[Source], target: Target) -> tuple[list[Source], list[tuple[str, Problem]]]:
    """Sources that give features for this target, each identity once; the others with the reason."""
    needs = catalogue.entry(adaptation.ROUTES, adaptation.PROBE).needs
    usable: dict[str, Source] = {}
    unfit: list[tuple[str, Problem]] = []
    for source in sources:
        if source.modality != target.modality:
            what = f"for {source.modality}s, and the target has {target.modality}s"
            fix = f"add sources for {target.modality}s"
            unfit.append((source.name, Refused(what, where=f"source `{source.name}`", fix=fix)))
        elif reason := catalogue.refusal(needs, (source,), target):
            problem = Refused(reason, where=f"source `{source.name}`", fix="see `headstart methods`")
            unfit.append((source.name, problem))
        else:
            usable.setdefault(source.identity, source)
    return list(usable.values()), unfit


def _best(part: Part, plain: Sequence[Tried]) -> Tried:
    """The best no-transfer system by its out-of-fold score on the cells that all have; the earliest of equals."""
    from headstart.execution.parts import better, out_of_fold_score, scored_cells

    usable = [t for t in plain if t.usable]
    if not usable:  # stopped before anything ran: the class prior needs no search, and is fitted at the end
        return next(t for t in plain if t.system.method == "majority")
    cells = scored_cells([t.cells() for t in usable])
    return max(usable, key=lambda t: better(part.target, out_of_fold_score(part.target, t.cells(), cells)))


def _naive(part: Part, sources: Sequence[Source], ranked: Sequence[Ranked], run: Run) -> Tried | None:
    """The better of two things people do: probe the first source given, or probe one that is drawn at random."""
    from headstart.execution.parts import better, features_job, out_of_fold_score
    from headstart.numerics.hashing import unit

    able = [r.source for r in ranked if r.error is None]
    order = [s for s in sources if s in able]
    if not order or _over(run):
        return None
    drawn = order[int(unit(part.target.fingerprint, f"headstart naive {part.target.seed}") * len(order))]
    two = [order[0]] if drawn is order[0] else [order[0], drawn]
    run.do([features_job(part, [s], 0, part.root_rows) for s in two], "features")
    tried = [t for t in adaptation.probes(part, two, run) if t.usable]
    return max(tried, key=lambda t: better(part.target, out_of_fold_score(part.target, t.cells())), default=None)


def _tune(part: Part, able: Sequence[Source], run: Run, plan: Plan) -> list[Tried]:
    systems = [
        adaptation.route(source, name, seed=part.target.seed)
        for source in able[: plan.sources]
        for name in plan.routes
        if not catalogue.missing(catalogue.entry(adaptation.ROUTES, name))
    ]
    if not systems or _over(run):
        return []
    return adaptation.halving(part, systems, run, survivors=plan.survivors, keep=True, horizon=plan.horizon)


def _outer_choices(
    choice: Choice, sources: Sequence[Source], run: Run, seconds: float, given: Sequence[Source]
) -> list[Choice]:
    """The same choices made anew in outer folds, as many as the time allows; what the clock cut is left out.

    seconds: what choosing took on the root, which has more rows than any fold; a fold's refits come on top.
    """
    from headstart.execution.parts import part_of
    from headstart.inspection import outer_targets

    root = choice.part
    outer = outer_targets(root.target, OUTER_FOLDS)
    refits = _refit_seconds(choice.systems())
    once = dict(run.meter.spent_by_stage)

    def fitting() -> int:
        left = _left(run)
        if left == inf:
            return len(outer)
        return max(0, min(len(outer), int((left - _held_back(run) - refits) / (seconds + refits))))

    extent = int(run.decide("outer folds", fitting))
    if run.meter.budget.seconds < inf:
        run.meter.keep(_held_back(run) + (extent + 1) * refits)
    for stage in ("baselines", "rank"):
        run.forecast(stage, once.get(stage, 0.0) * (1 + 0.8 * extent))  # a fold has four fifths of the rows
    run.forecast("refit", (extent + 1) * refits)
    choices: list[Choice] = []
    for at, target in enumerate(outer[:extent]):
        run.progress.within(f"outer fold {at + 1} of {extent}")
        part = part_of(run, target, f"outer-{at}", Path(root.cache), root)
        here = choose(part, sources, run, given=given, outer=True)
        if not run.decide(f"outer fold {at} is whole", lambda: not _over(run)):
            break
        choices.append(here)
    run.progress.within()
    run.note("outer folds", opened=len(choices), of=len(outer))
    return choices


def _repeated(run: Run) -> float:
    """Seconds spent so far on what an outer fold does again: not on features, forecasts, or the start of a worker."""
    once = sum(run.meter.spent_by_stage.get(stage, 0.0) for stage in ("features", "forecast"))
    return run.meter.spent() - once - adaptation.first_start(run)


def _held_back(run: Run) -> float:
    """Seconds that saving the result may take, as busy as the machine is."""
    return (SAVE_SECONDS + START_SECONDS) * max(1.0, adaptation.first_start(run) / START_SECONDS)


def _refit_seconds(trials: Sequence[Tried]) -> float:
    """What refitting systems for verify will take: as one fold each, with a quarter more rows."""
    return 1.0 + sum(1.3 * t.seconds / max(1, len(t.folds)) for t in trials if t.usable)


def _may_verify(choices: Sequence[Choice], run: Run) -> bool:
    """Whether there are test rows, and time to read them: the reserve is for this."""
    sealed = sum(len(c.part.target.seal) for c in choices)
    return bool(sealed and run.decide("verify", lambda: not run.interrupted and _left(run) > SAVE_SECONDS / 2))


def _left(run: Run) -> float:
    return run.meter.budget.seconds - run.meter.spent()


def _over(run: Run) -> bool:
    """Whether nothing more may be chosen."""
    return run.interrupted or run.meter.left() <= 0


def _leads(choice: Choice) -> bool:
    """Without a verdict, validation says which of the two is the best so far."""
    from headstart.execution.parts import better, out_of_fold_score

    target = choice.part.target
    if choice.chosen is None:
        return False
    if choice.no_transfer.table is None:
        return True
    plain = out_of_fold_score(target, choice.no_transfer.table)
    return better(target, choice.chosen.score) > better(target, plain)


def _test_table(outcome: Outcome) -> Array:
    import numpy as np

    table: Array = np.load(outcome.files / "pred-test.npy", allow_pickle=False)
    return table


def _blend(chosen: Combined, done: Mapping[Any, Outcome]) -> Array:
    import numpy as np

    return np.asarray(sum(w * _test_table(done[t.system]) for t, w in chosen.members))
