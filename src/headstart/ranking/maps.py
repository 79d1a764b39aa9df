"""Sources ranked by their maps: one pass of a base over the target's rows, and no other source is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import catalogue
from headstart.core import Budget, Needs, Problem, Ranking, Receipt, Refused, Source, Target

if TYPE_CHECKING:
    from headstart.execution.parts import Part
    from headstart.execution.run import Run
    from headstart.execution.views import RankView
    from headstart.inventory import Inventory
    from headstart.inventory.maps import Mapped

ESTIMATORS = "ranking.estimators"
ENCODER = Needs(gives=("features",))
LEAST_SURE = 0.5  # held-out R² of a map, below which a warning says that its source may be another than it seems


@dataclass(frozen=True, eq=False, slots=True)
class _Told:
    """What the estimators said of one source. through: the map it was seen through, None for the base."""

    values: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, Problem] = field(default_factory=dict)
    seconds: float = 0.0
    through: Mapped | None = None
    error: Problem | None = None


def rank_by_maps(
    target: Target,
    sources: Sequence[Source] | None,
    budget: Budget,
    method: str | Ranking | Sequence[str | Ranking] = "logme",
    *,
    base: Source,
    inventory: Inventory,
    run: Run | None = None,
) -> tuple[Source, ...]:
    """The sources, best first by the first estimator, each with a receipt; those without a map come last, with why.

    Only the base is opened, once: of each source that `Inventory.map` has mapped, what an estimator reads follows from
    the base's features, or from their moments. sources: None for the base and all on the shelf that have a map; the
    base should be among them. method: estimators that read features and labels alone. `receipt.facts["map"]` holds the
    map's held-out R² and rows, and is None for the base. A linear map adds nothing that the base lacks: it tells what a
    source brings forward and what it lets go, so a source that learned something new stands too low here, and
    estimators that hardly mind linear maps, such as `lda`, see all sources near the base.
    Raises `Refused` where the bank has no map from this base, or of none of these sources.
    """
    from headstart.execution.alone import lone_part
    from headstart.execution.views import MappedView

    asked = (method,) if not isinstance(method, (list, tuple)) else tuple(method)
    made = _fitting(asked, base, target)
    given = sources
    if given is None:
        given = [base, *(s for s in inventory.sources(target.modality) if s.identity != base.identity)]
    at = {source.identity: source for source in given}
    maps = inventory.maps(base, given)  # refused, where there are none, before the base is opened
    told: dict[str, _Told] = {}
    with lone_part(target, budget, run) as (here, part), _seen(part, base, here) as view:
        if base.identity in at:
            told[base.identity] = _estimated(view, base, target, made, here)
        for mapped in maps:
            if here.meter.left():
                seen, source = MappedView(view, mapped.map), at[mapped.source]
                told[mapped.source] = _estimated(seen, source, target, made, here, mapped)
            else:
                told[mapped.source] = _Told(error=_late())
    if sources is None:
        given = [source for source in given if source.identity in told]
    first = next(iter(made))
    placed = {identity: one.values.get(first) for identity, one in told.items()}
    if all(value is None for value in placed.values()):
        raise _none_ranked(given, told, base, target)
    order = sorted(given, key=lambda s: -(v if (v := placed.get(s.identity)) is not None else float("-inf")))
    return tuple(s.after(_receipt(s, told.get(s.identity) or _unmapped(s, base), base, target, made)) for s in order)


def _fitting(methods: Sequence[str | Ranking], base: Source, target: Target) -> dict[str, Ranking]:
    """By name; one that reads more than features, or does not fit the target, is `Refused`."""
    kept: dict[str, Ranking] = {}
    for method in methods:
        one: Ranking = catalogue.make(ESTIMATORS, method)
        name = catalogue.name_of(one)
        reason = catalogue.refusal(one.needs, (base,), target)
        if more := sorted(set(one.needs.gives) - {"features"}):
            reason = f"reads {', '.join(more)}, and a map tells of features alone"
        elif target.task.type == "tagging":
            reason = "would read words, and a map is of whole texts"
        elif {"rotation", "feature_scale"} <= set(one.claims):  # and so to every linear map that can be undone
            reason = "is the same for every invertible linear map of the features, so all sources would be level"
        if reason:
            raise Refused(f"`{name}` {reason}", where="ranking by maps", fix="use logme, or see `headstart methods`")
        kept[name] = one
    return kept


@contextmanager
def _seen(part: Part, base: Source, run: Run) -> Iterator[RankView]:
    """The target's labelled rows as the base sees them."""
    from headstart.execution.parts import features_job
    from headstart.execution.views import Pool, RankView, drawn, opener
    from headstart.io.cache import Cache

    target, cache = part.target, Cache(Path(part.cache))
    (outcome,) = run.do([features_job(part, [base], 0, part.root_rows)], "features")
    if not outcome.ok:
        raise outcome.error or _late()
    with opener(base) as open_:
        assert open_ is not None
        yield RankView(target, drawn(target), Pool.of_labelled(open_, target, cache), cache)


def _estimated(
    view: RankView,
    source: Source,
    target: Target,
    methods: Mapping[str, Ranking],
    run: Run,
    through: Mapped | None = None,
) -> _Told:
    begun = run.meter.session()
    values: dict[str, float] = {}
    refused: dict[str, Problem] = {}
    for name, method in methods.items():
        try:
            if reason := catalogue.refusal(method.needs, (source,), target):
                raise Refused(reason, where=f"source `{source.name}`", fix="see `headstart methods ranking`")
            values[name] = float(method(view.seen_by(method.needs, name)).value)
        except Problem as problem:
            refused[name] = problem
    return _Told(values, refused, run.meter.session() - begun, through)


def _receipt(source: Source, told: _Told, base: Source, target: Target, methods: Mapping[str, Ranking]) -> Receipt:
    through, warnings = told.through, [str(told.error)] if told.error else []
    if through is not None and through.r2 < LEAST_SURE:
        warnings.append(
            f"its map explains {through.r2:.0%} of its features on new rows; its place is a guess until it is opened"
        )
    return Receipt(
        step="rank_by_maps",
        method=", ".join(methods),
        settings={name: catalogue.settings(method) for name, method in methods.items()},
        inputs=(source.identity, target.fingerprint, base.identity),
        seconds=told.seconds,
        warnings=tuple(warnings),
        facts={
            "proxies": dict(told.values),
            "refused": {name: problem.as_dict() for name, problem in told.refused.items()},
            "map": None if through is None else {"r2": through.r2, "rows": through.rows, "on": through.on},
            "base": base.identity,
            "rows": len(target.labelled),
            "error": told.error.as_dict() if told.error else None,
        },
    )


def _unmapped(source: Source, base: Source) -> _Told:
    return _Told(
        error=Refused(
            f"it has no map from `{base.name}`",
            where=f"source `{source.name}`",
            fix=f"headstart inventory map {source.name} --base {base.name} --on ROWS",
        )
    )


def _late() -> Problem:
    return Problem("the time was over before it was ranked", where="ranking by maps", fix="give more minutes")


def _none_ranked(sources: Sequence[Source], told: Mapping[str, _Told], base: Source, target: Target) -> Refused:
    reasons = []
    for source in sources:
        one = told.get(source.identity) or _unmapped(source, base)
        reasons.append(f"`{source.name}`: {'; '.join(p.what for p in (one.error, *one.refused.values()) if p)}")
    return Refused(
        f"no source can be ranked ({'; '.join(reasons) or 'there is none'})",
        where=f"ranking for `{target.name}` by maps from `{base.name}`",
        fix="map some with `headstart inventory map`, or rank them themselves",
    )
