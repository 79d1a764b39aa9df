"""Soups: the recipe by hand, the mean against float64, and what must not be merged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headstart.combination.merging.uniform_soup import UniformSoup
from headstart.core import Unfit
from headstart.numerics.artifacts import Head, Model
from headstart.numerics.soups import greedy_soup, soup


def head(seed: int, link: Any = "softmax") -> Head:
    g = np.random.default_rng(seed)
    return Head(g.normal(size=(3, 4)).astype(np.float32), g.normal(size=3).astype(np.float32), link)


def test_greedy_soup_asks_from_best_to_worst_and_keeps_what_does_not_hurt() -> None:
    worth = {0: 1.0, 1: -1.0, 2: 0.0, 3: 2.0}
    asked = []

    def score(chosen: tuple[int, ...]) -> float:
        asked.append(chosen)
        return sum(worth[i] for i in chosen)

    assert greedy_soup([0.2, 0.4, 0.4, 0.1], score) == (1, 2, 0, 3)
    assert asked == [(1,), (1, 2), (1, 2, 0), (1, 2, 0, 3)]
    assert greedy_soup([0.9, 0.8, 0.7], lambda chosen: -len(chosen)) == (0,)
    assert greedy_soup([], score) == ()


def model(tensors: dict[str, torch.Tensor], seed: int = 0, link: Any = "softmax") -> Model:
    return Model(tensors, head(seed, link))


def test_the_mean_is_rounded_once() -> None:
    g = torch.Generator().manual_seed(0)
    tuned = [torch.randn(200, generator=g).bfloat16() for _ in range(4)]
    out = soup({"w": tuned[0]}, [model({"w": t}) for t in tuned], UniformSoup()).tensors["w"]
    exact = torch.stack([t.double() for t in tuned]).mean(0).float().bfloat16()
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, exact)


def test_what_not_all_have_and_counters_are_not_merged() -> None:
    base = {"steps": torch.tensor(7), "w": torch.zeros(2), "some": torch.zeros(1), "none": torch.full((1,), 5.0)}
    one = model({"steps": torch.tensor(9), "w": torch.ones(2)})
    other = model({"steps": torch.tensor(11), "w": torch.full((2,), 3.0), "some": torch.full((1,), 4.0)})
    out = soup(base, [one, other], UniformSoup()).tensors
    assert out["steps"].item() == 9
    assert out["w"].tolist() == [2.0, 2.0]
    assert out["some"].item() == 4
    assert out["none"].item() == 5


def test_heads_are_averaged_with_the_weights() -> None:
    models = [model({"w": torch.full((2,), float(i))}, i) for i in range(2)]
    made = soup(models[0].tensors, models, UniformSoup())
    assert made.tensors["w"].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(made.head.weight, (head(0).weight + head(1).weight) / 2, rtol=1e-6)
    np.testing.assert_allclose(made.head.bias, (head(0).bias + head(1).bias) / 2, rtol=1e-6)


def test_a_soup_of_one_is_that_one() -> None:
    one = model({"w": torch.rand(3, generator=torch.Generator().manual_seed(0))})
    made = soup(one.tensors, [one], UniformSoup())
    assert torch.equal(made.tensors["w"], one.tensors["w"])
    assert np.array_equal(made.head.weight, one.head.weight)


def test_heads_of_two_kinds_are_named() -> None:
    with pytest.raises(Unfit, match="identity, softmax"):
        soup({}, [model({}), model({}, 0, "identity")], UniformSoup())
