"""Iso-C by hand, and against its formula in float64; `tests/data/published.json` has the authors' result."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given

from headstart.combination.merging.iso_c import IsoC
from headstart.testing.combination_merging import any_context
from models_on_a_grid import doubles, families, holds


def run(*changes: torch.Tensor) -> torch.Tensor:
    shape = tuple(changes[0].shape)
    return IsoC()(any_context(shape), torch.zeros(shape), list(changes))


def test_all_directions_become_equally_strong_and_their_sum_stays() -> None:
    torch.testing.assert_close(run(torch.diag(torch.tensor([3.0, 1.0]))), 2 * torch.eye(2))
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g)
    values = torch.linalg.svdvals(run(a, b))
    torch.testing.assert_close(values, torch.linalg.svdvals(a + b).mean().expand(4))


def test_directions_that_are_rounding_stay_out() -> None:
    g = torch.Generator().manual_seed(0)
    low = torch.randn(8, 2, generator=g) @ torch.randn(2, 8, generator=g)
    values = torch.linalg.svdvals(run(low))
    assert bool((values[2:] < 1e-5 * values[0]).all())
    torch.testing.assert_close(values[:2].sum(), torch.linalg.svdvals(low).sum())


def test_vectors_are_averaged_and_no_change_stays_none() -> None:
    assert run(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])).tolist() == [2.0, 1.0]
    assert run(torch.zeros(3, 3)).tolist() == torch.zeros(3, 3).tolist()
    assert run(torch.ones(2, 2), -torch.ones(2, 2)).tolist() == torch.zeros(2, 2).tolist()


@given(families())
def test_against_its_formula(family: list[torch.Tensor]) -> None:
    base, changes = doubles(family)
    total = changes.sum(axis=0)
    if total.ndim < 2:
        holds("merging", IsoC(scale=0.7), family, base + 0.7 * total / len(changes))
        return
    left, values, right = np.linalg.svd(total, full_matrices=False)
    rank = int((values > 1e-9).sum())  # numbers on the grid are either 0 or far from it
    merged = values[:rank].mean() * left[:, :rank] @ right[:rank] if rank else np.zeros_like(total)
    steep = values[0] / values[rank - 1] if rank else 1  # how much more rounding the weakest direction sees
    holds("merging", IsoC(scale=0.7), family, base + 0.7 * merged, roundings=32 * steep)
