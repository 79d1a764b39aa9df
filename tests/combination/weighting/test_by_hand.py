"""Weightings on numbers done by hand, and against plain formulas on whole vectors in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.combination.weighting.ema import Ema
from headstart.combination.weighting.karcher import Karcher
from headstart.combination.weighting.linear import Linear
from headstart.combination.weighting.model_stock import ModelStock
from headstart.combination.weighting.multi_slerp import MultiSlerp
from headstart.combination.weighting.nuslerp import NuSlerp
from headstart.combination.weighting.slerp import Slerp
from headstart.combination.weighting.task_arithmetic import TaskArithmetic
from headstart.combination.weighting.wise_ft import WiseFt
from headstart.core import Unfit
from headstart.testing.merges import merged

Array = np.ndarray[Any, Any]
HALF = 2**-0.5


def run(method: Any, *vectors: list[float], base: list[float] | None = None) -> Array:
    """One tensor, float64; without a base it is zeros."""
    size = len(vectors[0])
    first = torch.tensor(base or [0.0] * size, dtype=torch.float64)
    tuned = [{"w": torch.tensor(v, dtype=torch.float64)} for v in vectors]
    return merged("weighting", method, {"w": first}, tuned)["w"].numpy()


def test_linear_divides_by_the_sum_of_the_weights() -> None:
    assert run(Linear(weights=(1, 3)), [0.0, 4.0], [4.0, 0.0]).tolist() == [3.0, 1.0]
    assert run(Linear(weights=(1, 3), normalize=False), [0.0, 4.0], [4.0, 0.0]).tolist() == [12.0, 4.0]
    with pytest.raises(Unfit, match="sum to 0"):
        run(Linear(weights=(1, -1)), [1.0], [2.0])
    with pytest.raises(Unfit, match="2 numbers, and there are 1"):
        run(Linear(weights=(1, 1)), [1.0])


def test_task_arithmetic_adds_negates_and_makes_analogies() -> None:
    base = [1.0, 1.0]
    assert run(TaskArithmetic(scale=1.0), [2.0, 1.0], [1.0, 3.0], base=base).tolist() == [2.0, 3.0]
    assert run(TaskArithmetic(scale=-1.0), [2.0, 1.0], base=base).tolist() == [0.0, 1.0]
    a, b, c = [5.0, 1.0], [3.0, 1.0], [1.0, 2.0]
    assert run(TaskArithmetic(scale=1.0, weights=(1, -1)), a, b, base=c).tolist() == [3.0, 2.0]  # c + (a - b)


def test_linear_is_task_arithmetic_with_weights_that_sum_to_one() -> None:
    base, a, b = [1.0, -2.0, 0.5], [2.0, 1.0, 0.0], [0.0, 3.0, 4.0]
    np.testing.assert_allclose(
        run(TaskArithmetic(scale=1.0, weights=(0.3, 0.7)), a, b, base=base), run(Linear(weights=(0.3, 0.7)), a, b)
    )


def test_wise_ft_has_its_ends_and_its_middle() -> None:
    for alpha, expected in ((0.0, [1.0, 0.0]), (0.5, [2.0, 1.0]), (1.0, [3.0, 2.0])):
        assert run(WiseFt(alpha=alpha), [3.0, 2.0], base=[1.0, 0.0]).tolist() == expected
    with pytest.raises(Unfit, match=r"alpha is 1\.5"):
        WiseFt(alpha=1.5)


def test_ema_is_the_running_average_step_by_step() -> None:
    checkpoints = [[1.0], [2.0], [4.0], [8.0]]
    average = 1.0
    for one in checkpoints[1:]:
        average = 0.75 * average + 0.25 * one[0]
    np.testing.assert_allclose(run(Ema(momentum=0.75), *checkpoints), [average])
    np.testing.assert_allclose(run(Ema(momentum=0.0), *checkpoints), [8.0])


def test_slerp_goes_along_the_arc() -> None:
    np.testing.assert_allclose(run(Slerp(t=0.5), [1.0, 0.0], [0.0, 1.0]), [HALF, HALF])
    np.testing.assert_allclose(run(Slerp(t=0.0), [1.0, 2.0], [0.0, 1.0]), [1.0, 2.0], atol=1e-15)
    np.testing.assert_allclose(run(Slerp(t=1.0), [1.0, 2.0], [0.0, 1.0]), [0.0, 1.0], atol=1e-15)
    # almost the same direction, and a zero: a straight line
    np.testing.assert_allclose(run(Slerp(t=0.25), [1.0, 0.0], [3.0, 0.001]), [1.5, 0.00025])
    np.testing.assert_allclose(run(Slerp(t=0.25), [0.0, 0.0], [4.0, 0.0]), [1.0, 0.0])


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_nuslerp_without_a_base_is_slerp(t: float, seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 5)).tolist()
    np.testing.assert_allclose(run(NuSlerp(weights=(1 - t, t)), a, b), run(Slerp(t=t, straight=1.0), a, b), atol=1e-9)


def test_nuslerp_goes_along_the_arc_of_changes_and_of_rows() -> None:
    np.testing.assert_allclose(run(NuSlerp(), [3.0, 2.0], [2.0, 3.0], base=[2.0, 2.0]), [2 + HALF, 2 + HALF])
    rows = [{"w": torch.tensor([[1.0, 0.0], [2.0, 0.0]])}, {"w": torch.tensor([[0.0, 1.0], [4.0, 0.0]])}]
    out = merged("weighting", NuSlerp(per="row"), {"w": torch.zeros(2, 2)}, rows)["w"]
    torch.testing.assert_close(out, torch.tensor([[HALF, HALF], [3.0, 0.0]]))


def test_multi_slerp_is_the_mean_direction_at_the_mean_length() -> None:
    # mergekit's way over the tangent space ends there too: (.25, .75) of two unit vectors
    np.testing.assert_allclose(
        run(MultiSlerp(weights=(0.25, 0.75)), [1.0, 0.0], [0.0, 1.0]), np.array([1.0, 3.0]) / 10**0.5
    )
    np.testing.assert_allclose(run(MultiSlerp(), [2.0, 0.0], [0.0, 4.0]), [3 * HALF, 3 * HALF])
    np.testing.assert_allclose(run(MultiSlerp(), [2.0, 0.0], [-4.0, 0.0]), [-1.0, 0.0])  # two that cancel: the mean
    np.testing.assert_allclose(run(MultiSlerp(), [3.0], [-3.0], [0.0]), [0.0], atol=1e-15)


@given(st.integers(0, 1000))
def test_multi_slerp_equals_the_way_over_the_tangent_space(seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(3, 6)) + 1
    weights = np.array([0.2, 0.3, 0.5])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / lengths
    mean = weights @ units
    mean /= np.linalg.norm(mean)
    tangent = weights @ (units - (units @ mean)[:, None] * mean)
    far = np.linalg.norm(tangent) + 1e-300
    expected = (mean * np.cos(far) + tangent * np.sin(far) / far) * (weights @ lengths[:, 0])
    np.testing.assert_allclose(run(MultiSlerp(weights=(0.2, 0.3, 0.5)), *vectors.tolist()), expected, atol=1e-12)


@given(st.integers(0, 1000))
def test_karcher_mean_has_no_direction_left(seed: int) -> None:
    """At the mean, the steps along the sphere to all vectors sum to nothing: found on the vectors themselves."""
    vectors = np.random.default_rng(seed).normal(size=(4, 6)) + 2
    found = run(Karcher(steps=100, tolerance=1e-12), *vectors.tolist())
    lengths = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(np.linalg.norm(found), lengths.mean())
    mean, units = found / np.linalg.norm(found), vectors / lengths[:, None]
    cosines = units @ mean
    steps = (np.arccos(cosines) / np.sqrt(1 - cosines**2))[:, None] * (units - cosines[:, None] * mean)
    assert np.linalg.norm(steps.sum(axis=0)) < 1e-7


def test_karcher_of_two_is_the_middle_of_the_arc_and_zeros_count_for_length() -> None:
    np.testing.assert_allclose(run(Karcher(), [2.0, 0.0], [0.0, 2.0]), run(Slerp(t=0.5), [2.0, 0.0], [0.0, 2.0]))
    np.testing.assert_allclose(run(Karcher(), [2.0, 0.0], [0.0, 0.0]), [1.0, 0.0])
    assert run(Karcher(), [0.0, 0.0], [0.0, 0.0]).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(run(Karcher(), [2.0], [4.0], [-3.0]), [3.0])  # opposite directions do not pull


def test_model_stock_by_its_formula() -> None:
    # cos = 0.5: t = 2 * 0.5 / 1.5 = 2 / 3 of the mean change
    a, b = [1.0, 0.0], [0.5, 3**0.5 / 2]
    np.testing.assert_allclose(run(ModelStock(), a, b), 2 / 3 * (np.array(a) + b) / 2)
    np.testing.assert_allclose(run(ModelStock(), [2.0, 1.0], [1.0, 2.0], base=[1.0, 1.0]), [1.0, 1.0])  # right angle
    np.testing.assert_allclose(run(ModelStock(), [3.0, 1.0], [5.0, 1.0], base=[1.0, 1.0]), [4.0, 1.0])  # one direction
    np.testing.assert_allclose(run(ModelStock(), [3.0, 1.0], [-4.0, 1.0], base=[1.0, 1.0]), [1.0, 1.0])  # opposite


@given(st.integers(0, 1000), st.sampled_from(["tensor", "row"]))
def test_model_stock_equals_all_pairs(seed: int, per: Any) -> None:
    """The sum over directions is the mean over pairs, done here pair by pair."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(4, 6, generator=g, dtype=torch.float64)
    shift = torch.randn(4, 6, generator=g, dtype=torch.float64)
    tuned = [base + shift + 0.5 * torch.randn(4, 6, generator=g, dtype=torch.float64) for _ in range(3)]
    out = merged("weighting", ModelStock(per=per), {"w": base}, [{"w": t} for t in tuned])["w"]
    groups = [slice(i, i + 1) for i in range(4)] if per == "row" else [slice(0, 4)]
    for rows in groups:
        changes = [(t - base)[rows].flatten() for t in tuned]
        pairs = [
            torch.nn.functional.cosine_similarity(changes[i], changes[j], dim=0) for i in range(3) for j in range(i)
        ]
        cosine = float(torch.stack(pairs).mean())
        t = 3 * cosine / (1 + 2 * cosine) if cosine > 0 else 0.0
        torch.testing.assert_close(out[rows].flatten(), base[rows].flatten() + t * torch.stack(changes).mean(dim=0))
