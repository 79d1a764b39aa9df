"""What a method of the kind `matching` must do, and what it may claim: on tensors with made-up passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from headstart.core import Passes

from . import merges

Law = Callable[..., None]
any_context = merges.any_context
OUT, IN = 6, 5


def any_passes(seed: int, rows: int = 20) -> Passes:
    """Of a layer with some rows, of which the inputs span only a part where they are few."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, IN, generator=g, dtype=torch.float64)
    d = torch.randn(rows, OUT, generator=g, dtype=torch.float64)
    squares = torch.rand(OUT, IN, generator=g)
    return Passes(squares=squares, inputs=x.T @ x / rows, gradients=d.T @ d / rows)


def drawn(seed: int, models: int = 3) -> tuple[torch.Tensor, list[torch.Tensor], list[Passes]]:
    base, *tuned = torch.randn(1 + models, OUT, IN, generator=torch.Generator().manual_seed(seed))
    return base, [base + 0.1 * t for t in tuned], [any_passes(seed + k) for k in range(models)]


def _merged(method: Any, base: torch.Tensor, tuned: Sequence[torch.Tensor], passes: Sequence[Passes]) -> torch.Tensor:
    out: torch.Tensor = method(any_context(), base, tuned, passes)
    return out


def shape_and_dtype(method: Any, seed: int) -> None:
    base, tuned, passes = drawn(seed)
    kept = [base.clone(), *(t.clone() for t in tuned)]
    out = _merged(method, base, tuned, passes)
    assert out.shape == base.shape
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())
    assert all(torch.equal(a, b) for a, b in zip((base, *tuned), kept, strict=True)), "changes its input"


def repeatable(method: Any, seed: int) -> None:
    assert torch.equal(_merged(method, *drawn(seed)), _merged(method, *drawn(seed)))


def no_change_no_change(method: Any, seed: int) -> None:
    """Sources that equal the base give the base, whatever their passes showed."""
    base, tuned, passes = drawn(seed)
    torch.testing.assert_close(_merged(method, base, [base] * len(tuned), passes), base, rtol=1e-6, atol=1e-7)


def no_passes_no_failure(method: Any, seed: int) -> None:
    """Where nothing was seen, all models count alike."""
    base, tuned, _ = drawn(seed)
    out = _merged(method, base, tuned, [Passes()] * len(tuned))
    torch.testing.assert_close(out, torch.stack(tuned).mean(0))


def poor_inputs(method: Any, seed: int) -> None:
    """Fewer rows than the layer is wide are no reason to fail or to run away."""
    base, tuned, _ = drawn(seed)
    out = _merged(method, base, tuned, [any_passes(seed, rows=2) for _ in tuned])
    assert bool(out.isfinite().all())
    assert float((out - base).norm()) < 10 * sum(float((t - base).norm()) for t in tuned)


def transposed_alike(method: Any, seed: int) -> None:
    """A weight that is stored as (in, out) gives the same numbers."""
    import dataclasses

    base, tuned, passes = drawn(seed)
    plain = _merged(method, base, tuned, passes)
    turned = [
        dataclasses.replace(p, transposed=True, squares=p.squares.T if p.squares is not None else None) for p in passes
    ]
    back = _merged(method, base.T.contiguous(), [t.T.contiguous() for t in tuned], turned)
    torch.testing.assert_close(back.T, plain, rtol=1e-5, atol=1e-6)


def source_order(method: Any, seed: int) -> None:
    base, tuned, passes = drawn(seed)
    torch.testing.assert_close(
        _merged(method, base, tuned[::-1], passes[::-1]), _merged(method, base, tuned, passes), rtol=1e-5, atol=1e-6
    )


def agreement(method: Any, seed: int) -> None:
    """Copies of one fine-tune merge to it, whatever each saw."""
    base, tuned, passes = drawn(seed)
    torch.testing.assert_close(_merged(method, base, [tuned[0]] * 3, passes), tuned[0])


def one_model(method: Any, seed: int) -> None:
    base, tuned, passes = drawn(seed)
    torch.testing.assert_close(_merged(method, base, tuned[:1], passes[:1]), tuned[0])


def scale_zero(method: Any, seed: int) -> None:
    """Begun at none of the changes, and without a step from there, it is the base."""
    base, tuned, passes = drawn(seed)
    least = merges.plainly(method, start=0.0, steps=0)
    assert least != method, "has no setting that says how far it goes"
    assert torch.equal(_merged(least, base, tuned, passes), base)


def equal_passes_give_the_mean(method: Any, seed: int) -> None:
    base, tuned, passes = drawn(seed)
    out = _merged(method, base, tuned, passes[:1] * len(tuned))
    torch.testing.assert_close(out, torch.stack(tuned).mean(0), rtol=1e-5, atol=1e-6)


def unseen_models_say_nothing(method: Any, seed: int) -> None:
    """A model on which nothing hangs, entry by entry, leaves the others' weights as they are, but for the floor."""
    base, tuned, _ = drawn(seed, models=2)
    method = merges.plainly(method, objective="fisher")
    seen = Passes(squares=torch.ones(OUT, IN))
    out = _merged(method, base, tuned, [seen, Passes(squares=torch.zeros(OUT, IN))])
    torch.testing.assert_close(out, tuned[0], rtol=1e-4, atol=1e-5)


ALWAYS: list[Law] = [
    shape_and_dtype, repeatable, no_change_no_change, no_passes_no_failure, poor_inputs, transposed_alike,
]  # fmt: skip
_CLAIMED = (
    source_order, agreement, one_model, scale_zero, equal_passes_give_the_mean, unseen_models_say_nothing,
)  # fmt: skip
CLAIMS: dict[str, Law] = {law.__name__: law for law in _CLAIMED}
