"""OPCM against the published loop, written out by hand with whole bases and a rescaling after every model."""

from __future__ import annotations

import pytest
import torch

from headstart.combination.trimming.opcm import Opcm
from headstart.core import Unfit
from headstart.testing.merges import merged

SHAPES = {"wide": (5, 9), "tall": (8, 4), "bias": (8,), "kernel": (3, 2, 2)}
Weights = dict[str, torch.Tensor]


def drawn(models: int, seed: int = 0) -> tuple[Weights, list[Weights]]:
    g = torch.Generator().manual_seed(seed)

    def one() -> Weights:
        return {n: torch.randn(s, generator=g, dtype=torch.float64) for n, s in SHAPES.items()}

    base = one()
    return base, [{n: base[n] + (m + 1) * w for n, w in one().items()} for m in range(models)]


def length(changes: Weights) -> float:
    return float(torch.cat([c.flatten() for c in changes.values()]).norm())


def projected(change: torch.Tensor, before: torch.Tensor, energy: float) -> torch.Tensor:
    left, values, right = torch.linalg.svd(before, full_matrices=True)
    inside = left.T @ change @ right.T
    cut = int((values.cumsum(0) / values.sum() > energy).double().argmax())
    for i in range(len(values)):
        inside[i, i] = 0
    inside[:cut, :cut] = 0
    return left @ inside @ right


def one_after_the_other(base: Weights, tuned: list[Weights], energy: float) -> Weights:
    """As published: the merged change is brought to the mean length of those so far after every model."""
    changes = [{n: one[n] - base[n] for n in base} for one in tuned]
    merged_change, stretch = changes[0], 1.0
    for count, change in enumerate(changes[1:], 2):
        total = {
            n: stretch * merged_change[n]
            + (projected(c, merged_change[n], energy) if c.dim() == 2 else c)
            for n, c in change.items()
        }  # fmt: skip
        mean = sum(length(c) for c in changes[:count]) / count
        stretch = length(total) / mean
        merged_change = {n: t / stretch for n, t in total.items()}
    return {n: base[n] + merged_change[n] for n in base}


@pytest.mark.parametrize("energy", [0.2, 0.5, 0.9])
def test_against_the_published_loop(energy: float) -> None:
    base, tuned = drawn(4)
    out = merged("trimming", Opcm(energy=energy), base, tuned, threads=2, tile=7)
    wanted = one_after_the_other(base, tuned, energy)
    for name in base:
        torch.testing.assert_close(out[name], wanted[name], rtol=1e-6, atol=1e-6)  # lengths are float32


def test_the_change_is_as_long_as_changes_are() -> None:
    base, tuned = drawn(3, seed=1)
    out = merged("trimming", Opcm(), base, tuned)
    mean = sum(length({n: one[n] - base[n] for n in base}) for one in tuned) / 3
    assert length({n: out[n] - base[n] for n in base}) == pytest.approx(mean, rel=1e-6)


def test_what_lies_across_is_added_whole_and_a_copy_is_not() -> None:
    base = {"w": torch.zeros(4, 4, dtype=torch.float64)}
    one, other = base["w"].clone(), base["w"].clone()
    one[0, 0], other[2, 3] = 3.0, 3.0
    across = merged("trimming", Opcm(), base, [{"w": one}, {"w": other}])["w"]
    torch.testing.assert_close(across, (one + other) / 2**0.5)
    copied = merged("trimming", Opcm(), base, [{"w": one}, {"w": one}])["w"]
    torch.testing.assert_close(copied, one)


def test_the_order_matters() -> None:
    base, tuned = drawn(2, seed=2)
    there, back = (merged("trimming", Opcm(), base, models) for models in (tuned, tuned[::-1]))
    assert not torch.allclose(there["wide"], back["wide"], atol=1e-3)


def test_energy_is_a_share() -> None:
    with pytest.raises(Unfit):
        Opcm(energy=1.5)
