"""Fine-tunes of one base whose numbers lie on a grid, to hold merges to formulas in float64.

Changes and sums of them are exact in float32 then: equal sizes and signs that cancel come often, and to both alike.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from headstart.numerics.made import Kind
from headstart.testing.merges import merged

Array = np.ndarray[Any, Any]
STEPS = {torch.float32: 2**-9, torch.bfloat16: 2**-4}  # |numbers| < 8 fit into the bits of either
SIDES = st.integers(1, 12)
VECTORS = st.tuples(st.integers(1, 40))
MATRICES = st.tuples(SIDES, SIDES)  # tall and wide ones


@st.composite
def families(draw: Any, most: int = 5, shapes: st.SearchStrategy[Any] = VECTORS | MATRICES) -> list[torch.Tensor]:
    """A base and 1 to `most` fine-tunes of it, which changed some of their entries, or nothing."""
    dtype, shape = draw(st.sampled_from(list(STEPS))), draw(shapes)
    step, numbers = STEPS[dtype], np.random.default_rng(draw(st.integers(0, 2**32)))
    base = numbers.integers(-4 / step, 4 / step, shape)
    tuned = []
    for _ in range(draw(st.integers(1, most))):
        moved = numbers.random(shape) < draw(st.sampled_from([0, 0.3, 1, 1]))
        change = moved * numbers.standard_normal(shape) * draw(st.sampled_from([0.3, 1])) / step
        tuned.append((base + np.rint(change)).clip(-7 / step, 7 / step))
    return [torch.from_numpy(np.asarray(one * step)).to(dtype) for one in (base, *tuned)]


def doubles(family: list[torch.Tensor]) -> tuple[Array, Array]:
    """The base, and the changes (models, …)."""
    base, *tuned = (one.double().numpy() for one in family)
    return base, np.stack([one - base for one in tuned])


def drawn(seed: int, model: int, shape: tuple[int, ...], name: str = "w") -> Array:
    """The numbers in [0, 1) that belong to the places of a tensor: Philox, keyed by seed, name and model."""
    digest = hashlib.sha256(repr((seed, name, model)).encode()).digest()
    philox = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    return np.random.Generator(philox).random(int(np.prod(shape))).reshape(shape)


def elected_mean(kept: Array, weights: Array, average: str) -> Array:
    """TIES' mean of those (models, …) that have the sign of their sum, + where they cancel; NaN where rounding elects.

    kept: already times the weights. average: what their sum is divided by.
    """
    total = kept.sum(axis=0)
    sign = np.where(total >= 0, 1, -1)
    agrees = kept * sign > 0
    each = weights.reshape(-1, *[1] * total.ndim) if average == "weight" else np.ones_like(kept)
    divisor = np.ones_like(total) if average == "sum" else (agrees * each).sum(axis=0)
    mean = np.where(agrees.any(axis=0), (kept * agrees).sum(axis=0) / np.where(divisor == 0, 1, divisor), 0)
    cancels = (total == 0) & (kept.astype(np.float32).sum(axis=0) == 0)  # with weights such as 5/6 in float64 alone
    return np.where(~cancels & (np.abs(total) <= 1e-5 * np.abs(kept).sum(axis=0)) & kept.any(axis=0), np.nan, mean)


def holds(
    kind: Kind, method: Any, family: list[torch.Tensor], wanted: Array, *, seed: int = 0, roundings: float = 8
) -> None:
    """The merge is what is wanted, where that is a number, within one rounding of the output's type.

    roundings: of float32, on the way, each of a number as large as the largest here.
    """
    base, *tuned = family
    out = merged(kind, method, {"w": base}, [{"w": t} for t in tuned], seed=seed)["w"]
    assert out.dtype == base.dtype
    compared = ~np.isnan(wanted)
    largest = max(float(one.abs().max()) for one in family) + float(np.abs(wanted[compared]).max(initial=0))
    one_rounding = torch.finfo(base.dtype).eps / 2 * np.abs(wanted)
    error = np.abs(out.double().numpy() - wanted)
    allowed = one_rounding * (1 + 2**-8) + roundings * 2**-24 * largest
    assert (error <= allowed)[compared].all(), (out.double().numpy(), wanted)
