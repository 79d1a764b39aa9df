"""Soups: the recipe by hand, the mean against float64, and what must not be merged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headstart.combination.merging.uniform_soup import UniformSoup
from headstart.core import Unfit
from headstart.numerics.artifacts import Head, Model
from headstart.numerics.soups import greedy_soup, merged, merged_models


def head(seed: int, link: Any = "softmax") -> Head:
    g = np.random.default_rng(seed)
    return Head(g.normal(size=(3, 4)).astype(np.float32), g.normal(size=3).astype(np.float32), link)


def test_greedy_soup_asks_from_best_to_worst_and_keeps_what_does_not_hurt() -> None:
    worth = {0: 1.0, 1: -1.0, 2: 0.0, 3: 2.0}
    asked = []

    def score(soup: tuple[int, ...]) -> float:
        asked.append(soup)
        return sum(worth[i] for i in soup)

    assert greedy_soup([0.2, 0.4, 0.4, 0.1], score) == (1, 2, 0, 3)
    assert asked == [(1,), (1, 2), (1, 2, 0), (1, 2, 0, 3)]
    assert greedy_soup([0.9, 0.8, 0.7], lambda soup: -len(soup)) == (0,)
    assert greedy_soup([], score) == ()


def test_the_mean_is_rounded_once() -> None:
    g = torch.Generator().manual_seed(0)
    tuned = [torch.randn(200, generator=g).bfloat16() for _ in range(4)]
    out = dict(merged({"w": tuned[0]}, [{"w": t} for t in tuned], UniformSoup()))["w"]
    exact = torch.stack([t.double() for t in tuned]).mean(0).float().bfloat16()
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, exact)


def test_counters_are_the_bases_own() -> None:
    base = {"steps": torch.tensor(7), "w": torch.zeros(2)}
    out = dict(merged(base, [{"steps": torch.tensor(9), "w": torch.ones(2)}], UniformSoup()))
    assert out["steps"].item() == 7
    assert out["w"].tolist() == [1.0, 1.0]


def test_heads_are_averaged_with_the_weights() -> None:
    models = [Model({"w": torch.full((2,), float(i))}, head(i)) for i in range(2)]
    soup = merged_models(models, UniformSoup())
    assert soup.tensors["w"].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(soup.head.weight, (head(0).weight + head(1).weight) / 2)
    np.testing.assert_allclose(soup.head.bias, (head(0).bias + head(1).bias) / 2)


def test_a_soup_of_one_is_that_one() -> None:
    one = Model({"w": torch.rand(3, generator=torch.Generator().manual_seed(0))}, head(0))
    soup = merged_models([one], UniformSoup())
    assert torch.equal(soup.tensors["w"], one.tensors["w"])
    assert np.array_equal(soup.head.weight, one.head.weight)


def test_what_does_not_fit_together_is_named() -> None:
    with pytest.raises(Unfit, match=r"`w` has shape \(2,\)"):
        dict(merged({"w": torch.zeros(2)}, [{"w": torch.zeros(3)}], UniformSoup()))
    with pytest.raises(Unfit, match="no such tensor"):
        dict(merged({"w": torch.zeros(2)}, [{}], UniformSoup()))
    with pytest.raises(Unfit, match="identity, softmax"):
        merged_models([Model({}, head(0)), Model({}, head(0, "identity"))], UniformSoup())
