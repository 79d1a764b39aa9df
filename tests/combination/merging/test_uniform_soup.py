"""Uniform soup: by hand."""

from __future__ import annotations

import torch

from headstart.combination.merging.uniform_soup import UniformSoup
from headstart.testing.combination_merging import any_context


def test_by_hand() -> None:
    merged = UniformSoup()(
        any_context((2,)), torch.tensor([9.0, 9.0]), [torch.tensor([1.0, 4.0]), torch.tensor([3.0, 0.0])]
    )
    torch.testing.assert_close(merged, torch.tensor([2.0, 2.0]))
