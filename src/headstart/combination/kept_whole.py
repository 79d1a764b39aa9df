"""What becomes of modules that adapters keep whole, such as heads and poolers, where the adapters are merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from headstart.core import Refused

if TYPE_CHECKING:
    import torch

    from headstart.io.peft_folders import Adapter
    from headstart.numerics.delta import Form

    Before = Callable[[str], torch.Tensor | None]  # what the base has in the place of a tensor of the adapters

Heads = Literal["same", "average", "separate"]
JOIN = (
    "to join labels by name, make whole models of them with `headstart adapter to-delta` and `headstart delta apply`, "
    "and type: headstart merge linear MODEL… --heads concatenate"
)
NEAR = 1e-6  # of 1: what counts as full weight


def merged(name: str, having: Sequence[tuple[Form, float]], heads: Heads, before: Before) -> Form:
    """A tensor that some keep whole: base + Σ weight · (tensor - base) where the base has it.

    Where it has none, the tensor itself, or for `average` the weighted mean. Raises `Refused` for those that differ,
    but for `average`.
    """
    import torch

    from headstart.numerics.delta import Whole

    kept = [(c.values, w) for c, w in having if isinstance(c, Whole)]
    first, total = kept[0][0], sum(w for _, w in kept)
    fit = len(kept) == len(having) and all(v.shape == first.shape for v, _ in kept)
    alike = fit and all(torch.equal(v, first) for v, _ in kept)
    if alike and abs(total - 1) < NEAR:
        return Whole(first)
    base = before(name)
    if base is not None and _weighs(base, first) and (alike or (fit and heads == "average")):
        changes = torch.stack([w * (v.double() - base.double()) for v, w in kept])
        return Whole((base.double() + changes.sum(dim=0)).to(first.dtype))
    if alike:
        return Whole(first)
    if fit and heads == "average" and abs(total) > 1e-9:
        return Whole(torch.stack([v.float() * (w / total) for v, w in kept]).sum(dim=0).to(first.dtype))
    raise Refused(
        f"`{name}` is kept whole, and differs between the adapters",
        where="adapter merge",
        fix=f"average what has one shape with --heads average, keep each head with --heads separate, or {JOIN}",
    )


def _weighs(base: torch.Tensor | None, values: torch.Tensor) -> bool:
    """Whether a change can be told, and so be weighed."""
    return base is not None and base.shape == values.shape and base.is_floating_point() and values.is_floating_point()


def unweighed(
    adapters: Sequence[Adapter], shares: Sequence[float], before: Before, base: str | None
) -> tuple[str, ...]:  # fmt: skip
    """A sentence for those tensors that stay at full strength whatever the weights of the adapters that keep them."""
    from headstart.numerics.delta import Whole

    found: dict[tuple[tuple[str, ...], float], list[str]] = {}
    for name in dict.fromkeys(n for a in adapters for n, c in a.changes.items() if isinstance(c, Whole)):
        kept = [(a, w) for a, w in zip(adapters, shares, strict=True) if isinstance(a.changes.get(name), Whole)]
        total, first = sum(w for _, w in kept), kept[0][0].changes[name]
        if abs(total - 1) >= NEAR and isinstance(first, Whole) and not _weighs(before(name), first.values):
            found.setdefault((tuple(a.name for a, _ in kept), total), []).append(name)
    return tuple(said(names, who, total, base) for (who, total), names in found.items())


def said(tensors: Sequence[str], adapters: Sequence[str], weight: float, base: str | None) -> str:
    """
    >>> said(["pooler.weight", "pooler.bias"], ["mails"], 0.5, None)
    '`pooler.weight` and 1 more, kept whole by `mails` alone, count in full and not 0.5: --base lets changes be weighed'
    """
    more = f" and {len(tensors) - 1} more" if len(tensors) > 1 else ""
    who = f"`{adapters[0]}` alone" if len(adapters) == 1 else ", ".join(f"`{a}`" for a in adapters)
    why = f"`{base}` has no such tensor to weigh a change by" if base else "--base lets changes be weighed"
    verb = "count" if more else "counts"
    return f"`{tensors[0]}`{more}, kept whole by {who}, {verb} in full and not {weight:.4g}: {why}"
