"""Who takes part in the choice of a merge: every method that fits the models, at settings worth trying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart import catalogue
from headstart.core import Problem, Refused

from .plans import Plan

# of each method, the settings that are tried, those that did best on real fine-tunes first (docs/benchmarks.md);
# methods that are not here are tried as they are
GRID: dict[str, tuple[Mapping[str, Any], ...]] = {
    "task_arithmetic": tuple({"scale": s} for s in (0.7, 0.3, 0.5, 1.0, 0.2)),
    "ties": tuple({"density": d, "scale": s} for s in (1.5, 1.0, 0.5) for d in (0.5, 0.2)),
    "dare": tuple({"density": 0.5, "scale": s} for s in (0.7, 0.3)),
    "della": tuple({"scale": s} for s in (1.0, 0.5)),
    "breadcrumbs": tuple({"scale": s} for s in (0.7, 0.3)),
    "consensus_ta": tuple({"scale": s} for s in (1.0, 0.7, 0.3)),
    "knots": tuple({"scale": s} for s in (1.0, 0.6)),
    "magmax": tuple({"scale": s} for s in (1.0, 0.5)),
    "iso_c": tuple({"scale": s} for s in (2.5, 1.5, 1.0)),
    "iso_cts": tuple({"scale": s} for s in (2.5, 1.5, 1.0)),
    "tsv_m": tuple({"scale": s} for s in (1.0, 0.5)),
    "mats": ({"objective": "inputs"}, {"steps": 10}, {"steps": 100}),
    "adamerging": tuple({"learning_rate": 0.01, **s} for s in ({"density": 0.2}, {"balance": 1.0})),
    "concrete": tuple({"per": "row", "final": "expectation", "inner": i} for i in ("adamerging", "task_arithmetic")),
    "graft": tuple({"share": s} for s in (0.1, 0.01)),
    "evolve": ({"merge": "ties", "search": (("density", 0.1, 1.0), ("scale", 0.2, 2.0))}, {}),
}
# of each stage the plain ones and those that did best there; all others come after them
FIRST = (
    "task_arithmetic", "ties", "tsv_m", "iso_c", "wudi", "pcb", "opcm",
    "regmean", "mats", "fisher",
    "atlas", "adamerging", "evolve", "concrete",
)  # fmt: skip
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
    """Those that fit, and those that do not, with the reason.

    The cheapest stage comes first, and of a stage the first settings of all methods before the second of any. methods:
    names, in the order in which they are tried; None is all that there are. labels: whether rows with labels are there
    to learn from.
    """
    from headstart.combination.merging import kind_of

    asked = [_meant(kind_of(m), m) for m in methods or ()]
    everything: list[tuple[str, str, dict[str, Any]]] = [
        (kind, name, {}) for kind in STAGES for name in catalogue.entries(kind) if name not in LEFT_OUT
    ]
    everything.sort(key=lambda e: FIRST.index(e[1]) if e[1] in FIRST else len(FIRST))
    found: list[tuple[int, Entrant]] = []  # the number of the setting comes first
    refused = []
    for kind, name, implied in asked or everything:
        try:
            _check(plan, kind, name, labels)
        except Problem as problem:
            refused.append({"name": name, "why": problem.what})
            continue
        each = enumerate(GRID.get(name, ({},)))
        found += [(number, Entrant(kind, name, {**settings, **implied})) for number, settings in each]
    order = list(dict.fromkeys(STAGES.values()))
    found.sort(key=lambda e: (order.index(e[1].stage), e[0]))
    return [e for _, e in found], refused


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
