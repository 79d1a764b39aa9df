"""Routers against a softmax written out, and on points whose group is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.numerics.routers import Router, fitted, routed, router_of, tensors_of
from headstart.testing.combination_routing import RoutedTasks

HOW = {"hidden": 8, "steps": 100, "learning_rate": 0.02, "top": 1, "seed": 0}


def router(top: int = 1) -> Router:
    """From two numbers by a layer of three to four experts."""
    g = torch.Generator().manual_seed(0)
    layers = tuple((torch.randn(b, a, generator=g), torch.randn(b, generator=g)) for a, b in ((2, 3), (3, 4)))
    return Router(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5]), layers, top)


def by_hand(x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    (w, b), (v, c) = ((w.double().numpy(), b.double().numpy()) for w, b in router().layers)
    hidden = np.maximum((x - [1.0, -1.0]) / [2.0, 0.5] @ w.T + b, 0)
    e = np.exp(hidden @ v.T + c)
    return np.asarray(e / e.sum(1, keepdims=True))


def test_weights_are_a_softmax_taken_once() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    np.testing.assert_allclose(router(top=4).weights(torch.from_numpy(x).float()), by_hand(x), rtol=1e-4)


def test_of_many_experts_the_likeliest_stay_and_sum_to_one() -> None:
    x = np.random.default_rng(1).normal(size=(20, 2))
    wanted = by_hand(x)
    wanted[np.arange(20)[:, None], wanted.argsort(1)[:, :2]] = 0
    wanted /= wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(router(top=2).weights(torch.from_numpy(x).float()), wanted, rtol=1e-4)
    assert set(router(top=1).weights(torch.from_numpy(x).float()).flatten().tolist()) == {0.0, 1.0}


def test_groups_count_alike_whatever_their_rows() -> None:
    """Where nothing tells 90 rows of one group from 10 of another, the router says one half."""
    found, _ = fitted(torch.zeros(100, 3), torch.tensor([0] * 90 + [1] * 10), 2, **{**HOW, "top": 2})  # type: ignore[arg-type]
    torch.testing.assert_close(found.weights(torch.zeros(1, 3)), torch.tensor([[0.5, 0.5]]))


def test_a_ring_around_a_point_needs_the_layer_between() -> None:
    rng = np.random.default_rng(2)
    angle, far = rng.uniform(0, 6.28, 300), np.repeat([0.3, 3.0], 150)
    x = torch.from_numpy(far[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)).float()
    owners = torch.arange(300) // 150

    def right(hidden: int) -> float:
        found, _ = fitted(x, owners, 2, **{**HOW, "hidden": hidden})  # type: ignore[arg-type]
        return float((found.weights(x).argmax(1) == owners).float().mean())

    assert right(16) > 0.98
    assert right(0) < 0.8


def test_how_often_it_is_right_is_told_of_rows_it_has_not_seen() -> None:
    view = RoutedTasks(0)
    _, curve, facts = routed(view, {}, **HOW)  # type: ignore[arg-type]
    assert len(curve) == 100
    assert (facts["rows"], facts["held_out"]) == (180, 36)
    assert facts["accuracy"] > 0.8
    noise = RoutedTasks(0)
    for x in noise._x:
        x.copy_(torch.randn(x.shape, generator=torch.Generator().manual_seed(len(x))))  # the same for all tasks
    assert routed(noise, {}, **HOW)[2]["accuracy"] < 0.6  # type: ignore[arg-type]


def test_what_is_stored_is_read_back_or_refused() -> None:
    held = tensors_of(router(top=2))
    again = router_of(held, 2)
    x = torch.ones(3, 2)
    assert torch.equal(again.weights(x), router(top=2).weights(x))
    assert again.bytes == 4 * (2 + 2 + 6 + 3 + 12 + 4)
    wrong = [
        ({n: t for n, t in held.items() if n != "mean"}, 1),
        ({**held, "0.bias": torch.zeros(4)}, 1),
        ({**held, "spread": torch.zeros(2)}, 1),
        ({**held, "mean": held["mean"].double()}, 1),
        ({**held, "1.weight": held["1.weight"] * float("nan")}, 1),
        ({**held, "more": torch.zeros(1)}, 1),
        (held, 5),
    ]
    for tensors, top in wrong:
        with pytest.raises(ValueError, match="router"):
            router_of(tensors, top)
