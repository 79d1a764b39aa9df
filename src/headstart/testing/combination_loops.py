"""What a method of the kind `loops` must do, and what it may claim: on linear classifiers of a few rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from headstart.core import Looped, Steps
from headstart.numerics.learning import loss

from .combination_learning import LinearTasks, model_of, near, same_models
from .merges import plainly

Law = Callable[..., None]
Weights = Mapping[str, torch.Tensor]


def base_of(view: LinearTasks) -> dict[str, torch.Tensor]:
    return {n: view.base(n).clone() for n in view.tensors}


def run(method: Any, view: LinearTasks, *, horizon: int | None = None, **settings: Any) -> Looped:
    """The method with other settings, from the base."""
    found: Looped = dataclasses.replace(method, **settings)(view, base_of(view), Steps(horizon=horizon))
    return found


def joint_step(view: LinearTasks, body: Weights, rate: float) -> dict[str, torch.Tensor]:
    """One step down the mean over the tasks of the mean loss, in float64."""
    leaves = {n: w.double().requires_grad_() for n, w in body.items()}
    losses = []
    for task in range(len(view.tasks)):
        rows = range(view.rows(task))
        logits = view.inputs(task).double() @ leaves["weight"].T + leaves["bias"]
        losses.append(loss(logits, view.labels(task, rows), view.link(task)))
    torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
    return {n: (w - rate * w.grad).detach() for n, w in leaves.items() if w.grad is not None}


def repeatable(method: Any, seed: int) -> None:
    one, two = (run(method, LinearTasks(seed), horizon=4, learning_rate=0.01) for _ in range(2))
    assert one.curve == two.curve
    assert one.facts == two.facts
    assert all(torch.equal(one.weights[n], two.weights[n]) for n in one.weights)


def says_what_it_made(method: Any, seed: int) -> None:
    view = LinearTasks(seed)
    found = run(method, view, horizon=4)
    assert list(found.weights) == view.tensors
    for name, weight in found.weights.items():
        assert weight.shape == view.base(name).shape
        assert weight.dtype == torch.float32
        assert not weight.requires_grad
        assert weight.isfinite().all()
    assert found.curve[0][0] == 0
    assert all(np.isfinite(v) for _, v in found.curve)


def no_step_trains_nothing(method: Any, seed: int) -> None:
    view, settings = LinearTasks(seed), ({"horizon": 0}, {"rounds": 0})
    for found in (run(method, view, start="base", **setting) for setting in settings):
        assert all(torch.equal(found.weights[n], view.base(n)) for n in view.tensors)


def view_stays_as_it_was(method: Any, seed: int) -> None:
    view, kept = LinearTasks(seed), LinearTasks(seed)
    body = base_of(view)
    dataclasses.replace(method, learning_rate=0.05)(view, body, Steps(horizon=4))
    same_models(view, kept)
    for name in view.tensors:
        assert torch.equal(body[name], kept.base(name))
        assert not body[name].requires_grad


def learns(method: Any, seed: int) -> None:
    """With steps that are large enough, one task is known better than by the base, which stays where none is taken."""
    view = LinearTasks(seed, tasks=1)
    found = run(method, view, start="base", rounds=5, steps=10, learning_rate=0.1)
    rows = range(view.rows(0))
    before, after = (
        float(loss(view.logits(w, 0, rows), view.labels(0, rows), view.link(0))) for w in (base_of(view), found.weights)
    )
    assert after < before or all(torch.equal(found.weights[n], view.base(n)) for n in view.tensors)


def begins_as_task_arithmetic(method: Any, seed: int) -> None:
    """One round of the models themselves is task arithmetic with equal shares of one."""
    view = LinearTasks(seed)
    found, wanted = run(method, view, start="models", rounds=1), view.shared(np.full((2, 3), 1 / 3))
    assert all(torch.equal(found.weights[n], wanted[n]) for n in wanted)


def a_step_is_a_joint_step(method: Any, seed: int) -> None:
    """Rounds of one full step of each task are steps on the mean loss of all."""
    view, rate = LinearTasks(seed, tasks=3), 0.3
    found = run(method, view, start="base", rounds=3, steps=1, batch=0, optimiser="sgd", learning_rate=rate, alpha=1.0)
    wanted: Weights = base_of(view)
    for _ in range(3):
        wanted = joint_step(view, wanted, rate)
    for name in wanted:
        torch.testing.assert_close(found.weights[name].double(), wanted[name], rtol=1e-6, atol=1e-6)


def loss_falls(method: Any, seed: int) -> None:
    """Full steps that are small enough go down, round after round."""
    curve = run(
        method, LinearTasks(seed), start="base", rounds=8, steps=2, batch=0, optimiser="sgd", learning_rate=0.05
    ).curve
    assert [r for r, _ in curve] == list(range(9))
    assert all(b < a for (_, a), (_, b) in pairwise(curve))


def one_model_is_itself(method: Any, seed: int) -> None:
    view = LinearTasks(seed, tasks=1, models=1)
    found = run(method, view, start="models", rounds=1)
    for name in view.tensors:
        assert torch.equal(found.weights[name], view.base(name) + view.changes(name)[0])


def equal_bodies_stay(method: Any, seed: int) -> None:
    """Whatever of them is taken."""
    view = LinearTasks(seed, alike=True)
    found = run(method, view, start="models", rounds=1)
    assert all(torch.equal(found.weights[n], view.base(n)) for n in view.tensors)


def never_worse_by_what_it_measures(method: Any, seed: int) -> None:
    curve = run(method, LinearTasks(seed), rounds=4, steps=5, learning_rate=0.2).curve
    assert all(b <= a for (_, a), (_, b) in pairwise(curve))


def no_worse_than_any_branch(method: Any, seed: int) -> None:
    for told in run(method, LinearTasks(seed, tasks=3), rounds=3, steps=5, learning_rate=0.1).facts["rounds"]:
        assert told["score"] >= max(b["score"] for b in told["branches"])
        parts = [b["part"] for b in told["branches"]]
        assert min(parts) >= 0
        assert abs(sum(parts) - 1) < 1e-5  # rounded for the account


def source_order(method: Any, seed: int) -> None:
    """Of models, whose first round merges them; tasks stay as they stand."""
    found = [run(method, LinearTasks(seed, turned=t), start="models", rounds=1).weights for t in (False, True)]
    near(found[1], found[0])


def copies(method: Any, seed: int) -> None:
    """The first round of copies of one model gives it."""
    view = LinearTasks(seed, copies=True)
    near(run(method, view, start="models", rounds=1).weights, model_of(view))


def scale_zero(method: Any, seed: int) -> None:
    """A body that no change moves stays the base."""
    view, still = LinearTasks(seed), plainly(method, alpha=0.0)
    assert still != method, "has no setting that says how far it goes"
    found = run(still, view, start="base", rounds=2, learning_rate=0.1)
    assert all(torch.equal(found.weights[n], view.base(n)) for n in view.tensors)


ALWAYS: list[Law] = [repeatable, says_what_it_made, no_step_trains_nothing, view_stays_as_it_was, learns]
CLAIMS: dict[str, Law] = {
    law.__name__: law
    for law in (
        begins_as_task_arithmetic, a_step_is_a_joint_step, loss_falls, one_model_is_itself, equal_bodies_stay,
        never_worse_by_what_it_measures, no_worse_than_any_branch, source_order, copies, scale_zero,
    )
}  # fmt: skip
