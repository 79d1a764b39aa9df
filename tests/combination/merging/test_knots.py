"""KnOTS against its definition: an SVD of the changes side by side in float64, and TIES of S V'."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.merging.knots import Knots
from headstart.testing.combination_merging import any_context


def plainly(changes: list[np.ndarray], density: float) -> np.ndarray:
    left, values, right = np.linalg.svd(np.concatenate(changes, axis=1), full_matrices=False)
    blocks = np.split(values[:, None] * right, len(changes), axis=1)
    for block in blocks:
        cut = np.sort(np.abs(block).ravel())[block.size - round(density * block.size) :][0]
        block[np.abs(block) < cut] = 0
    stack = np.stack(blocks)
    agree = (np.sign(stack) == np.sign(stack.sum(axis=0))) & (stack != 0)
    return np.asarray(left @ ((stack * agree).sum(axis=0) / np.maximum(agree.sum(axis=0), 1)))


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (30, 6)])
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_against_the_definition(shape: tuple[int, int], density: float) -> None:
    draw = np.random.default_rng(2)
    base, *tuned = draw.standard_normal((4, *shape))
    wanted = base + 0.5 * plainly([t - base for t in tuned], density)
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        given = [torch.from_numpy(t).to(dtype) for t in (base, *tuned)]
        merged = Knots(density=density, scale=0.5)(any_context(shape), given[0], given[1:])
        np.testing.assert_allclose(merged.numpy(), wanted, atol=near, rtol=0)


def test_a_common_rotation_of_the_outputs_rotates_the_merge() -> None:
    """Entry-wise TIES sees other entries then; the shared directions turn along."""
    g = torch.Generator().manual_seed(5)
    turn, _ = torch.linalg.qr(torch.randn(7, 7, generator=g, dtype=torch.float64))
    changes = [torch.randn(7, 5, generator=g, dtype=torch.float64) for _ in range(3)]
    zeros = torch.zeros(7, 5, dtype=torch.float64)
    method = Knots(density=0.4)
    there = method(any_context((7, 5)), zeros, changes)
    turned = method(any_context((7, 5)), zeros, [turn @ c for c in changes])
    torch.testing.assert_close(turned, turn @ there)


def test_what_is_no_matrix_is_merged_by_ties() -> None:
    a, b = torch.tensor([4.0, -1.0, 2.0]), torch.tensor([-2.0, -3.0, 3.0])
    merged = Knots(density=1.0, scale=1.0)(any_context((3,)), torch.zeros(3), [a, b])
    assert merged.tolist() == [4.0, -2.0, 2.5]
