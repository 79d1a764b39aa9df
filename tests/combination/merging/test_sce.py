"""SCE by hand."""

from __future__ import annotations

import torch

from headstart.combination.merging.sce import Sce
from headstart.testing.combination_merging import any_context


def run(method: Sce, *changes: list[float]) -> list[float]:
    tuned = [torch.tensor(c) for c in changes]
    return method(any_context((len(changes[0]),)), torch.zeros(len(changes[0])), tuned).tolist()


def test_models_weigh_by_their_energy() -> None:
    # mean squares 1 and 9: shares 0.1 and 0.9
    merged = run(Sce(), [1.0, 1.0], [3.0, -3.0])
    assert torch.allclose(torch.tensor(merged), torch.tensor([0.1 * 1 + 0.9 * 3, -3.0]))


def test_entries_that_vary_most_are_selected() -> None:
    # of four entries three vary: a density of 0.7 selects two of them, those that vary most
    merged = run(Sce(density=0.7), [5.0, 1.0, 2.0, 1.0], [5.0, 2.0, 6.0, 8.0])
    assert merged[0] == merged[1] == 0.0
    assert merged[2] > 0
    assert merged[3] > 0


def test_models_that_agree_leave_nothing_to_select() -> None:
    assert run(Sce(density=0.5), [1.0, 2.0], [1.0, 2.0]) == [0.0, 0.0]
    assert run(Sce(), [1.0, 2.0], [1.0, 2.0]) == [1.0, 2.0]
    assert run(Sce(), [0.0, 0.0], [0.0, 0.0]) == [0.0, 0.0]
