"""What a merge must do, and what it may claim."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from headstart.core import Merging, TensorContext


def any_context(shape: tuple[int, ...] = (6, 5)) -> TensorContext:
    return TensorContext(name="layer.weight", shape=shape)


def draw(seed: int, sources: int = 3) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A base and fine-tunes of it."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(6, 5, generator=g)
    return base, [base + 0.1 * torch.randn(6, 5, generator=g) for _ in range(sources)]


def run(method: Merging, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
    return method(any_context(tuple(base.shape)), base, tuned)


def shape_and_dtype(method: Merging, seed: int) -> None:
    base, tuned = draw(seed)
    kept = [t.clone() for t in (base, *tuned)]
    out = run(method, base, tuned)
    assert out.shape == base.shape
    assert out.dtype == torch.float32
    assert bool(out.isfinite().all())
    assert all(torch.equal(a, b) for a, b in zip((base, *tuned), kept, strict=True)), "changes its input"


def repeatable(method: Merging, seed: int) -> None:
    assert torch.equal(run(method, *draw(seed)), run(method, *draw(seed)))


def no_change_no_change(method: Merging, seed: int) -> None:
    """Sources that equal the base give the base."""
    base, _ = draw(seed)
    torch.testing.assert_close(run(method, base, [base.clone(), base.clone()]), base)


def source_order(method: Merging, seed: int) -> None:
    base, tuned = draw(seed)
    torch.testing.assert_close(run(method, base, tuned), run(method, base, tuned[::-1]))


def agreement(method: Merging, seed: int) -> None:
    """Copies of one fine-tune merge to what one alone gives."""
    base, (one, *_) = draw(seed)
    torch.testing.assert_close(run(method, base, [one, one, one]), run(method, base, [one]))


def sign_symmetry(method: Merging, seed: int) -> None:
    """Changes of the other sign give the change of the other sign."""
    base, tuned = draw(seed)
    there, back = run(method, base, tuned) - base, run(method, base, [2 * base - t for t in tuned]) - base
    torch.testing.assert_close(there, -back, atol=1e-5, rtol=1e-4)  # differences of float32 numbers near 1


def tiles(method: Merging, seed: int) -> None:
    """Merging piece by piece equals merging the whole."""
    base, tuned = draw(seed)
    halves = [run(method, base[s], [t[s] for t in tuned]) for s in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(run(method, base, tuned), torch.cat(halves))


def base_is_left_out(method: Merging, seed: int) -> None:
    """Another base gives the same weights."""
    base, tuned = draw(seed)
    torch.testing.assert_close(run(method, base, tuned), run(method, base + 1, tuned))


ALWAYS = [shape_and_dtype, repeatable, no_change_no_change]
CLAIMS = {law.__name__: law for law in (source_order, agreement, sign_symmetry, tiles, base_is_left_out)}
