"""A mixture in each block, on linear classifiers that are one block."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.routing.wemoe import Wemoe
from headstart.core import Refused, Steps, Unfit
from headstart.numerics.delta import LowRank, applied
from headstart.numerics.inserts import Mixture
from headstart.numerics.learning import entropy
from headstart.testing.combination_learning import weights_of
from headstart.testing.combination_routing import RoutedTasks


def test_it_begins_at_task_arithmetic() -> None:
    view = RoutedTasks(0)
    routed = Wemoe(steps=0)(view, Steps())
    shared = weights_of(view, routed.shared)
    plain = view.shared(np.full((2, 3), 0.3))
    for name, weight in plain.items():
        torch.testing.assert_close(shared[name], weight)
    at = view.logits(shared, 0, range(60), routed.mixtures)
    assert float((at - view.logits(plain, 0, range(60))).abs().max()) < 0.05  # gates are drawn about zero


def test_gates_of_one_model_less_the_share_that_is_merged_are_that_model() -> None:
    view = RoutedTasks(1)
    (mixture,) = Wemoe(steps=0)(view, Steps()).mixtures
    (first, zero), (second, _) = mixture.layers
    gates = torch.tensor([-0.3, 0.7, -0.3])
    forced = Mixture(mixture.tensors, ((first, zero), (0 * second, gates)))
    found = view.logits(view.shared(np.full((2, 3), 0.3)), 1, range(60), [forced])
    own = view.logits(view.shared(np.tile(np.eye(3)[1], (2, 1))), 1, range(60))
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-4)


def test_predictions_become_surer() -> None:
    view = RoutedTasks(2)
    routed = Wemoe(steps=150, learning_rate=1e-2)(view, Steps())
    shared = weights_of(view, routed.shared)
    with torch.no_grad():
        plain, mixed = (
            np.mean([float(entropy(view.logits(shared, t, range(60), m), "softmax")) for t in range(3)])
            for m in ((), routed.mixtures)
        )
    assert mixed < plain
    assert routed.shared.curve[-1][1] < routed.shared.curve[0][1]


def test_all_of_a_change_or_part_of_its_rank_stays_apart() -> None:
    view = RoutedTasks(3)
    whole = Wemoe()(view, Steps(horizon=1)).experts
    for model, expert in enumerate(whole):
        for name, form in expert.items():
            assert torch.equal(applied(form, torch.zeros_like(view.base(name))), view.changes(name)[model])
    part = Wemoe(keep=1 / 3)(view, Steps(horizon=1)).experts[0]["weight"]
    assert isinstance(part, LowRank)
    assert part.left.shape[1] == 1


def test_models_without_blocks_are_refused() -> None:
    view = RoutedTasks(0)
    view.blocks = list  # type: ignore[method-assign]
    with pytest.raises(Refused, match="widen a vector and narrow it again"):
        Wemoe()(view, Steps())


def test_settings_out_of_range() -> None:
    for wrong in ({"keep": 0}, {"keep": 1.1}, {"batch": 0}, {"steps": -1}, {"router_steps": -1}):
        with pytest.raises(Unfit, match="cannot be"):
            Wemoe(**wrong)  # type: ignore[arg-type]
