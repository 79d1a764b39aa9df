"""Corrections and mixtures in modules of torch, against the weights that they stand for, written out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from headstart.numerics.inserts import Correction, Inserted, Mixture, blocks, inserts_of, tensors_of

WIDTH, INNER, MODELS = 6, 14, 3


def block(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))


def changed(module: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator) for n, p in module.named_parameters()}


def mixture(seed: int = 0, constant: list[float] | None = None) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(n, WIDTH, generator=generator) for n in (WIDTH, MODELS))
    if constant is not None:
        second, last = 0 * second, torch.tensor(constant)
    else:
        last = torch.zeros(MODELS)
    return Mixture(("0.weight", "0.bias", "2.weight", "2.bias"), ((first, torch.zeros(WIDTH)), (second, last)))


@given(seed=st.integers(0, 50), gates=st.lists(st.floats(-1, 1, width=32), min_size=MODELS, max_size=MODELS))
def test_constant_gates_are_one_merge_of_the_weights(seed: int, gates: list[float]) -> None:
    module, x = block(seed), torch.randn(2, 4, WIDTH)
    changes = [changed(module, seed + k) for k in range(MODELS)]
    weights = {n: p + sum(g * c[n] for g, c in zip(gates, changes, strict=True)) for n, p in module.named_parameters()}
    wanted = torch.func.functional_call(module, weights, (x,))
    with Inserted(module, [mixture(constant=gates)], changes):
        torch.testing.assert_close(module(x), wanted, rtol=1e-4, atol=1e-4)


def test_every_input_has_gates_of_its_own() -> None:
    """As though the weights were merged for it alone, in the layers between too."""
    module, x, one = block(), torch.randn(5, 4, WIDTH), mixture(3)
    changes = [changed(module, k) for k in range(MODELS)]
    gates = one.gates(x)
    with Inserted(module, [one], changes):
        together = module(x)
        alone = torch.cat([module(row[None]) for row in x])
    torch.testing.assert_close(together, alone)
    for row, gate, found in zip(x, gates, together, strict=True):
        weights = {
            n: p + sum(float(g) * c[n] for g, c in zip(gate, changes, strict=True))
            for n, p in module.named_parameters()
        }
        torch.testing.assert_close(found, torch.func.functional_call(module, weights, (row,)), rtol=1e-4, atol=1e-4)


def test_padding_has_no_part_in_the_gates() -> None:
    one, x = mixture(1), torch.randn(2, 5, WIDTH)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    found = one.gates(x, mask)
    torch.testing.assert_close(found[:1], one.gates(x[:1, :3]))
    torch.testing.assert_close(found[1:], one.gates(x[1:]))


def test_a_module_is_left_as_it_was() -> None:
    module, x = block(), torch.randn(3, WIDTH)
    before = module(x)
    with Inserted(
        module, [mixture(2)], [changed(module, 1)] * MODELS, Correction(torch.eye(INNER), torch.eye(INNER)), "2.weight"
    ):
        assert not torch.equal(module(x), before)
    assert torch.equal(module(x), before)


def test_a_correction_goes_before_the_layer_that_is_named() -> None:
    module, x = block(), torch.randn(3, WIDTH)
    correction = Correction(torch.randn(2, INNER), torch.randn(INNER, 2))
    z = module[1](module[0](x))
    wanted = module[2](z - torch.relu(z @ correction.down.T) @ correction.up.T)
    with Inserted(module, correction=correction, head="2.weight"):
        torch.testing.assert_close(module(x), wanted)


def test_a_layer_that_is_stored_transposed() -> None:
    from transformers.pytorch_utils import Conv1D

    module, x = nn.Sequential(Conv1D(INNER, WIDTH)), torch.randn(3, WIDTH)
    change = {"0.weight": torch.randn(WIDTH, INNER), "0.bias": torch.randn(INNER)}
    gates = Mixture(("0.weight", "0.bias"), ((torch.zeros(1, WIDTH), torch.tensor([0.5])),))
    with Inserted(module, [gates], [change]):
        found = module(x)
    torch.testing.assert_close(found, module(x) + 0.5 * (x @ change["0.weight"] + change["0.bias"]))


def test_they_come_back_from_their_tensors() -> None:
    mixtures, corrections = [mixture(0), mixture(1)], [None, Correction(torch.randn(2, 5), torch.randn(5, 2)), None]
    held = tensors_of(mixtures, corrections)
    again, others = inserts_of(held, [m.tensors for m in mixtures], MODELS)
    assert [m.tensors for m in again] == [m.tensors for m in mixtures]
    assert [c is None for c in others] == [True, False, True]
    back = tensors_of(again, others)
    assert back.keys() == held.keys()
    assert all(torch.equal(back[n], held[n]) for n in held)


WRONG = {
    "gates of no block": ({"gates.2.0.weight": torch.zeros(3, 3)}, "no place"),
    "half a correction": ({"task.0.down": torch.zeros(2, 5)}, "correction of task 1"),
    "a correction that widens": ({"task.0.down": torch.zeros(2, 5), "task.0.up": torch.zeros(4, 2)}, "correction of"),
    "no number": ({"gates.0.1.bias": torch.full((3,), float("nan"))}, "not finite"),
    "another type": ({"gates.0.1.bias": torch.zeros(3, dtype=torch.float64)}, "not float32"),
    "too many models": (
        {"gates.0.1.bias": torch.zeros(4), "gates.0.1.weight": torch.zeros(4, WIDTH)},
        "gates of block 1",
    ),
    "layers that do not fit": ({"gates.0.0.weight": torch.zeros(4, WIDTH)}, "gates of block 1"),
    "a task too many": ({"task.3.down": torch.zeros(2, 5), "task.3.up": torch.zeros(5, 2)}, "no place"),
}


@pytest.mark.parametrize("name", WRONG)
def test_tensors_that_do_not_fit_are_refused(name: str) -> None:
    more, words = WRONG[name]
    one = mixture(0)
    with pytest.raises(ValueError, match=words):
        inserts_of({**tensors_of([one], []), **more}, [one.tensors], MODELS)
    with pytest.raises(ValueError, match="gates of block 1"):
        inserts_of({}, [one.tensors], MODELS)


def test_blocks_of_what_is_called() -> None:
    shapes = dict.fromkeys("qkvo", (8, 8)) | {"up": (8, 32), "down": (32, 8), "fused": (8, 24), "head": (8, 2)}
    assert blocks(["q", "k", "v", "o", "up", "down"] * 2, shapes) == [("up", "down")] * 2
    assert blocks(["fused", "o", "up", "down", "head"], shapes) == [("up", "down")]
    assert blocks(["q", "head"], shapes) == []
