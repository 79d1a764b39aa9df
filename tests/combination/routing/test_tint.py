"""Tinting on linear classifiers: which rows teach, and what is learned from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.routing.tint import Tint, teaches
from headstart.core import Steps, Unfit
from headstart.testing.combination_routing import RoutedTasks, expert_of, head_of


def test_which_rows_teach() -> None:
    """By hand: both agree; its own model is surer; the merge is surer of another label; both are as sure."""
    merged = torch.tensor([[0.9, 0.1], [0.3, 0.7], [0.3, 0.7], [0.5, 0.5]])
    labels, sure = torch.tensor([0, 0, 0, 1]), torch.tensor([0.6, 0.8, 0.6, 0.5])
    assert teaches(labels, sure, merged).tolist() == [True, True, False, False]


def test_without_a_step_it_is_task_arithmetic_with_the_heads_of_the_models() -> None:
    view = RoutedTasks(0)
    routed = Tint(steps=0)(view, Steps())
    assert routed.shared.shares is not None
    assert (routed.shared.shares == 0.3).all()
    assert not any(routed.experts)


def test_a_step_without_rows_that_teach_changes_nothing() -> None:
    """The merge is the first model times a hundred: surer than any of them, and of other labels."""
    view = RoutedTasks(1)
    for task in range(3):
        view._x[task] = view._x[task][:1]
    view.rows = lambda task: 1  # type: ignore[method-assign]
    view.shared_before = view.shared  # type: ignore[attr-defined]

    def stubborn(weights: dict[str, torch.Tensor], task: int, rows: range, mixtures: object = ()) -> torch.Tensor:
        del mixtures
        own = torch.equal(weights["weight"], view.shared(np.tile(np.eye(3)[task], (2, 1)))["weight"])
        plain = torch.tensor([[0.1, 0.0, 0.0]]) if own else torch.tensor([[0.0, 0.0, 9.0]])
        return plain.repeat(len(rows), 1) + 0 * weights["weight"].sum()

    view.logits = stubborn  # type: ignore[method-assign,assignment]
    routed = Tint(router_steps=0)(view, Steps(horizon=5))
    assert routed.shared.curve == ()
    assert (routed.shared.shares == np.full((2, 3), 0.3)).all()
    assert not any(routed.experts)


def test_rows_are_predicted_more_like_their_own_models() -> None:
    view = RoutedTasks(2)
    before, after = [], []
    routed = Tint(steps=200)(view, Steps())
    for task in range(3):
        own = view.shared(np.tile(np.eye(3)[task], (2, 1)))
        labels = view.logits(own, task, range(60)).argmax(1)
        plain = view.logits(view.shared(np.full((2, 3), 0.3)), task, range(60)).argmax(1)
        tinted = {**expert_of(view, routed, task), **head_of(view, routed, task)}
        before.append(float((plain == labels).float().mean()))
        after.append(float((view.logits(tinted, task, range(60)).argmax(1) == labels).float().mean()))
    assert np.mean(after) > np.mean(before) + 0.02
    curve = [value for _, value in routed.shared.curve]
    assert np.mean(curve[-20:]) < np.mean(curve[:20])


def test_only_heads_stay_apart() -> None:
    routed = Tint()(RoutedTasks(3), Steps(horizon=5))
    assert all(set(expert) == {"head"} for expert in routed.experts)


def test_settings_out_of_range() -> None:
    for wrong in ({"batch": 0}, {"steps": -1}, {"router_steps": -1}):
        with pytest.raises(Unfit, match="cannot be"):
            Tint(**wrong)  # type: ignore[arg-type]
