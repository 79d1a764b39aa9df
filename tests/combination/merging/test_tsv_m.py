"""TSV-M by hand, and against its formula in float64; `tests/data/published.json` has the authors' result."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given

from headstart.combination.merging.tsv_m import TsvM
from headstart.testing.combination_merging import any_context
from models_on_a_grid import Array, doubles, families, holds


def run(*changes: torch.Tensor) -> torch.Tensor:
    shape = tuple(changes[0].shape)
    return TsvM()(any_context(shape), torch.zeros(shape), list(changes))


def test_tasks_on_different_axes_are_added() -> None:
    merged = run(torch.diag(torch.tensor([2.0, 0.0])), torch.diag(torch.tensor([0.0, 6.0])))
    torch.testing.assert_close(merged, torch.diag(torch.tensor([2.0, 6.0])))


def test_shares_of_directions_are_orthogonal_and_as_strong_as_they_were() -> None:
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(9, 6, generator=g), torch.randn(9, 6, generator=g)
    expected = torch.cat([torch.linalg.svdvals(a)[:3], torch.linalg.svdvals(b)[:3]]).sort(descending=True).values
    torch.testing.assert_close(torch.linalg.svdvals(run(a, b)), expected)


def test_what_has_too_few_directions_is_averaged() -> None:
    assert run(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])).tolist() == [2.0, 1.0]
    thin = [torch.ones(1, 4), 3 * torch.ones(1, 4)]
    assert run(*thin).tolist() == [[2.0] * 4]
    assert run(torch.zeros(2, 2), torch.zeros(2, 2)).tolist() == torch.zeros(2, 2).tolist()


def test_a_model_that_changed_nothing_pushes_no_direction_aside() -> None:
    g = torch.Generator().manual_seed(2)
    one = torch.randn(4, 2, generator=g) @ torch.randn(2, 4, generator=g)  # rank 2 of 4, of which each has a share of 2
    torch.testing.assert_close(run(one, torch.zeros(4, 4)), one)


@given(families())
def test_against_its_formula(family: list[torch.Tensor]) -> None:
    base, changes = doubles(family)
    share = min(base.shape) // len(changes) if base.ndim == 2 else 0
    if not share:
        holds("merging", TsvM(scale=0.7), family, base + 0.7 * changes.mean(axis=0))
        return
    lefts, spectrum, rights, gaps = [], [], [], [1.0]
    for change in changes:
        left, values, right = np.linalg.svd(change, full_matrices=False)
        kept = min(share, int((values > 1e-9).sum()))  # numbers on the grid are either 0 or far from it
        lefts.append(left[:, :kept])
        spectrum.append(values[:kept])
        rights.append(right[:kept])
        if 0 < kept < len(values):
            gaps.append((values[kept - 1] - values[kept]) / values[0])
    merged = np.zeros_like(base)
    if sum(map(len, spectrum)):
        # the nearest orthonormal columns to L are L (L' L) ** -1/2
        left, steep = orthonormal(np.concatenate(lefts, axis=1))
        right, flat = orthonormal(np.concatenate(rights).T)
        merged = (left * np.concatenate(spectrum)) @ right.T
        assume(min(gaps) > 1e-2)  # else which direction is the last is rounding's choice
        assume(max(steep, flat) < 100)
    holds("merging", TsvM(scale=0.7), family, base + 0.7 * merged, roundings=2000 / min(gaps))


def orthonormal(columns: Array) -> tuple[Array, float]:
    """The nearest orthonormal columns, and how far from orthonormal these are: largest by smallest singular value."""
    squares, turned = np.linalg.eigh(columns.T @ columns)
    steep = float((max(squares[-1], 0) / max(squares[0], 1e-16)) ** 0.5)
    return columns @ (turned / np.sqrt(np.maximum(squares, 1e-16))) @ turned.T, steep
