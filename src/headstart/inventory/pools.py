"""What estimators said of sources on past targets, and what came of them, for what to expect on a new one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headstart.core import METRICS, Target

from .database import Database
from .documents import load

if TYPE_CHECKING:
    from headstart.numerics.pools import Pool

PROBE = "linear_probe"  # what is known of every ranked source before it is trained


def own(database: Database, target: Target, route: str) -> list[Pool]:
    """Past targets of this one's task type, modality and metric on which some source was tuned by this route.

    All figures are of validation rows, with higher better. The target itself is left out. Of a target that was solved
    several times, a source's figures are means over the runs.
    """
    from sqlalchemy import select

    from .tables import runs, scores, targets, trials

    alike = (
        targets.c.task == target.task.type,
        targets.c.modality == target.modality,
        targets.c.metric == target.metric.name,
        targets.c.fingerprint != target.fingerprint,
    )
    of_trials = (
        select(runs.c.target, trials.c.source, trials.c.method, trials.c.valid)
        .join(runs, runs.c.id == trials.c.run)
        .join(targets, targets.c.fingerprint == runs.c.target)
        .where(*alike, trials.c.method.in_((PROBE, route)), trials.c.kind == "adaptation.routes")
        .where(trials.c.valid.is_not(None), trials.c.status == "done", trials.c.source.is_not(None))
        .order_by(runs.c.at, trials.c.run, trials.c.number)
    )
    of_scores = (
        select(scores.c.target, scores.c.source, scores.c.estimator, scores.c.value)
        .join(targets, targets.c.fingerprint == scores.c.target)
        .where(*alike, scores.c.value.is_not(None))
        .order_by(scores.c.run, scores.c.source, scores.c.estimator)
    )
    sign = METRICS[target.metric.name].sign
    told: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with database.reading() as connection:
        for past, source, method, valid in connection.execute(of_trials):
            told[past][method][source].append(sign * valid)
        for past, source, estimator, value in connection.execute(of_scores):
            told[past][f"proxy {estimator}"][source].append(value)
    return [_pool(past, said, route) for past, said in told.items() if route in said]


def imported(
    database: Database, origin: str, method: str, metric: str, where: Mapping[str, Any] | None = None
) -> list[Pool]:
    """Past targets of one origin's records, with the `proxies` that stand in their `extra`; there are no bases.

    where: settings that a record's `extra` must have. Runs of one source and model are averaged, and so is what
    estimators said of them.
    """
    from sqlalchemy import select

    from .tables import records as t

    query = (
        select(t.c.target, t.c.source, t.c.model, t.c.value, t.c.sign, t.c.extra)
        .where(t.c.origin == origin, t.c.method == method, t.c.metric == metric)
        .order_by(t.c.key)
    )
    told: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with database.reading() as connection:
        for target, source, model, value, sign, extra in connection.execute(query):
            said = load(extra, database.where)
            if source == target or any(said.get(name) != wanted for name, wanted in (where or {}).items()):
                continue
            name = f"{source} ({model})" if model and model != source else source
            told[target][method][name].append(sign * value)
            for proxy, score in said.get("proxies", {}).items():
                told[target][f"proxy {proxy}"][name].append(score)
    return [_pool(target, said, method) for target, said in sorted(told.items())]


def _pool(target: str, told: Mapping[str, Mapping[str, list[float]]], route: str) -> Pool:
    import numpy as np

    from headstart.numerics.pools import Pool

    sources = tuple(sorted({source for said in told.values() for source in said}))

    def means(said: Mapping[str, list[float]]) -> Any:
        return np.array([np.mean(said[source]) if source in said else np.nan for source in sources])

    return Pool(
        target=target,
        sources=sources,
        proxies={name.removeprefix("proxy "): means(said) for name, said in told.items() if name.startswith("proxy ")},
        base=means(told[PROBE]) if PROBE in told and route != PROBE else None,
        values=means(told[route]),
    )
