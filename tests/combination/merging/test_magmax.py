"""MagMax by hand, and against its formula in float64."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given

from headstart.combination.merging.magmax import MagMax
from headstart.testing.combination_merging import any_context
from models_on_a_grid import doubles, families, holds


def test_the_largest_change_of_each_entry_wins_and_of_equal_ones_the_later() -> None:
    tuned = [torch.tensor([1.0, -5.0, 2.0]), torch.tensor([-3.0, 4.0, -2.0])]
    merged = MagMax(scale=1.0)(any_context((3,)), torch.zeros(3), tuned)
    assert merged.tolist() == [-3.0, -5.0, -2.0]


@given(families())
def test_against_its_formula(family: list[torch.Tensor]) -> None:
    base, changes = doubles(family)
    latest_first = changes[::-1]
    winner = np.abs(latest_first).argmax(axis=0, keepdims=True)  # the first of equal ones
    holds("merging", MagMax(scale=0.5), family, base + 0.5 * np.take_along_axis(latest_first, winner, axis=0)[0])
