"""Expect: what score a source will reach by each route, learned from past targets, with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Expecting, Problem, Target, Unfit

if TYPE_CHECKING:
    import numpy as np

    from headstart.inventory import Inventory
    from headstart.numerics.pools import Pool
    from headstart.ranking.racing import Ranked

    Array = np.ndarray[Any, Any]

FUSION, ROUTES = "ranking.fusion", "adaptation.routes"
PROBE = "linear_probe"
COVERAGE = 0.9
CROSS_VALIDATED = "cross-validated here"


@dataclass(frozen=True, slots=True)
class Expected:
    """What to expect of one source by one route, in the target's metric.

    value, low, high: None where nothing can be said; `basis` says why, or what it rests on. coverage: of the interval.
    targets, runs: past targets and runs on them that were learned from, a source's on one target counted once; 0 for
    the source's own cross-validated probe.
    """

    route: str
    basis: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    coverage: float = COVERAGE
    targets: int = 0
    runs: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def expect(
    ranked: Sequence[Ranked], target: Target, inventory: Inventory | None, method: str | Expecting = "ridge"
) -> dict[str, tuple[Expected, ...]]:
    """By identity, what to expect of each source that was ranked to the end, by each route that it allows.

    The probe's own cross-validated score needs no past, and is all there is without an inventory. Of the other routes
    the bank's runs tell how much more came of sources of which as much had been known. With fewer than three past
    targets nothing is said.
    """
    scored = [one for one in ranked if one.score is not None]
    found: dict[str, list[Expected]] = {one.source.identity: [_probed(one)] for one in scored}
    if inventory is None:
        return {identity: tuple(expected) for identity, expected in found.items()}
    made: Expecting = catalogue.make(FUSION, method)
    for name, entry in catalogue.entries(ROUTES).items():
        fitting = [one for one in scored if not catalogue.refusal(entry.needs, (one.source,), target)]
        if name == PROBE or not fitting:
            continue
        told = _by_route(fitting, scored, target, inventory.pools(target, name), name, made)
        for one in fitting:
            found[one.source.identity].append(told[one.source.identity])
    return {identity: tuple(expected) for identity, expected in found.items()}


def forecast_of(
    past: Sequence[Pool], new: Pool, method: str | Expecting = "ridge", coverage: float = COVERAGE
) -> tuple[Array, Array, Array, str]:
    """(S,) values to expect of a new target's sources, the ends of their intervals, and the rule of these.

    Raises `Unfit` below three past targets.
    """
    from headstart.numerics.conformal import forecast
    from headstart.numerics.pools import read

    made: Expecting = catalogue.make(FUSION, method)
    if len(past) < 1:
        raise Unfit("no past target", where="what to expect", fix="solve more targets with this bank")
    seen = read(past, new)
    told = forecast(made, seen.past, seen.new, coverage=coverage)
    return seen.start + told.values, seen.start + told.lows, seen.start + told.highs, told.rule


def predicted(expected: Sequence[Expected], sign: int) -> Expected | None:
    """The one score of a source: the best that is expected of it by some route, its probe among them; None for none.

    What past runs say counts from as many targets on as intervals need that assume no shape of the errors.
    """
    from headstart.numerics.conformal import free_of_shape

    told = [
        (sign * one.value, one)
        for one in expected
        if one.value is not None and (not one.targets or free_of_shape(one.targets, one.coverage))
    ]
    return max(told, key=lambda pair: pair[0])[1] if told else None


def _probed(one: Ranked) -> Expected:
    """The cross-validated probe, whose interval is 95 %, brought to the coverage of the others."""
    from scipy.stats import norm

    assert one.score is not None
    by = norm.ppf((1 + COVERAGE) / 2) / norm.ppf(0.975)
    value, low, high = one.score.value, one.score.low, one.score.high
    return Expected(PROBE, CROSS_VALIDATED, value, value - by * (value - low), value + by * (high - value))


def _by_route(
    fitting: Sequence[Ranked],
    scored: Sequence[Ranked],
    target: Target,
    past: Sequence[Pool],
    route: str,
    method: Expecting,
) -> Mapping[str, Expected]:
    import numpy as np

    from headstart.numerics.metrics import bounds

    able = [one for one in past if one.base is not None]
    gained = [one.values - one.base for one in past if one.values is not None and one.base is not None]
    runs = sum(int(np.isfinite(one).sum()) for one in gained)
    try:
        values, lows, highs, rule = forecast_of(able, _pool(scored, target), method)
    except Problem as problem:
        return {one.source.identity: Expected(route, problem.what, targets=len(able), runs=runs) for one in fitting}
    least, most = bounds(target.metric.name)
    sign, told = target.metric.sign, {}
    words = f"from {runs} past runs on {len(able)} targets" + (", errors taken for normal" if rule == "student" else "")
    for at, one in enumerate(scored):
        ends = sorted((sign * lows[at], sign * highs[at]))
        told[one.source.identity] = Expected(
            route,
            words,
            min(max(float(sign * values[at]), least), most),
            max(float(ends[0]), least),
            min(float(ends[1]), most),
            targets=len(able),
            runs=runs,
        )
    return told


def _pool(scored: Sequence[Ranked], target: Target) -> Pool:
    import numpy as np

    from headstart.numerics.pools import Pool

    names = dict.fromkeys(name for one in scored for name in one.proxies)
    return Pool(
        target=target.fingerprint,
        sources=tuple(one.source.identity for one in scored),
        proxies={name: np.array([one.proxies.get(name, np.nan) for one in scored]) for name in names},
        base=np.array([target.metric.sign * one.score.value for one in scored if one.score is not None]),
    )
