"""Twin-Merging on linear classifiers, against a singular value decomposition in float64 and formulas of its size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstart.combination.routing.twin_merge import TwinMerge
from headstart.core import Steps, Unfit
from headstart.numerics.delta import LowRank, Sparse, bytes_of
from headstart.testing.combination_learning import weights_of
from headstart.testing.combination_routing import RoutedTasks, expert_of


def test_all_that_is_exclusive_gives_the_model() -> None:
    view = RoutedTasks(0)
    routed = TwinMerge(keep=1.0)(view, Steps(horizon=0))
    for model in range(3):
        for name, found in expert_of(view, routed, model).items():
            torch.testing.assert_close(found, view.base(name) + view.changes(name)[model])


def test_nothing_kept_is_the_shared_model() -> None:
    view = RoutedTasks(0)
    routed = TwinMerge(keep=0.0, settings=(("scale", 0.4),))(view, Steps(horizon=0))
    assert not any(routed.experts)
    shared = view.shared(np.full((2, 3), 0.4))
    assert all(torch.equal(w, shared[n]) for n, w in weights_of(view, routed.shared).items())


def test_a_matrix_keeps_its_largest_singular_values() -> None:
    view = RoutedTasks(1)
    routed = TwinMerge(keep=1 / 3)(view, Steps(horizon=0))
    shared = weights_of(view, routed.shared)
    for model, expert in enumerate(routed.experts):
        assert isinstance(expert["weight"], LowRank)
        exclusive = view.base("weight") + view.changes("weight")[model] - shared["weight"]
        values = np.linalg.svd(exclusive.double().numpy(), compute_uv=False)
        left = exclusive - (expert_of(view, routed, model)["weight"] - shared["weight"])
        assert float(left.norm()) == pytest.approx(math.sqrt((values[1:] ** 2).sum()), rel=1e-5)  # rank one of three


def test_experts_take_what_the_formula_says() -> None:
    (out, inputs), bias = (3, 8), 3
    for keep, rank in ((1 / 3, 1), (2 / 3, 2)):
        routed = TwinMerge(keep=keep)(RoutedTasks(2), Steps(horizon=0))
        assert sum(bytes_of(f) for e in routed.experts for f in e.values()) == 3 * 4 * (rank * (out + inputs) + bias)


def test_by_size_the_largest_entries_stay() -> None:
    view = RoutedTasks(3)
    routed = TwinMerge(keep=0.25, by="size")(view, Steps(horizon=0))
    exclusive = view.base("weight") + view.changes("weight")[1] - weights_of(view, routed.shared)["weight"]
    kept = routed.experts[1]["weight"]
    assert isinstance(kept, Sparse)
    assert sorted(kept.values.abs().tolist()) == sorted(exclusive.abs().flatten().topk(6).values.tolist())


def test_the_router_begins_where_nothing_is_known() -> None:
    curve = TwinMerge()(RoutedTasks(4), Steps(horizon=2)).shared.curve
    assert curve[0][1] == pytest.approx(math.log(3))
    assert curve[1][1] < curve[0][1]


def test_settings_out_of_range() -> None:
    for wrong in ({"keep": 1.5}, {"top": 0}, {"hidden": -1}, {"by": "luck"}):
        with pytest.raises(Unfit, match="cannot be"):
            TwinMerge(**wrong)  # type: ignore[arg-type]
