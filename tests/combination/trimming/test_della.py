"""DELLA: the chance of each rank, counted over many draws; and its formula in float64, with the same draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.combination.trimming.della import Della
from headstart.core import Unfit
from headstart.numerics.made import Made, Part
from headstart.numerics.stream import room_bytes
from headstart.testing.merges import merged
from models_on_a_grid import Array, doubles, drawn, elected_mean, families, holds


def run(method: Della, *changes: torch.Tensor, seed: int = 0, tile: int = 1 << 18) -> torch.Tensor:
    """Changes of a base of zeros."""
    base = {"w": torch.zeros_like(changes[0])}
    return merged("trimming", method, base, [{"w": c} for c in changes], seed=seed, tile=tile)["w"]


def kept(method: Della, change: torch.Tensor, draws: int) -> torch.Tensor:
    """How often each entry was kept."""
    found = torch.zeros_like(change)
    for seed in range(draws):
        found += run(method, change, seed=seed) != 0
    return found / draws


def test_larger_changes_of_a_row_are_kept_more_often() -> None:
    change = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0], [50.0, 40.0, 30.0, 20.0, 10.0]])
    often = kept(Della(density=0.5, epsilon=0.2, consensus="sum"), change, 1000)
    expected = torch.tensor([0.3, 0.4, 0.5, 0.6, 0.7])
    assert float((often[0] - expected).abs().max()) < 4 * 0.016  # four standard errors of a share of 1,000
    assert float((often[1] - expected.flip(0)).abs().max()) < 4 * 0.016


def test_what_is_kept_is_divided_by_its_chance() -> None:
    change = torch.tensor([[1.0, 2.0, 3.0]])
    out = run(Della(density=0.5, epsilon=0.25, consensus="sum"), change, seed=5)
    for value, one, chance in zip(out[0].tolist(), (1.0, 2.0, 3.0), (0.25, 0.5, 0.75), strict=True):
        assert value == 0 or abs(value - one / chance) < 1e-6


def test_rows_of_one_entry_have_the_plain_chance() -> None:
    often = kept(Della(density=0.5, epsilon=0.4), torch.ones(200, 1), 30)
    assert abs(float(often.mean()) - 0.5) < 4 * (0.25 / 6000) ** 0.5
    assert kept(Della(), torch.tensor(1.0), 3).shape == ()


@pytest.mark.parametrize("rescale", ["chance", "l1"])
@pytest.mark.parametrize("shape", [(700, 50), (9000, 1), (3, 20_000), (20_000,), (9, 40, 70)])
def test_tiles_are_cut_between_rows(shape: tuple[int, ...], rescale: Any) -> None:
    """Smaller ones change no bit, and give what the formula gives of whole rows."""
    g = torch.Generator().manual_seed(1)
    changes = [torch.randn(shape, generator=g) for _ in range(2)]
    method = Della(consensus="sum", rescale=rescale)
    out = run(method, *changes, tile=1 << 13)
    assert torch.equal(out, run(method, *changes, tile=1 << 30))
    wanted = sum(plainly(c.double().numpy(), drawn(0, k, shape), 0.5, 0.15, rescale) for k, c in enumerate(changes))
    np.testing.assert_allclose(out.numpy(), wanted, rtol=2e-6, atol=2e-6)


def test_memory_does_not_grow_with_the_tensor() -> None:
    def room(rows: int) -> int:
        parts = [Part(k, "w", "BF16") for k in range(5)]
        return room_bytes([Made("w", "BF16", 2, (rows, 1024), parts[0], tuple(parts[1:]), "trimming", Della())], 2)

    assert room(32_000) == room(64_000) < 10**8


def test_chances_must_be_chances() -> None:
    with pytest.raises(Unfit, match=r"chances from -0\.05 to 0\.25 leave"):
        Della(density=0.1, epsilon=0.15)


def plainly(change: Array, numbers: Array, density: float, epsilon: float, rescale: str) -> Array:
    """One model's changes, row by row."""
    out = np.zeros_like(change)
    for row, one, draws in zip(*(x.reshape(-1, x.shape[-1]) for x in (out, change, numbers)), strict=True):
        places = np.argsort(np.abs(one), kind="stable")
        for rank, at in enumerate(places):
            chance = density + epsilon * (2 * rank / (len(one) - 1) - 1) if len(one) > 1 else density
            if draws[at] < chance:
                row[at] = one[at] / (chance if rescale == "chance" else 1)
    if rescale == "l1" and out.any():
        out *= np.abs(change).sum() / np.abs(out).sum()
    return out


@given(
    families(),
    st.integers(0, 99),
    st.sampled_from([(0.5, 0.15), (0.3, 0.2), (0.7, 0.0)]),
    st.sampled_from(["chance", "l1", "none"]),
    st.sampled_from(["sum", "elect"]),
    st.sampled_from(["count", "weight", "sum"]),
)
def test_against_its_formula(
    family: list[torch.Tensor], seed: int, chances: tuple[float, float], rescale: Any, consensus: Any, average: Any
) -> None:
    base, changes = doubles(family)
    density, epsilon = chances
    weights = np.linspace(1, 0.5, len(changes))
    kept = np.stack(
        [
            w * plainly(change, drawn(seed, k, base.shape), density, epsilon, rescale)
            for k, (change, w) in enumerate(zip(changes, weights, strict=True))
        ]
    )
    total = elected_mean(kept, weights, average) if consensus == "elect" else kept.sum(axis=0)
    method = Della(
        density=density, epsilon=epsilon, scale=0.7, weights=tuple(weights), rescale=rescale, consensus=consensus,
        average=average,
    )  # fmt: skip
    holds("trimming", method, family, base + 0.7 * total, seed=seed, roundings=32)
