"""DARE: its expectation and its share over many draws, that places alone decide, and its formula in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.combination.trimming.dare import Dare
from headstart.core import Unfit
from headstart.testing.merges import merged
from models_on_a_grid import doubles, drawn, elected_mean, families, holds


def run(method: Dare, *changes: torch.Tensor, seed: int = 3, name: str = "w", tile: int = 1 << 18) -> torch.Tensor:
    """Changes of a base of zeros."""
    base = {name: torch.zeros_like(changes[0])}
    return merged("trimming", method, base, [{name: c} for c in changes], seed=seed, tile=tile)[name]


def test_it_keeps_its_share_and_its_expectation() -> None:
    change = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    out = run(Dare(density=0.25, scale=1.0), change)
    kept = out != 0
    assert abs(float(kept.double().mean()) - 0.25) < 3 * (0.25 * 0.75 / 20_000) ** 0.5  # three standard errors
    torch.testing.assert_close(out[kept], 4 * change[kept])
    means = torch.stack([run(Dare(density=0.25, scale=1.0), torch.ones(50), seed=seed) for seed in range(400)])
    assert abs(float(means.mean()) - 1) < 4 * (3 / 20_000) ** 0.5  # a kept one is 4, with variance 3


def test_what_is_kept_follows_from_the_place() -> None:
    change = torch.ones(20_000)
    whole = run(Dare(density=0.5), change)
    assert torch.equal(run(Dare(density=0.5), change, tile=1001), whole)
    assert torch.equal(run(Dare(density=0.5), change[:100]), whole[:100])
    assert not torch.equal(run(Dare(density=0.5), change, name="v"), whole)
    two = run(Dare(density=0.5, scale=1.0), change, change)
    assert {0.0, 2.0, 4.0} == set(two.unique().tolist())  # models are drawn apart


def test_elect_averages_those_that_agree() -> None:
    a, b = torch.tensor([4.0, -1.0, 2.0]), torch.tensor([-2.0, -3.0, 3.0])
    assert run(Dare(density=1.0, scale=1.0, consensus="elect"), a, b).tolist() == [4.0, -2.0, 2.5]


@given(st.integers(0, 1000), st.sampled_from([(1.0, 1.0, 1.0), (0.9, 0.1, 2.0), (1.5, -0.5, 0.25)]))
def test_plain_election_is_what_peft_computes(seed: int, weights: tuple[float, ...]) -> None:
    """Against `peft.utils.merge_utils.dare_ties` itself, with our draws in place of its own."""
    from peft.utils import merge_utils

    changes = list(torch.randn(3, 20, 10, generator=torch.Generator().manual_seed(seed)))
    method = Dare(density=0.4, scale=1.0, weights=weights, consensus="elect", elect="plain")
    ours = run(method, *changes, tile=64)
    masks = iter([torch.from_numpy(drawn(3, k, (20, 10)) < 0.4).float() for k in range(3)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_utils.torch, "bernoulli", lambda _: next(masks))
        theirs = merge_utils.dare_ties(changes, torch.tensor(weights), 0.4)
    torch.testing.assert_close(ours, theirs)
    weighed = run(Dare(density=0.4, scale=1.0, weights=weights, consensus="elect"), *changes)
    assert torch.equal(weighed, ours) == (len(set(weights)) == 1)  # else another election


def test_plain_election_by_hand() -> None:
    a, b = torch.tensor([1.0, 4.0, -6.0]), torch.tensor([-2.0, -5.0, -6.0])
    method = Dare(density=1.0, scale=1.0, weights=(3, 1), consensus="elect", elect="plain")
    assert run(method, a, b).tolist() == [-2.0, -5.0, -12.0]
    assert run(Dare(density=1.0, scale=1.0, weights=(3, 1), consensus="elect"), a, b).tolist() == [3.0, 12.0, -12.0]


def test_the_sum_of_sizes_can_be_kept() -> None:
    change = torch.randn(30_000, generator=torch.Generator().manual_seed(0))
    out = run(Dare(density=0.3, scale=1.0, rescale="l1"), change)
    torch.testing.assert_close(out.abs().sum(), change.abs().sum())
    assert torch.equal(run(Dare(density=0.3, scale=1.0, rescale="l1"), change, tile=1 << 13), out)
    plain = run(Dare(density=0.3, scale=1.0, rescale="none"), change)
    assert torch.equal(plain[plain != 0], change[plain != 0])


def test_settings_are_checked() -> None:
    with pytest.raises(Unfit, match="density is 0"):
        Dare(density=0.0)
    with pytest.raises(Unfit, match="`density` has 2 numbers, and there are 1"):
        run(Dare(density=(0.1, 0.2)), torch.ones(2))


@given(
    families(),
    st.integers(0, 99),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from(["chance", "l1", "none"]),
    st.sampled_from(["sum", "elect"]),
    st.sampled_from(["count", "weight", "sum"]),
)
def test_against_its_formula(
    family: list[torch.Tensor], seed: int, density: float, rescale: Any, consensus: Any, average: Any
) -> None:
    base, changes = doubles(family)
    weights = np.linspace(1, 0.5, len(changes))
    kept = np.zeros_like(changes)
    for k, change in enumerate(changes):
        kept[k] = change * (drawn(seed, k, base.shape) < density)
        if rescale == "chance":
            kept[k] /= density
        elif rescale == "l1" and kept[k].any():
            kept[k] *= np.abs(change).sum() / np.abs(kept[k]).sum()
        kept[k] *= weights[k]
    total = elected_mean(kept, weights, average) if consensus == "elect" else kept.sum(axis=0)
    method = Dare(
        density=density, scale=0.7, weights=tuple(weights), rescale=rescale, consensus=consensus, average=average
    )
    holds("trimming", method, family, base + 0.7 * total, seed=seed, roundings=32)
