"""Looking and merging in turn, on two linear layers: against least squares on rows that went through merged weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from headstart.combination.alternating import in_turn, layers_of
from headstart.combination.matching.regmean import RegMean
from headstart.combination.matching.regmean_pp import RegMeanPlusPlus
from headstart.core import Passes
from headstart.numerics.passes import Called, called, looked
from headstart.testing.combination_matching import any_context

Weights = Mapping[str, torch.Tensor]


class Layers(nn.Module):
    """Linear layers after each other, with a bend between them; called like a model of transformers."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return SimpleNamespace(logits=x)


def drawn(widths: Sequence[int]) -> tuple[Layers, list[Weights], list[torch.Tensor]]:
    """A module, the weights of three models, and rows of each."""
    torch.manual_seed(0)
    module = Layers(widths)
    models = [{n: torch.randn_like(p) for n, p in module.named_parameters()} for _ in range(3)]
    return module, models, [torch.randn(40 + 10 * m, widths[0]) for m in range(3)]


def merged(module: Layers, models: Sequence[Weights], rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """By RegMean++, with what the product has."""
    method, out = RegMeanPlusPlus(shrink=1.0), {}

    def look(model: int, names: Sequence[str], so_far: Weights) -> dict[str, Passes]:
        return looked(module, {**models[model], **so_far}, [Called({"x": rows[model]})], ["inputs"], only=names)

    def merge(names: Sequence[str], found: Sequence[Mapping[str, Passes]]) -> Weights:
        for name in names:
            tuned, passes = [m[name] for m in models], [f.get(name, Passes()) for f in found]
            out[name] = method(any_context(tuned[0].shape), torch.zeros_like(tuned[0]), tuned, passes)
        return {n: out[n] for n in names}

    order = called(module, models[0], Called({"x": rows[0]}))
    in_turn(layers_of(list(models[0]), order), len(models), look, merge)
    return out


def fitted(inputs: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Least squares on all rows, as many of each model as of the others."""
    scaled = torch.cat([x.double() / len(x) ** 0.5 for x in inputs])
    wanted = torch.cat([x.double() / len(x) ** 0.5 @ w.T.double() for x, w in zip(inputs, weights, strict=True)])
    return torch.linalg.lstsq(scaled, wanted).solution.T.float()


def test_two_layers_by_hand() -> None:
    module, models, rows = drawn([4, 5, 3])
    found = merged(module, models, rows)
    first = fitted(rows, [m["layers.0.weight"] for m in models])
    torch.testing.assert_close(found["layers.0.weight"], first, rtol=1e-4, atol=1e-5)
    bias = torch.stack([m["layers.0.bias"] for m in models]).mean(0)
    hidden = [torch.tanh(x @ first.T + bias) for x in rows]
    second = fitted(hidden, [m["layers.1.weight"] for m in models])
    torch.testing.assert_close(found["layers.1.weight"], second, rtol=1e-3, atol=1e-4)
    own = [torch.tanh(x @ m["layers.0.weight"].T + m["layers.0.bias"]) for x, m in zip(rows, models, strict=True)]
    assert not torch.allclose(second, fitted(own, [m["layers.1.weight"] for m in models]), atol=1e-2)


def test_one_layer_is_regmean() -> None:
    module, models, rows = drawn([4, 3])
    passes = [
        looked(module, m, [Called({"x": x})], ["inputs"])["layers.0.weight"] for m, x in zip(models, rows, strict=True)
    ]
    tuned = [m["layers.0.weight"] for m in models]
    wanted = RegMean(shrink=1.0)(any_context(tuned[0].shape), torch.zeros(3, 4), tuned, passes)
    assert torch.equal(merged(module, models, rows)["layers.0.weight"], wanted)


def test_tensors_that_no_pass_calls_come_first() -> None:
    names = ["a.0.w", "norm.bias", "a.0.b", "a.1.w", "head.weight", "other.3.w"]
    assert layers_of(names, ["a.0.w", "a.1.w", "head.weight"]) == [
        ["norm.bias", "other.3.w"], ["a.0.w", "a.0.b"], ["a.1.w"], ["head.weight"],
    ]  # fmt: skip


@pytest.mark.parametrize("names", [[], ["layers.1.weight"]])
def test_only_what_is_asked_for_is_looked_at(names: list[str]) -> None:
    module, models, rows = drawn([4, 5, 3])
    found = looked(module, models[0], [Called({"x": rows[0]})], ["inputs"], only=names)
    assert [n for n, p in found.items() if p.inputs is not None] == names
