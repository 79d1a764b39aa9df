"""Which data set to train on first: data sets in the order in which they lie near the target's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Budget, Diverging, Problem, Receipt, Refused, Rows, Source, Target, Unfit

if TYPE_CHECKING:
    import numpy as np

    from headstart.execution.run import Run
    from headstart.execution.samples import DataSample

    Array = np.ndarray[Any, Any]

KIND = "ranking.divergences"
DIVERGENCES = ("otdd", "frechet", "mmd", "proxy_a", "jensen_shannon")


@dataclass(frozen=True, eq=False, slots=True)
class Near:
    """One data set in an order.

    rank: mean of its ranks over the divergences that can be measured on it, 1 for the nearest; None where none can. A
    divergence that can be measured on some sets alone spreads their ranks over all places.
    nearest: share of the draws, of half the rows of every set, in which it is first; None without a draw or a rank.
    rows, classes: of the data set. shared: its inputs that the target has too, test rows included; shared_test: those
    among the target's test rows. divergences: by name, smaller is nearer. refused: those that cannot work on it, with
    the reason. error: why it could not be compared at all.
    """

    dataset: Target
    rows: int
    classes: int
    shared: int
    shared_test: int
    rank: float | None = None
    nearest: float | None = None
    divergences: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, Problem] = field(default_factory=dict)
    seconds: float = 0.0
    error: Problem | None = None
    receipt: Receipt | None = None


def rank_datasets(
    target: Target,
    datasets: Sequence[Target],
    budget: Budget,
    method: str | Diverging | Sequence[str | Diverging] = DIVERGENCES,
    *,
    sources: Sequence[Source] = (),
    rows: int = 1000,
    draws: int = 10,
    seed: int = 0,
    run: Run | None = None,
) -> tuple[Near, ...]:
    """The data sets, nearest first by the mean of their ranks over the divergences; those that failed come last.

    sources: the first that reads such inputs is the embedding; without any, no model is needed. rows: the most that are
    read of the target and of each data set, drawn with the seed. draws: of half of these, for `Near.nearest`; fewer
    where the time is up, as the receipt says. Of the target only labelled rows are read, never a test row. Data sets
    are used up: their seals are opened. Raises `Refused` when none can be compared.
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
    methods = _fitting(asked, target)
    with lone_part(target, budget, run) as (here, part):
        samples, whole, embedding = samples_of(part, datasets, here, sources=sources, most=rows, seed=seed)
        first, *others = samples
        assert not isinstance(first, Problem)
        measured: list[Near] = []
        for dataset, sample, every in zip(datasets, others, whole, strict=True):
            begun = here.meter.session()
            one = _measured(target, first, dataset, sample, every, methods)
            measured.append(replace(one, seconds=here.meter.session() - begun))
        able = [i for i, one in enumerate(measured) if not one.error]
        if not able:
            reasons = "; ".join(f"`{one.dataset.name}`: {one.error.what}" for one in measured if one.error)
            raise Refused(
                f"no data set can be compared ({reasons or 'there is none'})",
                where=f"the data sets for `{target.name}`",
                fix=f"give labelled data sets of {target.modality}s",
            )
        kept = [s for s in (others[i] for i in able) if not isinstance(s, Problem)]
        orders = _drawn(kept, first, methods, draws, seed, here)
    told = _placed(measured, able, list(methods), orders)
    facts = {"embedding": embedding, "draws": len(orders), "most_rows": rows}
    made = [replace(one, receipt=_receipt(one, target, list(methods), facts, seed)) for one in told]
    return tuple(sorted(made, key=lambda one: (one.rank is None, one.rank or 0.0)))


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
    error = None if values else next(iter(refused.values()), None)
    return replace(plain, divergences=values, refused=refused, error=error)


def _fitting(methods: Sequence[str | Diverging], target: Target) -> dict[str, Diverging]:
    """Those that cover this task, by name; asked for by name and unable to is `Refused`."""
    kept: dict[str, Diverging] = {}
    for method in methods:
        made: Diverging = catalogue.make(KIND, method)
        if reason := catalogue.refusal(made.needs, (), target):
            if methods != DIVERGENCES:
                raise Refused(
                    f"`{method}` {reason}", where="the divergences asked for", fix=f"see `headstart methods {KIND}`"
                )
            continue
        kept[catalogue.name_of(made)] = made
    return kept


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
    draws: int,
    seed: int,
    run: Run,
) -> Array:
    """(draws, data sets) mean ranks on half the rows of every set; as many draws as there is time for.

    Without replacement: a row drawn twice lies next to itself, and two sets of one kind would seem apart.
    """
    import numpy as np

    from headstart.numerics.ranks import mean_ranks

    orders = []
    for draw in range(draws):
        if not run.meter.left():
            break
        chance = np.random.default_rng((seed, draw))
        halves = [
            one.take(np.sort(chance.permutation(len(one.rows))[: max(2, len(one.rows) // 2)]))
            for one in (target, *samples)
        ]
        found = [_compared(half, halves[0], methods)[0] for half in halves[1:]]
        orders.append(mean_ranks(np.array([[one.get(name, np.nan) for name in methods] for one in found])))
    return np.array(orders).reshape(-1, len(samples))


def _shared(target: Target, content: Sequence[str]) -> tuple[int, int]:
    """Distinct inputs that stand in the target too, and that are among its test rows."""
    here, test = set(content), set(target.seal.content)
    return len(here & (test | {*target.labelled.content, *target.unlabelled.content})), len(here & test)


def _placed(measured: Sequence[Near], able: Sequence[int], names: Sequence[str], orders: Array) -> list[Near]:
    """Each with its mean rank, and how often it was first among the draws."""
    import numpy as np

    from headstart.numerics.ranks import mean_ranks, share_first

    ranks = mean_ranks(np.array([[measured[i].divergences.get(n, np.nan) for n in names] for i in able]))
    firsts = share_first(orders) if len(orders) else [None] * len(able)
    placed = list(measured)
    for i, rank, first in zip(able, ranks, firsts, strict=True):
        placed[i] = replace(measured[i], rank=float(rank), nearest=None if first is None else float(first))
    return placed


def _receipt(one: Near, target: Target, names: Sequence[str], facts: Mapping[str, Any], seed: int) -> Receipt:
    return Receipt(
        step="rank_datasets",
        method=", ".join(names),
        inputs=(one.dataset.fingerprint, target.fingerprint),
        seeds=(seed,),
        seconds=one.seconds,
        warnings=(str(one.error),) if one.error else (),
        facts={
            **facts,
            "divergences": dict(one.divergences),
            "refused": {name: problem.as_dict() for name, problem in one.refused.items()},
            "rank": one.rank,
            "nearest": one.nearest,
            "shared": one.shared,
            "shared_test": one.shared_test,
        },
    )
