"""Merges that read rows: once they were read, every tensor of the plan has what is to be done with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.core import Learned, Looped, Needs, Passes, Refused, Steps, TensorContext

from .alternating import in_turn, layers_of
from .live import LiveMerge, TaskRows, alive
from .plans import Plan

if TYPE_CHECKING:
    from headstart.numerics.made import Made

Array = np.ndarray[Any, Any]
ROWS = 256  # of each model's own, at which passes look


def learned_from(
    plan: Plan, tasks: Sequence[TaskRows], *, rows: int = ROWS, steps: int | None = None,
    told: Callable[[int], None] | None = None, kind: type[LiveMerge] = LiveMerge,
) -> Plan:  # fmt: skip
    """The plan, with what its method made of the rows; without one that reads rows, as it is.

    rows: the most that passes look at, of each model. steps: in place of the method's own number. kind: of the view.
    """
    from . import parted
    from .merging import ROUTING, kind_of

    if plan.reads is None:
        return plan
    apart = kind_of(plan.reads) == ROUTING
    if not tasks and not needs_none(plan.reads):
        raise Refused(
            f"`{plan.method}` reads rows, and none are named",
            where="merge",
            fix=f"add --target {'MODEL=' if apart else ''}FILE and --label COLUMN, or use a method that reads none",
        )
    if apart:
        parted.check(plan, plan.reads, tasks)
    with alive(plan, tasks, labels=plan.reads.needs.labels, told=told, kind=kind) as view:
        return told_by(plan, plan.reads, view, Steps(horizon=steps), rows)


def needs_none(method: Any) -> bool:
    """Whether a method that may read rows also does without."""
    from .merging import ROUTING, kind_of

    return kind_of(method) == ROUTING and "features" not in method.needs.gives


def told_by(plan: Plan, method: Any, view: LiveMerge, steps: Steps, rows: int = ROWS) -> Plan:
    """The plan, with a method of any kind on what the models changed; of rows it reads those of the view."""
    from . import parted
    from .merging import ROUTING, STREAMS, kind_of

    kind = kind_of(method)
    if kind in STREAMS:
        names = set(view.tensors)
        made = [replace(m, kind=STREAMS[kind], method=method) if m.name in names else m for m in plan.made]
        return replace(plan, made=tuple(made))
    if kind == "combination.matching":
        return matched(plan, method, view, rows)
    if kind == ROUTING:
        return parted.parted(plan, method, view, steps)
    if kind == "combination.loops":
        return trained(plan, view, method(view, _begun(view, method.start), steps))
    return settled(plan, view, method(view, steps))


def matched(plan: Plan, method: Any, view: LiveMerge, rows: int = ROWS) -> Plan:
    """The plan of a merge by what passes show."""

    def with_passes(made: Made, passes: Sequence[Mapping[str, Passes]]) -> Made:
        return replace(made, kind="merging", method=Matched(method, [p.get(made.name, Passes()) for p in passes]))

    change = {
        m.name: m for m in plan.made if _is_merged(plan, m) and not (method.needs.same_base and m.base is None)
    }  # fmt: skip
    if "merged_inputs" in method.asks:
        passes = in_turn(
            layers_of(list(change), view.called()), len(plan.models),
            lambda model, names, merged: view.inputs(model, names, merged, rows, seed=plan.seed),
            lambda names, found: view.merged([with_passes(change[n], found) for n in names]),
        )  # fmt: skip
    else:
        passes = view.passes(method.asks, rows, seed=plan.seed)
    made = tuple(with_passes(m, passes) if m.name in change else m for m in plan.made)
    return replace(plan, made=made, reads=None, learned={"rows": rows, "tasks": list(view.fingerprints)})


def settled(plan: Plan, view: LiveMerge, learned: Learned) -> Plan:
    """The plan of a merge that was learned."""
    from .merging import made_of

    facts = _facts(view, learned)
    if learned.method is not None:
        change: dict[str, Any] = {
            n: made_of(learned.method, learned.own.get(n, learned.settings)) for n in view.tensors
        }
        facts |= {"method": learned.method, "settings": dict(learned.settings)}
        if learned.own:
            facts["own"] = {n: dict(s) for n, s in learned.own.items()}
    else:
        assert learned.shares is not None
        change = {
            n: _taken(plan, learned, n, tuple(map(float, s))) for n, s in zip(view.tensors, learned.shares, strict=True)
        }
        facts["shares"] = {
            n: [round(float(x), 6) for x in s] for n, s in zip(view.tensors, learned.shares, strict=True)
        }
        facts["gates"] = digest(learned.gates)
    made = [replace(m, kind=change[m.name][0], method=change[m.name][1]) if m.name in change else m for m in plan.made]
    return replace(plan, made=tuple(made), reads=None, learned=facts)


def trained(plan: Plan, view: LiveMerge, looped: Looped) -> Plan:
    """The plan of a merge whose weights were trained."""
    found = looped.weights
    made = [
        replace(m, base=None, tuned=(), kind="merging", method=Trained(found[m.name])) if m.name in found else m
        for m in plan.made
    ]
    facts = {**_facts(view, looped), "weights": digest({n: w.numpy() for n, w in found.items()})}
    return replace(plan, made=tuple(made), reads=None, learned=facts)


def _begun(view: LiveMerge, start: str) -> dict[str, torch.Tensor]:
    """The weights at which a loop begins."""
    if start in ("base", "models"):
        return view.shared(np.zeros((len(view.tensors), len(view.models))))
    return view.made(start, {})


def _facts(view: LiveMerge, found: Learned | Looped) -> dict[str, Any]:
    curve = [[step, round(value, 6)] for step, value in found.curve]
    return {**found.facts, "tasks": list(view.fingerprints), "curve": curve}


def _taken(plan: Plan, learned: Learned, name: str, shares: tuple[float, ...]) -> tuple[str, Any]:
    from .weighting.linear import Linear
    from .weighting.task_arithmetic import TaskArithmetic

    if name in learned.gates:
        return "merging", Gated(shares, learned.gates[name])
    if plan.base is None:
        return "weighting", Linear(weights=shares, normalize=False)
    return "weighting", TaskArithmetic(weights=shares, scale=1.0)


def _is_merged(plan: Plan, made: Made) -> bool:
    return made.method is not None and not any(made.name in names for names in plan.apart.values())


def digest(arrays: Mapping[str, Array]) -> str:
    """Of all of them, by name and shape."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(f"{name}\0{arrays[name].shape}\0".encode())
        found.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
    return found.hexdigest()[:16] if arrays else ""


class Matched:
    """A merge of one tensor by what passes showed there; satisfies `core.Merging`."""

    def __init__(self, method: Any, passes: Sequence[Passes]) -> None:
        self._method, self._passes = method, passes

    @property
    def needs(self) -> Needs:
        found: Needs = self._method.needs
        return found

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self._method(context, base.float(), [t.float() for t in tuned], self._passes)
        return found


class Gated:
    """Shares of the changes, each entry's times its gate: (models or 1, …), as large as the tensor or repeated."""

    needs = Needs(same_base=True, copies=4)

    def __init__(self, shares: Sequence[float], gates: Array) -> None:
        self._shares, self._gates = shares, gates

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        each = np.broadcast_to(self._gates, (len(self._shares), *context.shape))
        tile = slice(context.offset, context.offset + base.numel())
        total = torch.zeros_like(base)
        for share, gate, one in zip(self._shares, each, tuned, strict=True):
            factors = torch.from_numpy(gate.flat[tile]).to(base.dtype).view(base.shape)
            total += share * factors * (one - base)
        return base + total


class Trained:
    """A tensor as it was trained, whatever the models have there."""

    needs = Needs(copies=1)

    def __init__(self, weights: torch.Tensor) -> None:
        self._weights = weights.reshape(-1)

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del tuned
        return self._weights[context.offset : context.offset + base.numel()].view(base.shape).clone()
