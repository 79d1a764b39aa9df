"""Merges with parts that stay apart: what the shared body is made of, and what every task keeps beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from headstart.core import Refused, Routed, Steps
from headstart.io import recipes
from headstart.numerics.delta import Form, narrowed, tensors_of
from headstart.numerics.made import FLOATS

from .live import LiveMerge, TaskRows

if TYPE_CHECKING:
    from .plans import Plan

SURE = 0.9  # how often a router should be right, below which it is said
LINKS = {"softmax": "single_label", "sigmoid": "multi_label", "identity": "regression"}


def check(plan: Plan, method: Any, tasks: Sequence[TaskRows]) -> None:
    """Raises `Refused` for models that such a merge cannot serve, and for rows of some of them only."""
    for model in plan.models:
        head = recipes.read(model.where).head
        kind = LINKS[head.link] if head is not None else "features"
        if kind not in method.needs.tasks:
            raise Refused(
                f"`{model.name}` predicts {kind}, and `{plan.method}` takes {', '.join(method.needs.tasks)}",
                where=f"model `{model.where}`",
                fix="name classifiers with one label a row, or merge with another method",
            )
    lacking = [m.name for i, m in enumerate(plan.models) if i not in {t.own for t in tasks}]
    if lacking and (tasks or "features" in method.needs.gives):
        raise Refused(
            f"no rows are named for `{lacking[0]}`",
            where=f"targets of `{plan.method}`",
            fix=f"add --target {lacking[0]}=FILE" if tasks else "add --target MODEL=FILE for each model",
        )


def parted(plan: Plan, method: Any, view: LiveMerge, steps: Steps) -> Plan:
    """The plan, with what its method keeps apart."""
    from .learned import settled

    found: Routed = method(view, steps)
    whole = replace(found, experts=[_narrow(one, plan) for one in found.experts], common=_narrow(found.common, plan))
    plan = settled(plan, view, found.shared)
    told = (found.shared.facts.get("router") or {}).get("accuracy")
    unsure = f"the router names the right task for {100 * (told or 0):.0f} % of rows that it has not seen"
    warnings = (*plan.warnings, unsure) if told is not None and told < SURE else plan.warnings
    return replace(plan, routed=whole, learned={**plan.learned, "parts": digest(whole)}, warnings=warnings)


def _narrow(changes: Mapping[str, Form], plan: Plan) -> dict[str, Form]:
    """Numbers in the types that the tensors are written in, where those have 16 bits."""
    types = {m.name: FLOATS[m.dtype] for m in plan.made if m.dtype in ("F16", "BF16")}
    return {n: narrowed(form, types[n]) if n in types else form for n, form in changes.items()}


def digest(routed: Routed) -> str:
    """Of all that is kept apart."""
    from headstart.numerics import inserts, routers

    every = enumerate([*routed.experts, routed.common])
    forms = {f"{number}.{name}": form for number, one in every for name, form in one.items()}
    held = {f"{name}.{field}": t for name, form in forms.items() for field, t in tensors_of(form).items()}
    if routed.router is not None:
        held |= {f"router.{n}": t for n, t in routers.tensors_of(routed.router).items()}
    held |= inserts.tensors_of(routed.mixtures, routed.corrections)
    found = hashlib.sha256()
    for name, tensor in held.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
