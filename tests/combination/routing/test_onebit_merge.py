"""1bit-Merging against a grid of sizes and formulas of what it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.routing.onebit_merge import OnebitMerge
from headstart.core import Steps, Unfit
from headstart.numerics.delta import OneBit, bytes_of, dense
from headstart.testing.combination_learning import weights_of
from headstart.testing.combination_routing import RoutedTasks, expert_of

NONE = Steps(horizon=0)


@pytest.mark.parametrize("rows", [False, True])
def test_no_other_size_is_nearer(rows: bool) -> None:
    view = RoutedTasks(0)
    routed = OnebitMerge(rows=rows)(view, NONE)
    for model, expert in enumerate(routed.experts):
        change, found = view.changes("weight")[model].double(), dense(expert["weight"]).double()
        blocks = [(change, found)] if not rows else list(zip(change, found, strict=True))
        for wanted, got in blocks:
            errors = [float(((wanted - s * wanted.sign()) ** 2).sum()) for s in np.linspace(0, 6, 2001)]
            assert float(((wanted - got) ** 2).sum()) <= min(errors) + 1e-9


def test_what_all_share_is_merged_and_one_model_of_it_is_that_model() -> None:
    view = RoutedTasks(1, models=1)
    routed = OnebitMerge(merged=("*",))(view, NONE)
    assert routed.experts == [{}]
    for name, weight in weights_of(view, routed.shared).items():
        assert torch.equal(weight, view.base(name) + view.changes(name)[0])


def test_only_named_tensors_are_merged() -> None:
    view = RoutedTasks(2)
    routed = OnebitMerge(merged=("bias",), scale=0.5)(view, NONE)
    shared = weights_of(view, routed.shared)
    torch.testing.assert_close(shared["bias"], view.base("bias") + 0.5 * sum(view.changes("bias")))
    assert torch.equal(shared["weight"], view.base("weight"))
    assert all(set(e) == {"weight"} for e in routed.experts)
    assert torch.equal(expert_of(view, routed, 1)["bias"], shared["bias"])


def test_a_matrix_takes_a_bit_a_number_and_a_size_a_row() -> None:
    for expert in OnebitMerge()(RoutedTasks(3), NONE).experts:
        assert isinstance(expert["weight"], OneBit)
        assert bytes_of(expert["weight"]) == 3 * 8 // 8 + 4 * 3
        assert bytes_of(expert["bias"]) == 4 * 3


def test_without_rows_there_is_no_router() -> None:
    view = RoutedTasks(4)
    view.tasks = []
    assert OnebitMerge()(view, NONE).router is None


def test_settings_out_of_range() -> None:
    with pytest.raises(Unfit, match="cannot be"):
        OnebitMerge(merged=("",))
