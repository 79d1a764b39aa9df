"""DELLA: the chance of each rank, counted over many draws, and its limit DARE."""

from __future__ import annotations

import pytest
import torch

from headstart.combination.merging.della import Della
from headstart.core import TensorContext, Unfit


def kept(method: Della, change: torch.Tensor, draws: int) -> torch.Tensor:
    """How often each entry was kept."""
    found = torch.zeros_like(change)
    for seed in range(draws):
        context = TensorContext(name="w", shape=tuple(change.shape), seed=seed)
        found += method(context, torch.zeros_like(change), [change]) != 0
    return found / draws


def test_larger_changes_of_a_row_are_kept_more_often() -> None:
    change = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0], [50.0, 40.0, 30.0, 20.0, 10.0]])
    often = kept(Della(density=0.5, epsilon=0.2, consensus="sum"), change, 1000)
    expected = torch.tensor([0.3, 0.4, 0.5, 0.6, 0.7])
    assert float((often[0] - expected).abs().max()) < 4 * 0.016  # four standard errors of a share of 1,000
    assert float((often[1] - expected.flip(0)).abs().max()) < 4 * 0.016


def test_what_is_kept_is_divided_by_its_chance() -> None:
    change = torch.tensor([[1.0, 2.0, 3.0]])
    merged = Della(density=0.5, epsilon=0.25, consensus="sum")(
        TensorContext(name="w", shape=(1, 3), seed=5), torch.zeros(1, 3), [change]
    )
    for value, one, chance in zip(merged[0].tolist(), (1.0, 2.0, 3.0), (0.25, 0.5, 0.75), strict=True):
        assert value == 0 or abs(value - one / chance) < 1e-6


def test_rows_of_one_entry_have_the_plain_chance() -> None:
    often = kept(Della(density=0.5, epsilon=0.4), torch.ones(200, 1), 30)
    assert abs(float(often.mean()) - 0.5) < 4 * (0.25 / 6000) ** 0.5
    assert kept(Della(), torch.tensor(1.0), 3).shape == ()


def test_chances_must_be_chances() -> None:
    with pytest.raises(Unfit, match=r"chances from -0\.05 to 0\.25 leave"):
        Della(density=0.1, epsilon=0.15)
