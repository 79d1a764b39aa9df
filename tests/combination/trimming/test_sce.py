"""SCE by hand, and against its formula in float64."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from headstart.combination.trimming.sce import Sce
from headstart.testing.merges import merged as made
from models_on_a_grid import doubles, families, holds


def run(method: Sce, *changes: list[float]) -> list[float]:
    tuned = [{"w": torch.tensor(c)} for c in changes]
    return made("trimming", method, {"w": torch.zeros(len(changes[0]))}, tuned)["w"].tolist()


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


@given(families(), st.sampled_from([0.3, 0.7, 1.0]))
def test_against_its_formula(family: list[torch.Tensor], density: float) -> None:
    base, changes = doubles(family)
    if density < 1:
        spread = changes.var(axis=0).ravel()
        order = np.argsort(-spread, kind="stable")
        kept = int(density * np.count_nonzero(spread))
        # of equal spreads, which rounding may put in either order, none is at the cut
        assume(kept == 0 or spread[order[kept - 1]] > spread[order[min(kept, len(order) - 1)]] + 1e-5)
        chosen = np.isin(np.arange(spread.size), order[:kept]).reshape(base.shape)
        changes = changes * chosen
    energy = np.square(changes).reshape(len(changes), -1).sum(axis=1)
    share = (energy / max(energy.sum(), 1e-300)).reshape(-1, *[1] * base.ndim)
    agrees = changes * np.sign(changes.sum(axis=0)) > 0
    heard = (share * agrees).sum(axis=0)
    wanted = base + 0.8 * (share * changes * agrees).sum(axis=0) / np.where(heard > 0, heard, 1)
    holds("trimming", Sce(density=density, scale=0.8), family, wanted, roundings=16)
