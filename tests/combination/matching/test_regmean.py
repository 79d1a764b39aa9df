"""RegMean against least squares on the rows themselves."""

from __future__ import annotations

import pytest
import torch

from headstart.combination.matching.regmean import RegMean
from headstart.core import Passes, Unfit
from headstart.testing.combination_matching import any_context


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_is_the_best_fit_to_all_outputs() -> None:
    x = [rows(30, 5, 0), rows(40, 5, 1)]
    models = [rows(3, 5, 2).float(), rows(3, 5, 3).float()]
    passes = [Passes(inputs=a.T @ a / len(a)) for a in x]
    out = RegMean(shrink=1.0)(any_context((3, 5)), torch.zeros(3, 5), models, passes)
    scaled = torch.cat([a / len(a) ** 0.5 for a in x])
    wanted = torch.cat([a / len(a) ** 0.5 @ m.T.double() for a, m in zip(x, models, strict=True)])
    best = torch.linalg.lstsq(scaled, wanted).solution.T
    torch.testing.assert_close(out, best.float(), rtol=1e-5, atol=1e-6)


def test_without_off_diagonals_each_input_stands_alone() -> None:
    grams = [torch.tensor([[1.0, 0.9], [0.9, 1.0]]), torch.tensor([[3.0, -0.5], [-0.5, 1.0]])]
    models = [torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 4.0]])]
    out = RegMean(shrink=0.0)(any_context((1, 2)), torch.zeros(1, 2), models, [Passes(inputs=g) for g in grams])
    torch.testing.assert_close(out, torch.tensor([[3.0, 3.0]]))


def test_directions_that_nobody_saw_are_averaged() -> None:
    """Two rows of five: their plane is fitted, and what is at right angles to it is the mean."""
    x = rows(2, 5, 4)
    models = [rows(1, 5, 5).float(), rows(1, 5, 6).float()]
    gram = x.T @ x
    out = RegMean(shrink=1.0)(
        any_context((1, 5)), torch.zeros(1, 5), models, [Passes(inputs=gram), Passes(inputs=2 * gram)]
    )
    fit = (models[0] + 2 * models[1]) / 3
    _, _, axes = torch.linalg.svd(x)
    torch.testing.assert_close(out.double() @ axes[:2].T, fit.double() @ axes[:2].T, rtol=1e-5, atol=1e-6)
    mean = (models[0] + models[1]) / 2
    torch.testing.assert_close(out.double() @ axes[2:].T, mean.double() @ axes[2:].T, rtol=1e-5, atol=1e-6)


def test_shrink_is_a_fraction() -> None:
    with pytest.raises(Unfit):
        RegMean(shrink=1.5)
