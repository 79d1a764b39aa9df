"""Which routes that train weights compete: the largest plan whose forecast, measured on a few steps, fits the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from headstart import adaptation, catalogue
from headstart.core import Source

if TYPE_CHECKING:
    from headstart.execution.parts import Part
    from headstart.execution.run import Run

GRADIENT_ROUTES = ("lp_ft", "lora", "full_finetune")
SHARE = 0.85  # of the time that everything else leaves, for routes that train weights
LEAST_STEPS = 16  # a schedule is not cut below this, nor below a tenth; the time would be left unused
MEASURED = 60  # steps of the schedule whose beginnings a forecast measures
FEW, MORE = 2, 8  # steps of it
WARM_SECONDS = 20.0  # that the first start may take: it imports, and opens the source


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The best `sources` of the ranking × routes compete on fold 0, and the best `survivors` go beyond it.

    horizon: steps of a schedule that was cut to fit the time; None for each route's own. forecast: seconds that this
    takes in all, refits apart; None without a time limit. reason: in words.
    """

    sources: int = 0
    routes: tuple[str, ...] = ()
    survivors: int = 0
    horizon: int | None = None
    forecast: float | None = None
    reason: str = ""

    def rounds(self, workers: int, folds: int) -> int:
        """How often all workers fit one fold, when this plan is followed once; each fitting takes one worker."""
        first = self.sources * len(self.routes)
        later = min(self.survivors, first) * (folds - 1)
        return ceil(first / workers) + ceil(later / workers)

    def seconds(self, speed: Speed, folds: int) -> float:
        """Of following this plan once, with a refit on a quarter more rows."""
        return (self.rounds(speed.workers, folds) + 1.25) * speed.seconds


PLANS = (
    Plan(sources=2, routes=GRADIENT_ROUTES, survivors=3),
    Plan(sources=1, routes=GRADIENT_ROUTES, survivors=2),
    Plan(sources=1, routes=("lp_ft", "lora"), survivors=1),
    Plan(sources=1, routes=("lp_ft",), survivors=1),
)


@dataclass(frozen=True, slots=True)
class Speed:
    """A forecast of one fitting on one fold: seconds for a whole schedule of `horizon` steps, with all workers busy."""

    seconds: float
    horizon: int
    workers: int = 1


def planned(part: Part, able: Sequence[Source], run: Run, *, parts: float, cached: float) -> Plan:
    """Decides once, on the root; later calls are given what was decided.

    able: sources that give gradients, best first. parts: how often all of this is done, in fittings of the root's size.
    cached: seconds that the rest of one choice takes.
    """
    fields = run.decide("routes", lambda: _fields(_largest(part, able, run, parts, cached)))
    plan = Plan(**{**fields, "routes": tuple(fields["routes"])})
    if plan.forecast is not None:
        run.forecast("adapt", plan.forecast)
    return plan


def _fields(plan: Plan) -> Mapping[str, Any]:
    return {**asdict(plan), "routes": list(plan.routes)}


def _largest(part: Part, able: Sequence[Source], run: Run, parts: float, cached: float) -> Plan:
    if not able:
        return Plan(reason="no source gives gradients")
    if run.meter.trials_left < 1:
        return Plan(reason="all trials were used by probes")
    if run.meter.remaining() == inf:
        return replace(PLANS[0], reason="no time limit")
    speed = measured(part, able[0], run)
    if speed is None:
        return Plan(reason="a few steps did not finish in a sixth of the time left")
    left = run.meter.remaining()
    folds = len(adaptation.cells_of(part, ("gradients",)))
    room = SHARE * max(0.0, left - (parts - 1) * cached) / parts
    for plan in PLANS:
        if plan.sources <= len(able) and (need := plan.seconds(speed, folds)) <= room:
            seconds = plan.rounds(speed.workers, folds) * speed.seconds * parts
            return replace(plan, forecast=seconds, reason=f"forecast {need * parts:.0f} s of {left:.0f} s")
    least = PLANS[-1]
    need = least.seconds(speed, folds)
    horizon = int(speed.horizon * room / need)
    if parts == 1 and horizon >= max(LEAST_STEPS, speed.horizon / 10):
        reason = f"its own schedule has {speed.horizon} steps; cut to {horizon}, which fit into {room:.0f} s"
        return replace(least, horizon=horizon, forecast=room, reason=reason)
    what = "all outer folds" if parts > 1 else "the folds"
    free = f"{room * parts:.0f} s were free"
    return Plan(reason=f"the smallest plan over {what} was forecast at {need * parts:.0f} s, and {free}")


def measured(part: Part, source: Source, run: Run) -> Speed | None:
    """Timed on a few steps, so that neither imports nor opening the source count as training.

    Two routes at once where there are two workers, as a rung has them. None where the first few steps take more than a
    sixth of the time left: a schedule with its folds would not fit. Where only the second few do, what they took until
    they were stopped is the speed: on a busy machine it is better to try than to leave the time unused.
    """
    cell = adaptation.cells_of(part, ("gradients",))[:1]
    share = run.meter.remaining() / 6
    names = [n for n in GRADIENT_ROUTES if not catalogue.missing(catalogue.entry(adaptation.ROUTES, n))]
    both = [adaptation.route(source, name, part.target.seed) for name in names[: run.workers]]

    starts = (
        (WARM_SECONDS, {"until": 1e-3}),  # on its own schedule: says how long that is
        (0.0, {"horizon": MEASURED, "until": FEW / MEASURED}),
        (0.0, {"horizon": MEASURED, "until": MORE / MEASURED}),
    )
    ends = []
    for least, steps in starts:
        limit = max(share, least) if share < inf else None
        ends.append(adaptation.fit(part, both, cell, run, "forecast", limit_seconds=limit, steps=steps))
        enough = len(ends) == len(starts)
        if not all(e.ok or (enough and e.stopped == "time") for e in ends[-1]):
            return None
    first, few, more = ends
    horizon = int(first[0].value["folds"][0]["facts"]["horizon"])
    rates = [max(0.0, m.seconds - f.seconds) / (MORE - FEW) for f, m in zip(few, more, strict=True)]
    slowest = max(f.seconds + rate * (horizon - FEW) for f, rate in zip(few, rates, strict=True))
    return Speed(slowest, horizon, len(both))
