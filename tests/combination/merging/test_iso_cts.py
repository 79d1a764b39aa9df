"""Iso-CTS against its steps done one by one, and its limit; `tests/data/published.json` has the authors' result."""

from __future__ import annotations

import numpy as np
import torch

from headstart.combination.merging.iso_c import IsoC
from headstart.combination.merging.iso_cts import IsoCts
from headstart.testing.combination_merging import any_context


def draw(shape: tuple[int, int], models: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=g) for _ in range(models)]


def test_with_nothing_of_its_own_for_a_task_it_is_iso_c() -> None:
    changes = draw((10, 7), 3)
    zeros = torch.zeros(10, 7)
    ours = IsoCts(common=1.0)(any_context((10, 7)), zeros, changes)
    torch.testing.assert_close(
        ours, IsoC()(any_context((10, 7)), zeros, changes), atol=1e-5, rtol=1e-5
    )  # two SVDs more


def test_ten_directions_and_three_tasks_are_seven_shared_and_one_each() -> None:
    changes = [c.double().numpy() for c in draw((12, 10), 3)]
    left, values, right = np.linalg.svd(sum(changes), full_matrices=False)
    blocks = []
    for change in changes:
        u, s, v = np.linalg.svd(change - left[:, :7] @ left[:, :7].T @ change, full_matrices=False)
        blocks.append((u[:, :1], s[:1], v[:1]))
    blocks.append((left[:, :7], values[:7], right[:7]))

    def nearest(
        matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        a, _, b = np.linalg.svd(matrix, full_matrices=False)
        return np.asarray(a @ b)

    strength = np.concatenate([b[1] for b in blocks]).mean()
    expected = strength * nearest(np.hstack([b[0] for b in blocks])) @ nearest(np.vstack([b[2] for b in blocks]))
    ours = IsoCts(common=0.8)(any_context((12, 10)), torch.zeros(12, 10), draw((12, 10), 3))
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-5)  # SVDs of float32


def test_a_model_that_changed_nothing_adds_no_direction_of_its_own() -> None:
    """Any would be arbitrary, and would not turn along with the changes."""
    one, other = draw((8, 6), 2)
    turn, _ = torch.linalg.qr(draw((8, 8), 1)[0])
    zeros = torch.zeros(8, 6)
    method = IsoCts(common=0.2)
    there = method(any_context((8, 6)), zeros, [one, zeros, other])
    turned = method(any_context((8, 6)), zeros, [turn @ one, zeros, turn @ other])
    torch.testing.assert_close(turned, turn @ there, atol=2e-5, rtol=1e-4)  # SVDs of float32
