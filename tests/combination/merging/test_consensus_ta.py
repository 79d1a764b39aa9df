"""Consensus merging by hand and against the masks' definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.merging.consensus_ta import ConsensusTa
from headstart.core import Unfit
from headstart.testing.combination_merging import any_context


def test_what_no_task_or_one_alone_uses_is_left_out() -> None:
    # all use it; the first alone, as the sum is 1 off from its 4, and 4 off from the other's 1; none, for they cancel
    a, b = torch.tensor([1.0, 4.0, 3.0]), torch.tensor([0.75, 1.0, -3.0])

    def run(least: int) -> list[float]:
        method = ConsensusTa(scale=1.0, strictness=1.0, least=least)
        return method(any_context((3,)), torch.full((3,), 10.0), [10 + a, 10 + b]).tolist()

    assert run(1) == [11.75, 15.0, 10.0]
    assert run(2) == [10.0, 10.0, 10.0]
    kept = ConsensusTa(scale=1.0, strictness=0.5)(any_context((3,)), torch.zeros(3), [a, b])
    assert kept.tolist() == [1.75, 0.0, 0.0]


@pytest.mark.parametrize("least", [0, 1, 2, 3])
@pytest.mark.parametrize("strictness", [0.2, 0.6, 1.0])
def test_against_the_definition_of_the_masks(least: int, strictness: float) -> None:
    draw = np.random.default_rng(1)
    base, *tuned = draw.standard_normal((4, 500))
    multi = base + sum(t - base for t in tuned)
    masks = [np.abs(base - t) > strictness * np.abs(multi - t) for t in tuned]
    wanted = base + 0.3 * (multi - base) * (np.sum(masks, axis=0) >= least)
    method = ConsensusTa(strictness=strictness, least=least)
    out = method(any_context((500,)), torch.from_numpy(base), [torch.from_numpy(t) for t in tuned])
    np.testing.assert_allclose(out.numpy(), wanted, rtol=1e-12)
    if strictness == 0.6 and least == 2:
        assert 50 < int((wanted != base).sum()) < 450


def test_settings_below_0_are_refused() -> None:
    with pytest.raises(Unfit, match="strictness is -1"):
        ConsensusTa(strictness=-1)
