"""Where the tensors of a planned merge go: the files of the result, and what is found in each of its folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from headstart.io.shards import Planned, Shard, folder_of, laid_out, numbered

from .plans import Plan

if TYPE_CHECKING:
    from headstart.core import Routed
    from headstart.io.atomic import Twin
    from headstart.numerics.delta import Form
    from headstart.numerics.made import Made

Found = dict[str, tuple[str, tuple[int, ...]]]  # (type, shape) of tensors, by name


def files_of(plan: Plan, shard_bytes: int) -> list[Shard]:
    """The files of one model; or of several with one body, whose files each of them has, and its head after them."""
    heads = {n for names in plan.apart.values() for n in names}
    body = laid_out([_planned(m) for m in plan.made if m.name not in heads], shard_bytes)
    if not plan.apart:
        return [s if s.folder else replace(s, folder=plan.donor.main) for s in body]
    main = [s for s in body if not s.folder]
    many, out = len(main) + 1, []
    for shard in body:
        where = [f"{place}{shard.folder or model.main}" for place, model, _ in plan.results]
        name = shard.name if shard.folder else numbered(main.index(shard), many)
        out.append(replace(shard, folder=where[0], also=tuple(where[1:]), name=name))
    made = {m.name: m for m in plan.made}
    for names in plan.apart.values():
        (head,) = laid_out([_planned(made[n]) for n in names], sum(made[n].bytes for n in names))
        out.append(replace(head, name=numbered(many - 1, many)))
    return out


def _planned(made: Made) -> Planned:
    return Planned(made.name, made.dtype, made.shape, folder_of(made.name))


def expected(plan: Plan) -> dict[str, Found]:
    """What a reader must find, by folder below the result."""
    heads = {n for names in plan.apart.values() for n in names}
    out: dict[str, Found] = {}
    for place, model, _ in plan.results:
        out[f"{place}{model.main}"] = {}
        for made in plan.made:
            inner = folder_of(made.name)
            if made.name not in heads:
                where = place + (inner or model.main)
            elif made.name in plan.apart[place.rstrip("/")]:
                where = inner
            else:
                continue
            out.setdefault(where, {})[made.name.removeprefix(inner)] = (made.dtype, made.shape)
    return out


def bytes_on_disk(plan: Plan, how: Twin) -> int:
    """What the weights take: a body that several models share counts once, unless the disk can only copy it.

    Parts that stay apart count too, once rows were read.
    """
    heads = {n for names in plan.apart.values() for n in names}
    body = sum(m.bytes for m in plan.made if m.name not in heads)
    copies = body * (len(plan.apart) - 1) if plan.apart and how == "copy" else 0
    return plan.bytes_written + copies + sum(storage(plan).values())


def storage(plan: Plan) -> dict[str, int]:
    """Bytes of what a merge keeps apart; nothing where it keeps nothing."""
    from headstart.numerics.delta import bytes_of
    from headstart.numerics.inserts import tensors_of

    if plan.routed is None:
        return {}
    experts = sum(bytes_of(form) for changes in _kept(plan.routed) for form in changes.values())
    inserts = tensors_of(plan.routed.mixtures, plan.routed.corrections).values()
    return {
        "experts": experts,
        "router": plan.routed.router.bytes if plan.routed.router is not None else 0,
        "inserts": sum(t.numel() * t.element_size() for t in inserts),
    }


def largest_part(plan: Plan) -> int:
    """Bytes of the largest of the files of what a merge keeps apart."""
    from headstart.numerics.delta import bytes_of

    if plan.routed is None:
        return 0
    return max(sum(bytes_of(form) for form in changes.values()) for changes in _kept(plan.routed))


def _kept(routed: Routed) -> list[Mapping[str, Form]]:
    """What is written as deltas, a file each."""
    return [*routed.experts, routed.common]


def largest(plan: Plan) -> int:
    """Bytes of the largest model that is made."""
    heads = [sum(m.bytes for m in plan.made if m.name in names) for names in map(set, plan.apart.values())]
    return plan.bytes_written - sum(heads) + max(heads, default=0)
