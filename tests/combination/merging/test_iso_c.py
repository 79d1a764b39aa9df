"""Iso-C by hand; a run of the published code gave the same tensors to 6e-7."""

from __future__ import annotations

import torch

from headstart.combination.merging.iso_c import IsoC
from headstart.testing.combination_merging import any_context


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
