"""RAM by hand and against its formula in float64; `tests/data/mergekit.json` has mergekit's own result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.combination.merging.ram import Ram
from headstart.core import Unfit
from headstart.testing.combination_merging import any_context
from models_on_a_grid import doubles, families, holds


def run(method: Ram, *changes: list[float]) -> list[float]:
    tuned = [torch.tensor(c) for c in changes]
    return method(any_context((len(changes[0]),)), torch.zeros(len(changes[0])), tuned).tolist()


def test_what_is_one_models_own_stays_whole_and_what_is_shared_is_averaged() -> None:
    assert run(Ram(), [4.0, 0.0, 3.0, 1.0], [0.0, -2.0, 1.0, 2.0], [0.0, 0.0, 2.0, 0.0]) == [4.0, -2.0, 2.0, 1.5]


def test_what_is_not_above_epsilon_is_no_change() -> None:
    assert run(Ram(epsilon=0.5), [0.5, 0.6], [1.0, 0.2]) == pytest.approx([1.0, 0.6])
    with pytest.raises(Unfit, match="epsilon is -1"):
        Ram(epsilon=-1)


def test_changes_that_meet_nowhere_are_added() -> None:
    a, b = [1.0, 0.0, -3.0, 0.0], [0.0, 5.0, 0.0, 0.0]
    assert run(Ram(), a, b) == [x + y for x, y in zip(a, b, strict=True)]


@given(families(), st.sampled_from([0.0, 0.3, 0.5]))
def test_against_its_formula(family: list[torch.Tensor], epsilon: float) -> None:
    base, changes = doubles(family)
    moved = np.abs(changes) > epsilon
    mean = np.where(moved, changes, 0).sum(axis=0) / np.maximum(moved.sum(axis=0), 1)
    holds("merging", Ram(epsilon=epsilon, scale=0.7), family, base + 0.7 * mean)
