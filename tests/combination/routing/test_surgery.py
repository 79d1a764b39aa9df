"""Representation surgery on linear classifiers, whose vectors are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.routing.surgery import Surgery
from headstart.core import Steps, Unfit
from headstart.testing.combination_routing import RoutedTasks


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().mean())


def features(view: RoutedTasks, task: int, rows: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the merge and of the task's own model."""
    merged = view.features(view.made("", {"scale": 0.3}), task, rows)
    return merged, view.features(view.shared(np.tile(np.eye(3)[task], (2, 1))), task, rows)


def test_without_a_step_nothing_is_corrected() -> None:
    view = RoutedTasks(0)
    routed = Surgery(steps=0)(view, Steps())
    assert routed.corrections == [None] * 3
    assert not any(routed.experts)


def test_vectors_come_nearer_to_those_of_the_model_on_rows_that_were_not_seen() -> None:
    view, unseen = RoutedTasks(0), RoutedTasks(0)
    for task in range(3):
        view._x[task] = view._x[task][:40]
    view.rows = lambda task: 40  # type: ignore[method-assign]
    routed = Surgery(steps=600, batch=40, learning_rate=0.02)(view, Steps())
    for task, correction in enumerate(routed.corrections):
        assert correction is not None
        merged, wanted = features(unseen, task, range(40, 60))
        assert gap(correction(merged), wanted) < 0.85 * gap(merged, wanted)  # three numbers tell part of it
        before, after = routed.shared.facts["gaps"][f"task {task}"]
        assert after < before


def test_of_one_model_whole_there_is_nothing_to_correct() -> None:
    """The loss of one model merged at weight 1 is 0, and stays so."""
    view = RoutedTasks(2, models=1)
    routed = Surgery(settings=(("scale", 1.0),), steps=20)(view, Steps())
    assert routed.corrections == [None]
    assert [value for _, value in routed.shared.curve] == [0.0] * 20


def test_it_adds_what_the_formula_says() -> None:
    (correction, *_) = Surgery(rank=5)(RoutedTasks(1), Steps(horizon=3)).corrections
    assert correction is not None
    assert correction.down.numel() + correction.up.numel() == 2 * 5 * 3  # rank, and three numbers before the head


def test_settings_out_of_range() -> None:
    for wrong in ({"rank": 0}, {"batch": 0}, {"steps": -1}, {"router_steps": -1}):
        with pytest.raises(Unfit, match="cannot be"):
            Surgery(**wrong)
