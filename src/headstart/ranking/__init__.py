"""Ranking: predict which source helps, before spending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from headstart import catalogue
from headstart.core import (
    Budget,
    Expecting,
    Gathering,
    Problem,
    Ranking,
    Receipt,
    Refused,
    Source,
    Target,
    Unfit,
    called,
)

from .certainty import certainties
from .expect import FUSION, expect, predicted
from .gather import SETS, Gathered, able, gather
from .own_rows import laid_out, own_rows
from .racing import ESTIMATORS, PROXIES, Ranked, Rule, race, readers

if TYPE_CHECKING:
    from headstart.execution.run import Run
    from headstart.inventory import Inventory
    from headstart.io.layers import Layers


def rank(
    target: Target,
    sources: Sequence[Source],
    budget: Budget,
    method: str | Ranking | Sequence[str | Ranking] = PROXIES,
    *,
    layers: Layers | None = None,
    pooling: Sequence[str] | None = None,
    rule: Rule = "paired",
    bank: Inventory | None = None,
    fusion: str | Expecting = "ridge",
    run: Run | None = None,
) -> tuple[Source, ...]:
    """The sources, best first, each with a receipt of its score; those that left or failed come last, with the reason.

    Best is what is predicted of a source in the target's metric: its cross-validated linear probe, or what the bank
    lets expect of a better route, where that rests on past targets enough; `facts["predicted"]` says which of the two.

    Where Ctrl-C or the end of the minutes stops the race, those that it stopped come after the ones that have a score,
    in the order of what the race knew; what was read is in the cache, and the same call goes on from there.

    method: estimators to report beside it. layers, pooling: other ways to read each source, see `io.layers.taps`; they
    compete as sources of their own, and one pass over the rows serves them all. rule: who leaves the race; `paired`
    (standard errors away from being worth the passes), `bernstein` (with 95 % probability the best is not among them;
    see `numerics.race`), or `none`. bank: past runs to learn from what to expect of each source by each route. fusion:
    the model that learns it. Raises `Refused` where none can be ranked, or was stopped.
    """
    names = (method,) if not isinstance(method, (list, tuple)) else tuple(method)
    ranked, _ = rank_sets(
        target, sources, budget, methods=(), estimators=names, layers=layers, pooling=pooling, rule=rule, bank=bank,
        fusion=fusion, run=run,
    )  # fmt: skip
    return ranked


def rank_sets(
    target: Target,
    sources: Sequence[Source],
    budget: Budget,
    most: int = 3,
    methods: Sequence[str | Gathering] = ("ensemble_selection",),
    *,
    estimators: Sequence[str | Ranking] = PROXIES,
    exhaustively: bool = False,
    datasets: Sequence[Target] = (),
    layers: Layers | None = None,
    pooling: Sequence[str] | None = None,
    rule: Rule = "paired",
    bank: Inventory | None = None,
    fusion: str | Expecting = "ridge",
    run: Run | None = None,
) -> tuple[tuple[Source, ...], tuple[Gathered, ...]]:
    """The ranking, as by `rank`, and by each method the best set of at most so many of its sources.

    exhaustively: all sets are looked at, which is for 12 sources at most; else they join one by one. datasets: labelled
    rows that sources learned from, each called like its source, for methods that read such rows; their seals are
    opened. Raises `Refused` for a method that does not work on this target, or where no row of it can be scored, and
    `Unfit` for sets of fewer than 2, or data sets that no method reads, or that are no source's; before work starts.
    """
    from headstart.execution.alone import lone_part
    from headstart.numerics.metrics import spans

    if most < 2:
        raise Unfit(f"a set of {most}", where="the choice of a set", fix="ask for 2 or more; the ranking tells of each")
    made = able(methods, target)
    learner: Expecting = catalogue.make(FUSION, fusion)
    if datasets and not any(one.needs.own_rows for one in made):
        readers = [name for name, one in catalogue.entries(SETS).items() if one.needs.own_rows]
        raise Unfit(
            f"{', '.join(f'`{catalogue.name_of(one)}`' for one in made)} read no rows that sources learned from",
            where="the data sets given with sets",
            fix=f"choose sets by {' or '.join(readers)}, or leave the data sets out",
        )
    if pooling is not None and target.task.type == "tagging":
        raise Unfit("words are not pooled", where="the poolings asked for", fix="leave --pooling out; layers may stay")
    if target.task.type == "tagging" and not any(spans([tag]) for tag in target.task.classes):
        raise Unfit(
            f"the tags make no spans: {', '.join(target.task.classes[:5])}",
            where=f"the labels of `{target.name}`",
            fix="name the tags, such as B-PER, I-PER and O; numbers of tags say nothing of where a span begins",
        )
    if not any(fold >= 0 for of in target.folds.of for fold in of):
        raise Refused(
            "no labelled row can be scored: every class lies in one row or group alone",
            where=f"the labels of `{target.name}`",
            fix="label at least two rows of each of two classes",
        )
    entered, unable = _tapped(sources, layers, pooling)
    own = own_rows(entered, datasets)
    with lone_part(target, budget, run) as (here, part):
        ranked = [*race(part, entered, here, estimators, rule=rule, alike=bool(made), errors=True), *unable]
        learned = laid_out(own, target, here)
        gathered = tuple(gather(part, ranked, here, most, one, exhaustively=exhaustively, own=learned) for one in made)
        told = _told(ranked, target, bank, learner)  # here Ctrl-C does not cost the table
    return _receipts(told, target, estimators), gathered


def _told(ranked: Sequence[Ranked], target: Target, bank: Inventory | None, learner: Expecting) -> list[Ranked]:
    """With how sure the place of each probe is and what to expect, in the order of what is predicted."""
    sure, expected, sign = certainties(ranked, target), expect(ranked, target, bank, learner), target.metric.sign
    found = []
    for one in ranked:
        name = one.source.identity
        routes = expected.get(name, ())
        best = predicted(routes, sign)
        found.append(replace(one, certainty=sure.get(name), expected=routes, predicted=best))

    def behind(one: Ranked) -> float:
        value = one.predicted.value if one.predicted else None
        return float("inf") if value is None else -sign * value

    return sorted(found, key=behind)


def by_kind(names: Sequence[str], sets: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which names are estimators, and which are methods for sets; the usual ones where none is named.

    sets: the size that was asked for, None for no sets. Raises `Unfit` for an unknown name, or for a method for sets
    where no size was asked for.
    """
    estimators: list[str] = []
    gathering: list[str] = []
    for name in names:
        kind = catalogue.kind_of(name, (ESTIMATORS, SETS))
        (gathering if kind == SETS else estimators).append(catalogue.entry(kind, name).name)
    if gathering and sets is None:
        raise Unfit(f"`{gathering[0]}` judges sets, and no size was asked for", where="`--method`", fix="add --sets 3")
    if sets is not None and not gathering:
        gathering = ["ensemble_selection"]
    return tuple(estimators) or PROXIES, tuple(gathering)


def _receipts(ranked: Sequence[Ranked], target: Target, names: Sequence[str | Ranking]) -> tuple[Source, ...]:
    """The sources, each with a receipt. Raises `Refused` where none was ranked, and none only for want of time."""
    if not any(r.score or r.stopped for r in ranked):
        shown = called(r.source for r in ranked)
        reasons = "; ".join(f"`{shown[r.source.identity]}`: {r.error.what if r.error else r.dropped}" for r in ranked)
        fixes = [*dict.fromkeys(r.error.fix for r in ranked if r.error)]
        raise Refused(
            f"no source can be ranked ({reasons or 'the shelf is empty'})",
            where=f"ranking for `{target.name}`",
            fix=fixes[0] if len(fixes) == 1 else readers(target),
        )
    return tuple(r.source.after(_receipt(r, target, names)) for r in ranked)


def _tapped(
    sources: Sequence[Source], layers: Layers | None, pooling: Sequence[str] | None
) -> tuple[list[Source], list[Ranked]]:
    """The sources with their layers and poolings, and those that have not what is asked for."""
    from headstart.io import layers as rooms
    from headstart.io.sources import recipe_of

    entered: list[Source] = []
    unable: list[Ranked] = []
    for source in sources:
        try:
            plain = layers is None and pooling is None
            entered += [source] if plain else rooms.taps(source, recipe_of(source)[0], layers, pooling)
        except Problem as problem:
            unable.append(Ranked(source, error=problem))
    return entered, unable


def _receipt(ranked: Ranked, target: Target, estimators: Sequence[str | Ranking]) -> Receipt:
    return Receipt(
        step="rank",
        method=", ".join(catalogue.name_of(catalogue.make(ESTIMATORS, e)) for e in estimators),
        inputs=(ranked.source.identity, target.fingerprint),
        scores={"score": ranked.score} if ranked.score else {},
        seconds=ranked.seconds,
        warnings=(*((str(ranked.error),) if ranked.error else ()), *((_cut(ranked),) if ranked.lost else ())),
        facts={
            "lost_words": ranked.lost,
            "proxies": dict(ranked.proxies),
            "errors": dict(ranked.errors),
            "refused": {name: problem.as_dict() for name, problem in ranked.refused.items()},
            "dropped": ranked.dropped,
            "rows": ranked.rows,
            "lower": ranked.lower,
            "pace": ranked.pace,
            "error": ranked.error.as_dict() if ranked.error else None,
            "stopped": ranked.stopped,
            "loss": asdict(ranked.loss) if ranked.loss else None,
            "certainty": ranked.certainty.as_dict() if ranked.certainty else None,
            "expected": [one.as_dict() for one in ranked.expected],
            "predicted": ranked.predicted.as_dict() if ranked.predicted else None,
        },
    )


def _cut(ranked: Ranked) -> str:
    """What a reader must know of words without features."""
    words = f"{ranked.lost:,} words have" if ranked.lost != 1 else "1 word has"
    longest = ranked.source.facts.get("max_length")
    beyond = f" (sentences are cut at {longest} tokens)" if longest else ""
    return f"{words} no features{beyond}: estimators leave them out, and the score counts them as the commonest tag"
