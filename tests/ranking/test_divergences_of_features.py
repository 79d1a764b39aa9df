"""MMD, Fréchet, proxy A, Sinkhorn and OTDD against sums written out, closed forms, and linear programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import linear_sum_assignment, minimize

from headstart.core import Diverging, Refused, Unfit
from headstart.numerics.transport import Gaussian, debiased, entropic, squared_bures_wasserstein
from headstart.numerics.two_samples import on_one_scale, squared_distances
from headstart.ranking.divergences import compare
from headstart.ranking.divergences.frechet import Frechet
from headstart.ranking.divergences.mmd import MMD
from headstart.ranking.divergences.otdd import OTDD
from headstart.ranking.divergences.proxy_a import ProxyA
from headstart.ranking.divergences.sinkhorn import Sinkhorn
from headstart.testing.ranking_divergences import SeenSample, draw

Array = np.ndarray[Any, Any]


def sample(method: Diverging, features: Array, labels: Array | None = None) -> SeenSample:
    return SeenSample(needs=method.needs, given=features, known=labels, said=[])


def between(method: Diverging, a: Array, b: Array) -> float:
    return method(sample(method, a, np.zeros(len(a), int)), sample(method, b, np.zeros(len(b), int)))


def normal(seed: int, rows: int, width: int) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, width))


# -- one scale ---------------------------------------------------------------------------------------------------------


def test_each_set_has_the_same_say_in_the_scale() -> None:
    a, b = on_one_scale(normal(0, 900, 3), 5 + 2 * normal(1, 10, 3))
    assert np.allclose(a.mean(axis=0), -b.mean(axis=0))
    assert ((a**2).sum(axis=1).mean() + (b**2).sum(axis=1).mean()) / 2 == pytest.approx(1)


# -- MMD ---------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), rows=st.integers(2, 9), other=st.integers(2, 9))
def test_mmd_equals_the_sums_written_out(seed: int, rows: int, other: int) -> None:
    x, y = normal(seed, rows, 3), normal(seed + 1, other, 3) + 1
    both = np.concatenate([x, y])
    size = len(both)
    median = np.median([np.linalg.norm(both[i] - both[j]) for i in range(size) for j in range(i)])

    # the median of squares is the square of the median for an odd number of pairs
    def mean_kernel(a: Array, b: Array, apart: bool) -> float:
        kept = [
            np.exp(-np.sum((a[i] - b[j]) ** 2) / (2 * median**2))
            for i in range(len(a))
            for j in range(len(b))
            if not (apart and i == j)
        ]
        return float(np.mean(kept))

    want = mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    odd = (size * (size - 1) // 2) % 2
    assert between(MMD(), x, y) == pytest.approx(max(want, 0), abs=1e-9 if odd else 0.05)


def test_mmd_is_not_nearer_to_the_larger_of_two_samples_of_one_kind() -> None:
    """The unbiased estimate; the biased one falls with the rows, by far more than this."""
    target = normal(0, 100, 5)
    small, large = (np.mean([between(MMD(), normal(s, n, 5), target) for s in range(1, 30)]) for n in (20, 400))
    assert abs(small - large) < 0.01
    assert small < 0.01


# -- Fréchet -----------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), rows=st.integers(2, 30), other=st.integers(2, 30), width=st.integers(1, 12))
def test_bures_wasserstein_equals_the_formula_with_roots_of_matrices(
    seed: int, rows: int, other: int, width: int
) -> None:
    x, y = normal(seed, rows, width), 0.5 + 2 * normal(seed + 1, other, width)
    s, t = (np.cov(z.T, bias=True).reshape(width, width) for z in (x, y))
    eigen, turn = np.linalg.eigh(s)
    root = turn * np.sqrt(np.maximum(eigen, 0)) @ turn.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ t @ root), 0)).sum()
    want = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s) + np.trace(t) - 2 * shared
    assert squared_bures_wasserstein(Gaussian.of(x), Gaussian.of(y)) == pytest.approx(want, abs=1e-6)
    if min(rows, other) > width + 5:
        plain = np.trace(s + t - 2 * np.real(sqrtm(s @ t)))
        assert want - np.sum((x.mean(0) - y.mean(0)) ** 2) == pytest.approx(plain, abs=1e-6)


def test_frechet_of_a_moved_and_of_a_stretched_set() -> None:
    x = normal(0, 50, 4)
    spread = x.var(axis=0).sum()
    # moved by m: |m|² over the variance of both together, spread + |m|² / 4
    assert between(Frechet(), x, x + 3) == pytest.approx(36 / (spread + 9))
    # stretched about the mean by 3: (3 - 1)² spread, over the mean of spread and 9 spread
    middle = x.mean(axis=0)
    assert between(Frechet(), x, middle + 3 * (x - middle)) == pytest.approx(4 / 5)


# -- proxy A -----------------------------------------------------------------------------------------------------------


def test_proxy_a_from_one_kind_to_apart() -> None:
    same = np.mean([between(ProxyA(), normal(s, 200, 3), normal(s + 50, 200, 3)) for s in range(5)])
    assert same < 0.15
    assert between(ProxyA(), normal(0, 200, 3), 9 + normal(1, 200, 3)) == 2.0
    # two unit Gaussians at distance 2: the best linear rule errs in Phi(-1) = 15.87 %, hence 1.365
    assert between(ProxyA(), normal(0, 1000, 1), 2 + normal(1, 1000, 1)) == pytest.approx(1.365, abs=0.06)


def test_proxy_a_is_no_larger_for_unequal_sets_of_one_kind() -> None:
    """To say always the larger set errs in a tenth of the rows, and tells nothing."""
    assert np.mean([between(ProxyA(), normal(s, 900, 3), normal(s + 50, 100, 3)) for s in range(5)]) < 0.2


def test_proxy_a_does_not_tell_copies_apart() -> None:
    a, b = normal(0, 100, 30), normal(1, 100, 30)
    both = np.concatenate([a, b])
    assert between(ProxyA(), both, both[::-1].copy()) == 0
    assert between(ProxyA(), both, both[:150]) < 0.3


# -- transport ---------------------------------------------------------------------------------------------------------


def primal(cost: Array, blur: float) -> float:
    """Least <P, C> + blur KL(P | independent), by a general solver over all plans."""
    n, m = cost.shape

    def value(p: Array) -> float:
        p = np.maximum(p, 1e-12)
        return float(p @ cost.ravel() + blur * np.sum(p * np.log(p * n * m)))

    sums = [{"type": "eq", "fun": lambda p, i=i: p.reshape(n, m)[i].sum() - 1 / n} for i in range(n)]
    sums += [{"type": "eq", "fun": lambda p, j=j: p.reshape(n, m)[:, j].sum() - 1 / m} for j in range(m - 1)]
    start = np.full(n * m, 1 / (n * m))
    found = minimize(value, start, bounds=[(0, 1)] * (n * m), constraints=sums, method="SLSQP", options={"ftol": 1e-12})
    return float(found.fun)


@settings(max_examples=20)
@given(seed=st.integers(0, 99), blur=st.sampled_from([0.1, 1.0]))
def test_entropic_cost_equals_that_of_a_general_solver(seed: int, blur: float) -> None:
    cost = np.random.default_rng(seed).uniform(0, 3, (3, 4))
    assert entropic(cost, blur) == pytest.approx(primal(cost, blur), abs=1e-5)


def test_entropy_too_weak_to_settle_is_refused() -> None:
    cost = np.random.default_rng(0).uniform(0, 3, (200, 200))
    with pytest.raises(Unfit, match="no plan was found"):
        entropic(cost, 1e-6)


def test_entropic_cost_nears_the_exact_one_and_the_mean() -> None:
    cost = np.random.default_rng(3).uniform(0, 3, (12, 12))
    at = linear_sum_assignment(cost)
    assert entropic(cost, 1e-3) == pytest.approx(cost[at].mean(), abs=1e-3 * np.log(12) + 1e-4)
    assert entropic(cost, 1e4) == pytest.approx(cost.mean(), abs=1e-3)


@pytest.mark.parametrize("blur", [0.03, 0.3])
def test_transport_between_unequal_numbers_of_rows_is_that_of_pots_solvers(blur: float) -> None:
    """Its entropic plan by other iterations; and the exact cost, from which no blur leads further than its entropy."""
    cost = np.random.default_rng(5).uniform(0, 3, (15, 9))
    rows, columns = np.full(15, 1 / 15), np.full(9, 1 / 9)
    plan = ot.sinkhorn(rows, columns, cost, blur, method="sinkhorn_stabilized", numItermax=100_000, stopThr=1e-12)
    carried = float((plan * cost).sum()) + blur * float((plan * np.log(plan / np.outer(rows, columns))).sum())
    assert entropic(cost, blur) == pytest.approx(carried, abs=1e-6)
    exact = float(ot.emd2(rows, columns, cost))
    assert exact < entropic(cost, blur) < exact + blur * np.log(9)


@given(seed=st.integers(0, 99), by=st.floats(0.1, 5))
@settings(max_examples=20)
def test_a_moved_set_is_as_far_as_it_was_moved(seed: int, by: float) -> None:
    """Moving a set adds the square of the way to every plan's cost, whatever the blur."""
    x = normal(seed, 30, 3)
    want = 3 * by**2 / (x.var(axis=0).sum() + 3 * by**2 / 4)
    assert between(Sinkhorn(), x, x + by) == pytest.approx(want, rel=1e-4)
    assert between(OTDD(), x, x + by) == pytest.approx(2 * want, rel=1e-4), "the only class moves as far"


def test_only_enough_blur_makes_two_samples_of_one_kind_near() -> None:
    """What the docstring says of exact transport, and of a blur of 0.1."""
    a, b = on_one_scale(normal(0, 150, 30), normal(1, 150, 30))
    cost = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    assert cost[linear_sum_assignment(cost)].mean() > 1
    assert between(Sinkhorn(blur=0.1), a, b) > 0.9
    assert between(Sinkhorn(), a, b) < 0.1


# -- OTDD --------------------------------------------------------------------------------------------------------------


def test_otdd_with_a_small_blur_is_the_exact_assignment() -> None:
    """The cost written out pair by pair, with class covariances and roots of matrices; the sets' own costs are 0."""
    method = OTDD(blur=1e-3)
    x, y = normal(0, 12, 2), normal(1, 12, 2) + np.array([3.0, 0.0])
    of_x, of_y = np.arange(12) % 2, np.arange(12) % 3
    a, b = on_one_scale(x, y)

    def classes(f: Array, of: Array) -> list[tuple[Array, Array]]:
        return [(f[of == c].mean(axis=0), np.cov(f[of == c].T, bias=True)) for c in np.unique(of)]

    def apart(one: tuple[Array, Array], two: tuple[Array, Array]) -> float:
        root = np.real(sqrtm(one[1]))
        return float(
            np.sum((one[0] - two[0]) ** 2) + np.trace(one[1] + two[1] - 2 * np.real(sqrtm(root @ two[1] @ root)))
        )

    ca, cb = classes(a, of_x), classes(b, of_y)
    cost = np.array(
        [[np.sum((a[i] - b[j]) ** 2) + apart(ca[of_x[i]], cb[of_y[j]]) for j in range(12)] for i in range(12)]
    )
    want = cost[linear_sum_assignment(cost)].mean()
    assert method(sample(method, x, of_x), sample(method, y, of_y)) == pytest.approx(want, abs=5e-3)


@pytest.mark.parametrize(
    ("blur", "official", "as_published"), [(0.1, 6.2416907, 6.2113), (1.0, 5.8481906, 5.8612), (5.0, 5.3044039, 5.2704)]
)
def test_the_published_code_gives_the_same_where_its_annealing_is_slow(
    blur: float, official: float, as_published: float
) -> None:
    """What `DatasetDistance(…, precision="double").distance()` of microsoft/otdd 72f1b22 printed, on geomloss 0.2.6.

    Its cost is half of ours and its covariances are over n - 1. As it is published, geomloss halves the blur from step
    to step (scaling 0.5) and errs by half a percent; `official` is with scaling 0.999.
    """
    chance = np.random.default_rng(7)
    x, y = chance.standard_normal((60, 3)), chance.standard_normal((60, 3)) * [1, 2, 0.5] + [1.5, 0, 0]
    of = [np.arange(60) % 2, np.arange(60) % 3]
    x[of[0] == 1] += [0, 1, 0]
    y[of[1] == 2] -= [0, 0, 2]
    classes = [[f[at == c] for c in range(at.max() + 1)] for f, at in zip((x, y), of, strict=True)]
    told = [
        [replace(Gaussian.of(r), root=Gaussian.of(r).root * np.sqrt(len(r) / (len(r) - 1))) for r in c] for c in classes
    ]

    def cost(i: int, j: int) -> Array:
        between = np.array([[squared_bures_wasserstein(a, b) for b in told[j]] for a in told[i]])
        return np.asarray((squared_distances((x, y)[i], (x, y)[j]) + between[of[i]][:, of[j]]) / 2)

    assert debiased(cost, blur) == pytest.approx(official, abs=2e-5)
    assert official == pytest.approx(as_published, rel=0.01)


def test_otdd_refuses_what_has_no_classes() -> None:
    method = OTDD()
    a = draw(method, 0)
    with pytest.raises(Unfit, match="without labels"):
        method(replace(a, known=None), a)
    with pytest.raises(Refused, match="does not work on a regression task"):
        compare(replace(a, task="regression"), a, ["otdd"])


def test_a_class_of_one_row_is_a_point() -> None:
    one = Gaussian.of(np.array([[1.0, 2.0]]))
    assert squared_bures_wasserstein(one, Gaussian.of(np.array([[1.0, 0.0], [1.0, 4.0]]))) == pytest.approx(4)


# -- all ---------------------------------------------------------------------------------------------------------------


def test_large_sets_are_cut_to_some_rows_drawn_with_the_seed() -> None:
    for made in (MMD, ProxyA, Sinkhorn, OTDD):
        a, b = normal(0, 90, 3), normal(1, 90, 3) + 1
        few = [between(made(rows=40, seed=s), a, b) for s in (0, 0, 1)]
        assert few[0] == few[1] != few[2]
        assert between(made(rows=40), a, a.copy()) == pytest.approx(0, abs=1e-9)


def test_compare_gives_each_by_name() -> None:
    method = Frechet()
    a, b = draw(method, 0), draw(method, 1)
    assert list(compare(a, b, ["mmd", method])) == ["mmd", "Frechet"]
