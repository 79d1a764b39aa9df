"""MagMax by hand."""

from __future__ import annotations

import torch

from headstart.combination.merging.magmax import MagMax
from headstart.testing.combination_merging import any_context


def test_the_largest_change_of_each_entry_wins_and_of_equal_ones_the_later() -> None:
    tuned = [torch.tensor([1.0, -5.0, 2.0]), torch.tensor([-3.0, 4.0, -2.0])]
    merged = MagMax(scale=1.0)(any_context((3,)), torch.zeros(3), tuned)
    assert merged.tolist() == [-3.0, -5.0, -2.0]
