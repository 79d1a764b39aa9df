"""Weights on the simplex: by brute force over a grid, and by the conditions that only the nearest point meets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from headstart.numerics.simplex import best_mixture, sparsemax


@given(seed=st.integers(0, 2**20), size=st.integers(1, 6), unit=st.sampled_from([0.1, 1.0, 30.0]))
def test_sparsemax_is_the_nearest_point(seed: int, size: int, unit: float) -> None:
    """At the nearest point all that is above 0 was lowered by the same, and the rest lay below that."""
    z = unit * np.random.default_rng(seed).standard_normal(size)
    w = sparsemax(z)
    assert w.min() >= 0
    assert w.sum() == pytest.approx(1)
    taken = z - w
    assert np.ptp(taken[w > 0]) < 1e-9
    assert (taken[w == 0] <= taken[w > 0].min() + 1e-9).all()


def test_values_beside_which_one_is_nothing_still_make_weights() -> None:
    assert sparsemax(np.array([1e20, -1.0, 1e20])).tolist() == [0.5, 0.0, 0.5]
    assert sparsemax(np.array([-1e20, -2e20])).tolist() == [1.0, 0.0]


def drawn(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Products of targets that are alike, and of the part of them that some directions reach."""
    chance = np.random.default_rng(seed)
    targets = chance.standard_normal((40, 1)) + chance.standard_normal((40, size))
    f = np.linalg.qr(chance.standard_normal((40, 12)))[0]
    reached = f.T @ targets
    return targets.T @ targets, reached.T @ reached


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_the_mixture_is_the_least_there_is(seed: int, size: int) -> None:
    energy, reached = drawn(seed, size)
    left = energy - reached
    found = best_mixture(energy, reached)
    best = minimize(
        lambda w: w @ left @ w, np.full(size, 1 / size), method="SLSQP", bounds=[(0, 1)] * size,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert found @ left @ found == pytest.approx(best.fun, rel=1e-8)
    assert found.sum() == pytest.approx(1)


def test_the_error_never_rises() -> None:
    energy, reached = drawn(7, 4)
    steps = [best_mixture(energy, reached, iterations=n) for n in range(30)]
    errors = [w @ (energy - reached) @ w for w in steps]
    assert (np.diff(errors) <= 1e-12).all()
    assert errors[-1] < errors[0]
