"""Who takes part in the choice of a merge: every method that fits the models, at settings worth trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart import catalogue
from headstart.core import Problem, Refused

from .plans import Plan

# of each method, the settings that are tried; methods that are not here are tried as they are
GRID: dict[str, tuple[Mapping[str, Any], ...]] = {
    "task_arithmetic": tuple({"scale": s} for s in (0.2, 0.3, 0.5, 0.7, 1.0)),
    "ties": tuple({"density": d, "scale": s} for d in (0.2, 0.5) for s in (0.5, 1.0, 1.5)),
    "dare": tuple({"density": 0.5, "scale": s} for s in (0.3, 0.7)),
    "della": tuple({"scale": s} for s in (0.5, 1.0)),
    "breadcrumbs": tuple({"scale": s} for s in (0.3, 0.7)),
    "consensus_ta": tuple({"scale": s} for s in (0.3, 0.7, 1.0)),
    "knots": tuple({"scale": s} for s in (0.6, 1.0)),
    "magmax": tuple({"scale": s} for s in (0.5, 1.0)),
    "iso_c": tuple({"scale": s} for s in (1.0, 1.5, 2.5)),
    "iso_cts": tuple({"scale": s} for s in (1.0, 1.5, 2.5)),
    "tsv_m": tuple({"scale": s} for s in (0.5, 1.0)),
    "mats": ({"steps": 10}, {"steps": 100}, {"objective": "inputs"}),
    "adamerging": tuple({"learning_rate": 0.01, **s} for s in ({"balance": 1.0}, {"density": 0.2})),
    "concrete": tuple({"per": "row", "final": "expectation", "inner": i} for i in ("task_arithmetic", "adamerging")),
    "graft": tuple({"share": s} for s in (0.01, 0.1)),
    "evolve": ({"merge": "ties", "search": (("density", 0.1, 1.0), ("scale", 0.2, 2.0))}, {}),
}
# the same as another, or a question of one model; and those that train weights, which is more than a choice may cost
LEFT_OUT = frozenset({"uniform_soup", "wise_ft", "ema", "linear", "atm", "cold_fusion", "forkmerge"})
STAGES = {
    "combination.weighting": "data-free", "combination.trimming": "data-free", "combination.merging": "data-free",
    "combination.matching": "passes", "combination.learning": "learned",
    "combination.loops": "trained",
}  # fmt: skip


@dataclass(frozen=True)
class Entrant:
    """One method at one setting. stage: what it costs, from `data-free` over `passes` and `learned` to `trained`."""

    kind: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> str:
        return STAGES[self.kind]

    @property
    def name(self) -> str:
        said = ", ".join(f"{k}={v}" for k, v in self.settings.items() if not isinstance(v, tuple))
        return f"{self.method} ({said})" if said else self.method


def entrants(plan: Plan, methods: Sequence[str] | None, *, labels: bool) -> tuple[list[Entrant], list[dict[str, str]]]:
    """Those that fit, cheapest first, and those that do not, with the reason.

    methods: names; None is all that there are. labels: whether rows with labels are there to learn from.
    """
    from headstart.combination.merging import kind_of

    asked = [_meant(kind_of(m), m) for m in methods or ()]
    everything: list[tuple[str, str, dict[str, Any]]] = [
        (kind, name, {}) for kind in STAGES for name in catalogue.entries(kind) if name not in LEFT_OUT
    ]
    found: list[Entrant] = []
    refused = []
    for kind, name, implied in asked or everything:
        try:
            _check(plan, kind, name, labels)
        except Problem as problem:
            refused.append({"name": name, "why": problem.what})
            continue
        found += [Entrant(kind, name, {**settings, **implied}) for settings in GRID.get(name, ({},))]
    order = list(dict.fromkeys(STAGES.values()))
    return sorted(found, key=lambda e: order.index(e.stage)), refused


def _meant(kind: str, name: str) -> tuple[str, str, dict[str, Any]]:
    known = catalogue.entries(kind)
    return kind, catalogue.known_as(name, known), catalogue.implied(name, known)


def _check(plan: Plan, kind: str, name: str, labels: bool) -> None:
    from headstart.combination.plans import check

    method = catalogue.make(kind, name)
    if kind not in STAGES:
        raise Refused(
            f"`{name}` keeps parts of the models apart, and makes no one model",
            where="merge auto",
            fix=f"type: headstart merge {name} MODEL… --target MODEL=FILE",
        )
    check(plan.models, plan.base, method, "average", "refuse", plan.dtype)
    if kind in ("combination.learning", "combination.loops") and method.needs.labels and not labels:
        raise Refused(
            f"`{name}` reads labels, and there are none to learn from", where="merge auto", fix="name a label"
        )
