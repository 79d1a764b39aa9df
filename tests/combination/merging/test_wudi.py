"""WUDI against its loss, taken down by automatic differentiation in float64."""

from __future__ import annotations

import pytest
import torch

from headstart.combination.merging.wudi import Wudi
from headstart.core import Unfit
from headstart.testing.combination_merging import any_context


def loss(merged: torch.Tensor, changes: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([((merged - c) @ c.T).square().sum() / c.square().sum() for c in changes]).sum()


def drawn(*shape: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(6)
    return [0.01 * torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_against_a_descent_by_automatic_differentiation(shape: tuple[int, int]) -> None:
    changes = drawn(*shape)
    merged = torch.stack(changes).sum(dim=0).requires_grad_()
    optimiser = torch.optim.Adam([merged], lr=1e-4)
    for _ in range(50):
        optimiser.zero_grad()
        loss(merged, changes).backward()
        optimiser.step()
    ours = Wudi(steps=50, learning_rate=1e-4)(any_context(shape), torch.zeros_like(changes[0]), changes)
    torch.testing.assert_close(ours, merged.detach(), atol=1e-9, rtol=0)
    assert float(loss(ours, changes)) < 0.6 * float(loss(torch.stack(changes).sum(dim=0), changes))


def test_tasks_with_inputs_of_their_own_are_added() -> None:
    """Each change has rows in its own inputs, so that the sum disturbs nobody, and stays."""
    a, b = torch.zeros(2, 4), torch.zeros(2, 4)
    a[:, :2], b[:, 2:] = 0.5, -0.25
    torch.testing.assert_close(Wudi()(any_context((2, 4)), torch.zeros(2, 4), [a, b]), a + b)


def test_what_is_no_matrix_is_averaged() -> None:
    merged = Wudi()(any_context((2,)), torch.zeros(2), [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])])
    assert merged.tolist() == [2.0, 1.0]


def test_a_descent_that_goes_nowhere_is_refused() -> None:
    with pytest.raises(Unfit, match="go nowhere"):
        Wudi(learning_rate=0)
