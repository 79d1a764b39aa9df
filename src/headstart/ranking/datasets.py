"""Which data set to train on first: data sets in the order in which they lie near the target's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Budget, Diverging, Problem, Receipt, Refused, Resembling, Rows, Source, Target, Unfit

if TYPE_CHECKING:
    import numpy as np

    from headstart.execution.parts import Part
    from headstart.execution.run import Run
    from headstart.execution.samples import DataSample, Embedded

    Array = np.ndarray[Any, Any]

KIND, ALIKE = "ranking.divergences", "ranking.similarity"
DIVERGENCES = ("otdd", "frechet", "mmd", "proxy_a", "jensen_shannon")
FEW_ROWS = 20  # of the target: a draw for `Near.nearest` then has fewer than ten of them


@dataclass(frozen=True, eq=False, slots=True)
class Near:
    """One data set in an order.

    rank: mean of its ranks over the divergences and similarities that can be measured on it, 1 for the nearest; None
    where none can. One that can be measured on some sets alone spreads their ranks over all places.
    nearest: share of the draws, of half the rows of every set, in which it is first; None without a draw or a rank.
    A similarity that trains has one figure, which counts in every draw; where all do, there are no draws.
    rows, classes: of the data set. shared: its inputs that the target has too, test rows included; shared_test: those
    among the target's test rows. divergences: by name, smaller is nearer. similarities: by name, higher is nearer.
    refused: those that cannot work on it, with the reason. error: why it could not be compared at all. seconds: without
    what the process took to load libraries for all data sets.
    """

    dataset: Target
    rows: int
    classes: int
    shared: int
    shared_test: int
    rank: float | None = None
    nearest: float | None = None
    divergences: Mapping[str, float] = field(default_factory=dict)
    similarities: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, Problem] = field(default_factory=dict)
    seconds: float = 0.0
    error: Problem | None = None
    receipt: Receipt | None = None


def rank_datasets(
    target: Target,
    datasets: Sequence[Target],
    budget: Budget,
    method: str | Diverging | Resembling | Sequence[str | Diverging | Resembling] = DIVERGENCES,
    *,
    sources: Sequence[Source] = (),
    rows: int = 1000,
    draws: int = 10,
    seed: int = 0,
    run: Run | None = None,
) -> tuple[Near, ...]:
    """The data sets, nearest first by the mean of their ranks over what compares them; those that failed come last.

    method: divergences and similarities, by name or as instances. sources: the first that reads such inputs, and gives
    what the methods need, is the embedding; without any, no model is needed, and none is there to train. rows: the most
    that are read of the target and of each data set, drawn with the seed. draws: of half of these, for `Near.nearest`;
    fewer where the time is up, as the receipt says; data sets that are not reached in time are listed as such. Of the
    target only labelled rows are read, never a test row. Data sets are used up: their seals are opened. Raises
    `Refused` when none can be compared.
    """
    from headstart.execution.alone import lone_part
    from headstart.execution.samples import samples_of

    if rows < 4 or draws < 1:
        raise Unfit(
            f"{rows} rows and {draws} draws",
            where="rank_datasets(rows=…, draws=…)",
            fix="use 4 rows and 1 draw or more",
        )
    asked = (method,) if not isinstance(method, (list, tuple)) else tuple(method)
    methods, similar = _fitting(asked, target, sources)
    gives = ("features", "gradients") if any(_trains(one) for one in similar.values()) else ("features",)
    with lone_part(target, budget, run) as (here, part):
        samples, whole, embedding, encoder = samples_of(
            part, datasets, here, sources=sources, most=rows, seed=seed, gives=gives
        )
        first, *others = samples
        assert not isinstance(first, Problem)
        measured: list[Near] = []
        here.progress.stage("compare", len(datasets))
        _compared(first, first, methods)  # what loads and compiles here, the first data set is not to be charged
        for dataset, sample, every in zip(datasets, others, whole, strict=True):
            begun = here.meter.session()
            if not here.meter.left():
                sample = _late(dataset)
            one = _measured(target, first, dataset, sample, every, methods)
            measured.append(replace(one, seconds=here.meter.session() - begun))
            here.progress.advance(dataset.name)
        measured = _resembled(measured, samples, similar, part, here, encoder)
        measured = [replace(one, error=_why_none(one)) for one in measured]
        able = [i for i, one in enumerate(measured) if not one.error]
        if not able:
            reasons = "; ".join(f"`{one.dataset.name}`: {one.error.what}" for one in measured if one.error)
            raise Refused(
                f"no data set can be compared ({reasons or 'there is none'})",
                where=f"the data sets for `{target.name}`",
                fix=f"give labelled data sets of {target.modality}s",
            )
        kept = [s for s in (others[i] for i in able) if not isinstance(s, Problem)]
        drawn = {name: one for name, one in similar.items() if not _trains(one)}
        fixed = _figures([measured[i] for i in able], (), [n for n in similar if n not in drawn])
        orders = (
            _drawn(kept, first, methods, drawn, fixed, draws, seed, here) if methods or drawn else _none_drawn(kept)
        )
    told = _placed(measured, able, list(methods), list(similar), orders)
    facts = {"embedding": embedding, "draws": len(orders), "most_rows": rows}
    made = [replace(one, receipt=_receipt(one, target, [*methods, *similar], facts, seed)) for one in told]
    return tuple(sorted(made, key=lambda one: (one.rank is None, one.rank or 0.0)))


def _late(dataset: Target) -> Problem:
    return Problem(
        "the time was over before it was compared",
        where=f"data set `{dataset.name}`",
        fix="give more minutes, or fewer data sets or divergences",
    )


def _measured(
    target: Target,
    first: DataSample,
    dataset: Target,
    sample: DataSample | Problem,
    every: Rows,
    methods: Mapping[str, Diverging],
) -> Near:
    """One data set against the target, not yet placed among the others."""
    shared, tested = _shared(target, every.content)
    plain = Near(dataset, len(every), len(dataset.task.classes), shared, tested)
    if isinstance(sample, Problem):
        return replace(plain, error=sample)
    values, refused = _compared(sample, first, methods)
    return replace(plain, divergences=values, refused=refused)


def _why_none(one: Near) -> Problem | None:
    if one.error or one.divergences or one.similarities:
        return one.error
    return next(iter(one.refused.values()), None)


def kind_of(name: str) -> str:
    """Whether a divergence or a similarity is called so, or nearly so."""
    return catalogue.kind_of(name, (KIND, ALIKE))


def _trains(method: Resembling) -> bool:
    """Whether it goes through an encoder of its own, in a job; else features are enough."""
    return "gradients" in method.needs.gives


def _fitting(
    methods: Sequence[str | Diverging | Resembling], target: Target, sources: Sequence[Source]
) -> tuple[dict[str, Diverging], dict[str, Resembling]]:
    """Divergences and similarities that cover this task, by name; asked for and unable to is `Refused`."""
    kept: dict[str, Diverging] = {}
    similar: dict[str, Resembling] = {}
    for method in methods:
        kind = kind_of(method) if isinstance(method, str) else ALIKE if hasattr(method, "embed") else KIND
        made = catalogue.make(kind, method)
        name = catalogue.name_of(made)
        if reason := catalogue.refusal(made.needs, (), target):
            if methods != DIVERGENCES:
                raise Refused(
                    f"`{name}` {reason}", where="the methods asked for", fix=f"see `headstart methods {kind}`"
                )
            continue
        if kind == ALIKE and _trains(made) and not sources:
            raise Refused(
                f"`{name}` needs gradients, and no source was given",
                where="the methods asked for",
                fix="name a model with --sources, or use `covariance_alignment`, which needs none",
            )
        (similar if kind == ALIKE else kept)[name] = made
    return kept, similar


def _resembled(
    measured: Sequence[Near],
    samples: Sequence[DataSample | Problem],
    methods: Mapping[str, Resembling],
    part: Part,
    run: Run,
    source: Source | None,
) -> list[Near]:
    """Each with its similarities; a task is embedded once for each method."""
    from headstart.execution.samples import embedded

    trained = {name: one for name, one in methods.items() if _trains(one)}
    held = {name: _here(samples, one, name) for name, one in methods.items() if name not in trained}
    seconds = [0.0] * len(samples)
    if trained:
        assert source is not None  # `_fitting` refuses these without sources
        by_jobs, seconds = embedded(part, run, source, samples, trained)
        held |= by_jobs
    found = []
    for i, one in enumerate(measured, 1):
        if one.error:
            found.append(one)
            continue
        values, refused = {}, dict(one.refused)
        for name, method in methods.items():
            value = _alike(method, held[name][i], held[name][0])
            if isinstance(value, Problem):
                refused[name] = value
            else:
                values[name] = value
        found.append(replace(one, similarities=values, refused=refused, seconds=one.seconds + seconds[i]))
    return found


def _here(samples: Sequence[DataSample | Problem], method: Resembling, name: str) -> list[Embedded | Problem]:
    """What a similarity that trains nothing makes of each sample, in this process."""
    from headstart.ranking.similarity import embed

    found: list[Embedded | Problem] = []
    for one in samples:
        try:
            found.append(one if isinstance(one, Problem) else embed(one.seen_by(method.needs, name), method))
        except (Refused, Unfit) as problem:
            found.append(problem)
    return found


def _alike(method: Resembling, source: Embedded | Problem, target: Embedded | Problem) -> float | Problem:
    for one in (source, target):
        if isinstance(one, Problem):
            return one
    try:
        return method(source, target)  # type: ignore[arg-type]  # no Problem, as the loop says
    except (Refused, Unfit) as problem:
        return problem


def _compared(
    sample: DataSample, target: DataSample, methods: Mapping[str, Diverging]
) -> tuple[dict[str, float], dict[str, Problem]]:
    from headstart.ranking.divergences import compare

    values: dict[str, float] = {}
    refused: dict[str, Problem] = {}
    for name, method in methods.items():
        source, here = (one.seen_by(method.needs, name) for one in (sample, target))
        try:
            (values[name],) = compare(source, here, (method,)).values()
        except (Refused, Unfit) as problem:
            refused[name] = problem
    return values, refused


def _drawn(
    samples: Sequence[DataSample],
    target: DataSample,
    methods: Mapping[str, Diverging],
    similar: Mapping[str, Resembling],
    fixed: Array,
    draws: int,
    seed: int,
    run: Run,
) -> Array:
    """(draws, data sets) mean ranks on half the rows of every set; as many draws as there is time for.

    fixed: (data sets, methods) figures that are the same in each draw.
    Without replacement: a row drawn twice lies next to itself, and two sets of one kind would seem apart.
    """
    import numpy as np

    from headstart.numerics.ranks import mean_ranks

    orders = []
    run.progress.stage("draw half the rows", draws)
    for draw in range(draws):
        if not run.meter.left():
            break
        run.progress.advance()
        chance = np.random.default_rng((seed, draw))
        halves = [
            one.take(np.sort(chance.permutation(len(one.rows))[: max(2, len(one.rows) // 2)]))
            for one in (target, *samples)
        ]
        found = [_compared(half, halves[0], methods)[0] for half in halves[1:]]
        apart = np.array([[one.get(name, np.nan) for name in methods] for one in found]).reshape(len(found), -1)
        held = {name: _here(halves, one, name) for name, one in similar.items()}
        near = [[_alike(similar[n], one, held[n][0]) for one in held[n][1:]] for n in held]
        far = np.array([[np.nan if isinstance(v, Problem) else -v for v in values] for values in near])
        figures = np.concatenate([apart, far.reshape(-1, len(found)).T, fixed], axis=1)
        if not np.isnan(figures).all():
            orders.append(mean_ranks(figures))
    return np.array(orders).reshape(-1, len(samples))


def _shared(target: Target, content: Sequence[str]) -> tuple[int, int]:
    """Distinct inputs that stand in the target too, and that are among its test rows."""
    here, test = set(content), set(target.seal.content)
    return len(here & (test | {*target.labelled.content, *target.unlabelled.content})), len(here & test)


def _none_drawn(samples: Sequence[DataSample]) -> Array:
    import numpy as np

    return np.zeros((0, len(samples)))


def _figures(measured: Sequence[Near], names: Sequence[str], similar: Sequence[str]) -> Array:
    """(data sets, methods) smaller is nearer, NaN where a method says nothing."""
    import numpy as np

    table = [
        [*(one.divergences.get(n, np.nan) for n in names), *(-one.similarities.get(n, np.nan) for n in similar)]
        for one in measured
    ]
    return np.array(table, dtype=np.float64).reshape(len(measured), -1)


def _placed(
    measured: Sequence[Near], able: Sequence[int], names: Sequence[str], similar: Sequence[str], orders: Array
) -> list[Near]:
    """Each with its mean rank, and how often it was first among the draws."""
    from headstart.numerics.ranks import mean_ranks, share_first

    ranks = mean_ranks(_figures([measured[i] for i in able], names, similar))
    firsts = share_first(orders) if len(orders) else [None] * len(able)
    placed = list(measured)
    for i, rank, first in zip(able, ranks, firsts, strict=True):
        placed[i] = replace(measured[i], rank=float(rank), nearest=None if first is None else float(first))
    return placed


def _few(target: Target) -> tuple[str, ...]:
    """What a reader must know of an order that rests on a handful of the target's rows."""
    rows = len(target.labelled)
    if rows >= FEW_ROWS:
        return ()
    had = "1 labelled row" if rows == 1 else f"{rows} labelled rows"
    return (f"the target has {had}, and the order hangs on each: with {FEW_ROWS} or more it means something",)


def _receipt(one: Near, target: Target, names: Sequence[str], facts: Mapping[str, Any], seed: int) -> Receipt:
    return Receipt(
        step="rank_datasets",
        method=", ".join(names),
        inputs=(one.dataset.fingerprint, target.fingerprint),
        seeds=(seed,),
        seconds=one.seconds,
        warnings=(*((str(one.error),) if one.error else ()), *_few(target)),
        facts={
            **facts,
            "divergences": dict(one.divergences),
            "similarities": dict(one.similarities),
            "refused": {name: problem.as_dict() for name, problem in one.refused.items()},
            "rank": one.rank,
            "nearest": one.nearest,
            "shared": one.shared,
            "shared_test": one.shared_test,
        },
    )
