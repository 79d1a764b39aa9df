"""RAM+ by hand and against a brute force in float64; `tests/data/mergekit.json` has mergekit's own result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.trimming.ramplus import RamPlus
from headstart.core import Unfit
from headstart.testing.merges import merged


def test_a_models_own_changes_make_up_for_its_shared_ones() -> None:
    base = {"w": torch.zeros(4)}
    tuned = [{"w": torch.tensor([1.0, 2.0, 0.0, 0.0])}, {"w": torch.tensor([3.0, 0.0, 4.0, 1.0])}]
    out = merged("trimming", RamPlus(r=0.5, alpha=0.6), base, tuned)["w"]
    # the first: one own, one shared, 1 capped at 0.6; the second: two own, one shared, 0.5
    torch.testing.assert_close(out, torch.tensor([2.0, 2.0 * 1.3, 4.0 * 1.25, 1.25]))


def brute(changes: list[np.ndarray], epsilon: float, r: float, alpha: float) -> np.ndarray:
    stack = np.stack(changes)
    moved = np.abs(stack) > epsilon
    count = moved.sum(axis=0)
    out = np.zeros(stack.shape[1:])
    for change, mine in zip(stack, moved, strict=True):
        own, shared = int((mine & (count == 1)).sum()), int((mine & (count > 1)).sum())
        factor = 1 + r * min(shared / own, alpha) if own else 1.0
        out[mine & (count == 1)] += factor * change[mine & (count == 1)]
        out[mine & (count > 1)] += change[mine & (count > 1)] / count[mine & (count > 1)]
    return out


@pytest.mark.parametrize("trim", ["tensor", "model"])
def test_counts_are_of_a_tensor_or_of_the_model(trim: str) -> None:
    draw = np.random.default_rng(0)
    sizes = {"a": 30_000, "b": 500}
    changes = [{n: draw.standard_normal(s) for n, s in sizes.items()} for _ in range(3)]
    epsilons = {"a": 1.0, "b": 1.0}
    for one in changes:
        one["b"] *= 2  # shared more often
    method = RamPlus(epsilon=1.0, r=0.5, alpha=9.0, trim=trim)  # type: ignore[arg-type]  # a name from the list
    zeros = {n: torch.zeros(s, dtype=torch.float64) for n, s in sizes.items()}
    tuned = [{n: torch.from_numpy(c) for n, c in one.items()} for one in changes]
    out = merged("trimming", method, zeros, tuned, tile=1 << 13, threads=2)
    if trim == "tensor":
        wanted = {n: brute([c[n] for c in changes], epsilons[n], 0.5, 9.0) for n in sizes}
    else:
        whole = brute([np.concatenate([c["a"], c["b"]]) for c in changes], 1.0, 0.5, 9.0)
        wanted = {"a": whole[:30_000], "b": whole[30_000:]}
    for name, w in wanted.items():
        np.testing.assert_allclose(out[name].numpy(), w, rtol=1e-12, atol=1e-12)


def test_settings_below_0_are_refused() -> None:
    with pytest.raises(Unfit, match="alpha is -1"):
        RamPlus(alpha=-1)
