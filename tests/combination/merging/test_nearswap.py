"""NearSwap by hand and against its formula in float64; `tests/data/mergekit.json` has mergekit's own result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.combination.merging.nearswap import NearSwap
from headstart.core import Unfit
from headstart.testing.combination_merging import any_context
from models_on_a_grid import doubles, families, holds


def run(t: float, base: list[float], other: list[float]) -> list[float]:
    merged = NearSwap(t=t)(any_context((len(base),)), torch.tensor(base), [torch.tensor(other)])
    return merged.tolist()


def test_no_entry_moves_by_more_than_t() -> None:
    assert run(0.5, [0.0, 0.0, 0.0, 1.0], [0.25, 0.5, -4.0, 1.0]) == [0.25, 0.5, -0.5, 1.0]


def test_t_0_is_the_base_and_a_large_one_the_other() -> None:
    assert run(0.0, [1.0, 2.0], [3.0, -1.0]) == [1.0, 2.0]
    assert run(9.0, [1.0, 2.0], [3.0, -1.0]) == [3.0, -1.0]


def test_a_t_below_0_is_refused() -> None:
    with pytest.raises(Unfit, match="t is -1"):
        NearSwap(t=-1)


@given(families(most=1), st.sampled_from([0.0, 0.1, 0.5, 2.0]))
def test_against_its_formula(family: list[torch.Tensor], t: float) -> None:
    base, (change,) = doubles(family)
    holds("merging", NearSwap(t=t), family, base + np.sign(change) * np.minimum(np.abs(change), t))
