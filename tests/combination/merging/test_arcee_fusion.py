"""Arcee Fusion against its formula in float64; `tests/data/mergekit.json` has mergekit's own result."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given

from headstart.combination.merging.arcee_fusion import ArceeFusion
from headstart.testing.combination_merging import any_context
from models_on_a_grid import Array, doubles, families, holds


def run(base: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return ArceeFusion()(any_context(tuple(base.shape)), base, [other])


def test_the_entries_that_stand_out_are_the_others_and_all_else_is_the_base() -> None:
    g = torch.Generator().manual_seed(3)
    base = torch.randn(30, 20, generator=g)
    other = base + 0.1 * torch.randn(30, 20, generator=g)

    def soft(x: torch.Tensor) -> np.ndarray:
        powers = np.exp(x.double().numpy())
        return np.asarray(powers / powers.sum(axis=1, keepdims=True) + 1e-8)

    p, q = soft(other), soft(base)
    score = np.abs((other.double() - base.double()).numpy()) * (p * np.log(p / q)).sum(axis=1, keepdims=True)
    low, middle, high = np.sort(score.ravel())[[int(f * (score.size - 1)) for f in (0.25, 0.5, 0.75)]]
    wanted = np.where(score >= middle + 1.5 * (high - low), other.numpy(), base.numpy())
    merged = run(base, other)
    np.testing.assert_allclose(merged.numpy(), wanted, atol=1e-7)  # base + (other - base) in float32
    assert 0 < int((merged != base).sum()) < 100


def test_a_row_that_only_moved_as_a_whole_stays() -> None:
    """The softmax of a row does not see a shift, so that its entries weigh nothing, however far they went."""
    g = torch.Generator().manual_seed(4)
    base = torch.randn(30, 20, generator=g)
    other = base + 0.1 * torch.randn(30, 20, generator=g)
    other[3] = base[3] + 5
    merged = run(base, other)
    assert torch.equal(merged[3], base[3])
    assert not torch.equal(merged, base)


@given(families(most=1))
def test_against_its_formula(family: list[torch.Tensor]) -> None:
    base, (change,) = doubles(family)

    def soft(x: Array) -> Array:
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True) + 1e-8)

    after, before = soft(base + change), soft(base)
    score = np.abs(change) * (after * np.log(after / before)).sum(axis=-1, keepdims=True)
    low, middle, high = np.sort(score.ravel())[[int(f * (score.size - 1)) for f in (0.25, 0.5, 0.75)]]
    above = score - (middle + 1.5 * (high - low))
    wanted = np.where(above >= 0, base + change, base)
    wanted[(np.abs(above) < 1e-5) & (change != 0)] = np.nan  # rounding decides
    holds("merging", ArceeFusion(), family, wanted)
