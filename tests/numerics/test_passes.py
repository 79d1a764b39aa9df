"""What passes show, against closed forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from headstart.numerics.passes import Called, looked


class Small(nn.Module):
    """A linear classifier, or regression, that is called like a model of transformers."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, outputs)

    def forward(self, x: torch.Tensor) -> Any:
        return SimpleNamespace(logits=self.head(x))


class Tokens(nn.Module):
    """The mean over a row's tokens of a layer's outputs, then a head."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        hidden = torch.tanh(self.layer(x)) * attention_mask[..., None]
        return SimpleNamespace(logits=self.head(hidden.sum(1) / attention_mask.sum(1, keepdim=True)))


def drawn(outputs: int, rows: int = 12) -> tuple[Small, dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(0)
    module = Small(4, outputs)
    weights = {n: torch.randn_like(p) for n, p in module.named_parameters()}
    return module, weights, torch.randn(rows, 4)


def each(x: torch.Tensor) -> list[Called]:
    return [Called({"x": row[None]}) for row in x]


def test_fisher_of_softmax() -> None:
    """E[(p - y)²] of class c is p(1-p), times the squared inputs."""
    module, weights, x = drawn(3)
    seen = looked(module, weights, each(x), ["squares"])
    p = torch.softmax(x @ weights["head.weight"].T + weights["head.bias"], 1)
    spread = p * (1 - p)
    torch.testing.assert_close(seen["head.weight"].squares, spread.T @ x**2 / len(x))
    torch.testing.assert_close(seen["head.bias"].squares, spread.mean(0))


def test_fisher_of_labels_and_of_numbers() -> None:
    module, weights, x = drawn(3)
    p = torch.sigmoid(x @ weights["head.weight"].T + weights["head.bias"])
    seen = looked(module, weights, each(x), ["squares"], link="sigmoid")
    torch.testing.assert_close(seen["head.weight"].squares, (p * (1 - p)).T @ x**2 / len(x))
    seen = looked(module, weights, each(x), ["squares"], link="identity")
    torch.testing.assert_close(seen["head.weight"].squares, (x**2).mean(0).expand(3, 4))


@pytest.mark.parametrize("link", ["softmax", "sigmoid", "identity"])
def test_drawn_outputs_have_the_right_mean(link: Any) -> None:
    module, weights, x = drawn(6, rows=3)
    exact = looked(module, weights, each(x), ["squares"], link=link)["head.bias"].squares
    some = [
        looked(module, weights, each(x), ["squares"], link=link, draws=3, seed=s)["head.bias"].squares
        for s in range(300)
    ]
    mean = torch.stack([s for s in some if s is not None])
    assert exact is not None
    error = mean.std(0) / 300**0.5
    assert bool(((mean.mean(0) - exact).abs() < 5 * error + 1e-6).all())


def test_inputs_and_gradients_leave_padding_out() -> None:
    torch.manual_seed(1)
    module = Tokens()
    weights = {n: torch.randn_like(p) for n, p in module.named_parameters()}
    x, mask = torch.randn(5, 7, 4), (torch.arange(7)[None] < torch.tensor([[7], [3], [1], [5], [6]])).long()
    calls = [Called({"x": x[i : i + 1], "attention_mask": mask[i : i + 1]}, mask[i : i + 1]) for i in range(5)]
    noise = [Called({**c.tensors, "x": c.tensors["x"] + 9 * (1 - c.tensors["attention_mask"][..., None])}, c.mask)
             for c in calls]  # fmt: skip
    seen = looked(module, weights, calls, ["inputs", "gradients"])
    padded = looked(module, weights, noise, ["inputs", "gradients"])
    kept = x[mask.bool()].double()
    inputs = seen["layer.weight"].inputs
    assert inputs is not None
    torch.testing.assert_close(inputs, kept.T @ kept / len(kept), rtol=1e-6, atol=1e-6)
    for a, b in zip(seen.values(), padded.values(), strict=True):
        torch.testing.assert_close(a.inputs, b.inputs)
        torch.testing.assert_close(a.gradients, b.gradients)
    assert seen["head.bias"].inputs is None


def test_one_token_a_row_makes_kronecker_factors_exact() -> None:
    """With one output, the Fisher information of a linear layer is what its factors say."""
    module, weights, x = drawn(1, rows=1)
    seen = looked(module, weights, each(x), ["squares", "inputs", "gradients"], link="identity")["head.weight"]
    assert seen.inputs is not None
    assert seen.gradients is not None
    torch.testing.assert_close(
        torch.outer(seen.gradients.diagonal(), seen.inputs.diagonal()).float(), seen.squares, rtol=1e-5, atol=1e-7
    )


def test_the_module_stays_as_it_was() -> None:
    module, weights, x = drawn(2)
    before = {n: p.clone() for n, p in module.named_parameters()}
    looked(module, weights, each(x), ["squares", "inputs", "gradients"])
    assert all(torch.equal(p, before[n]) for n, p in module.named_parameters())
    assert all(p.grad is None for p in module.parameters())
    assert not module.head._forward_hooks
