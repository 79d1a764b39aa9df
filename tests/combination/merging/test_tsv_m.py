"""TSV-M by hand; a run of the published code gave the same tensors to 2e-7."""

from __future__ import annotations

import torch

from headstart.combination.merging.tsv_m import TsvM
from headstart.testing.combination_merging import any_context


def run(*changes: torch.Tensor) -> torch.Tensor:
    shape = tuple(changes[0].shape)
    return TsvM()(any_context(shape), torch.zeros(shape), list(changes))


def test_tasks_on_different_axes_are_added() -> None:
    merged = run(torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([0.0, 6.0])))
    torch.testing.assert_close(merged, torch.diag(torch.tensor([2.0, 6.0])))


def test_shares_of_directions_are_orthogonal_and_as_strong_as_they_were() -> None:
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(9, 6, generator=g), torch.randn(9, 6, generator=g)
    expected = torch.cat([torch.linalg.svdvals(a)[:3], torch.linalg.svdvals(b)[:3]]).sort(descending=True).values
    torch.testing.assert_close(torch.linalg.svdvals(run(a, b)), expected)


def test_what_has_too_few_directions_is_averaged() -> None:
    assert run(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])).tolist() == [2.0, 1.0]
    thin = [torch.ones(1, 4), 3 * torch.ones(1, 4)]
    assert run(*thin).tolist() == [[2.0] * 4]
    assert run(torch.zeros(2, 2), torch.zeros(2, 2)).tolist() == torch.zeros(2, 2).tolist()
