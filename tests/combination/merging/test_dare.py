"""DARE: its expectation and its share over many draws, and that places alone decide."""

from __future__ import annotations

import pytest
import torch

from headstart.combination.merging.dare import Dare
from headstart.core import TensorContext, Unfit


def context(offset: int = 0, name: str = "w") -> TensorContext:
    return TensorContext(name=name, shape=(20_000,), seed=3, offset=offset)


def test_it_keeps_its_share_and_its_expectation() -> None:
    change = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    merged = Dare(density=0.25, scale=1.0)(context(), torch.zeros(20_000), [change])
    kept = merged != 0
    assert abs(float(kept.double().mean()) - 0.25) < 3 * (0.25 * 0.75 / 20_000) ** 0.5  # three standard errors
    torch.testing.assert_close(merged[kept], 4 * change[kept])
    means = torch.stack(
        [
            Dare(density=0.25, scale=1.0)(
                TensorContext(name="w", shape=(50,), seed=seed), torch.zeros(50), [torch.ones(50)]
            )
            for seed in range(400)
        ]
    )
    assert abs(float(means.mean()) - 1) < 4 * (3 / 20_000) ** 0.5  # a kept one is 4, with variance 3


def test_what_is_kept_follows_from_the_place() -> None:
    change = torch.ones(20_000)
    whole = Dare(density=0.5)(context(), torch.zeros(20_000), [change])
    piece = Dare(density=0.5)(context(offset=7), torch.zeros(100), [change[:100]])
    assert torch.equal(piece, whole[7:107])
    other = Dare(density=0.5)(context(name="v"), torch.zeros(20_000), [change])
    assert not torch.equal(other, whole)
    two = Dare(density=0.5, scale=1.0)(context(), torch.zeros(20_000), [change, change])
    assert {0.0, 2.0, 4.0} == set(two.unique().tolist())  # models are drawn apart


def test_elect_averages_those_that_agree() -> None:
    a, b = torch.tensor([4.0, -1.0, 2.0]), torch.tensor([-2.0, -3.0, 3.0])
    merged = Dare(density=1.0, scale=1.0, consensus="elect")(context(), torch.zeros(3), [a, b])
    assert merged.tolist() == [4.0, -2.0, 2.5]


def test_settings_are_checked() -> None:
    with pytest.raises(Unfit, match="density is 0"):
        Dare(density=0.0)
    with pytest.raises(Unfit, match="`density` has 2 numbers, and there are 1"):
        Dare(density=(0.1, 0.2))(context(), torch.zeros(2), [torch.ones(2)])
