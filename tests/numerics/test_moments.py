"""Moments against the same sums done in one go on all rows."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from headstart.core import Unfit
from headstart.numerics.moments import Moments, targets_of
from headstart.numerics.shrinkage import Shrunk

Array = np.ndarray[Any, Any]
WHAT = ("mean", "target_mean", "variance", "class_means", "centred_gram", "centred_sums", "centred_energy")


def drawn(rows: int = 90, width: int = 7, classes: int = 3, seed: int = 0) -> tuple[Array, Array]:
    chance = np.random.default_rng(seed)
    return chance.standard_normal((rows, width)) * np.arange(1, width + 1), chance.integers(classes, size=rows)


def same(one: Moments, two: Moments, rtol: float = 1e-10) -> None:
    assert one.rows == two.rows
    for name in WHAT:
        a, b = getattr(one, name), getattr(two, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("kind", ["single_label", "multi_label", "regression"])
def test_equals_numpy_on_all_rows(kind: str) -> None:
    x, labels = drawn()
    y = {"single_label": labels, "multi_label": (x[:, :3] > 0).astype(np.int8), "regression": x @ np.arange(7.0)}[kind]
    classes = 0 if kind == "regression" else 3
    m, t = Moments.of(x, y, classes, block=13), targets_of(y, classes)
    f, t0 = x - x.mean(0), t - t.mean(0)
    np.testing.assert_allclose(m.mean, x.mean(0))
    np.testing.assert_allclose(m.variance, x.var(0))
    np.testing.assert_allclose(m.target_mean, t.mean(0))
    np.testing.assert_allclose(m.centred_gram, f.T @ f, atol=1e-9)  # sums of 90 numbers up to 400
    np.testing.assert_allclose(m.centred_sums, t0.T @ f, atol=1e-9)
    np.testing.assert_allclose(m.centred_energy, (t0**2).sum(0))


def test_classes() -> None:
    x, y = drawn()
    m = Moments.of(x, y, 4, block=10, second=True)
    assert m.counts.tolist() == [*np.bincount(y, minlength=3), 0]
    np.testing.assert_allclose(m.class_means[1], x[y == 1].mean(0))
    within = sum((x[y == c] - x[y == c].mean(0)).T @ (x[y == c] - x[y == c].mean(0)) for c in range(3))
    np.testing.assert_allclose(m.within_gram, within, atol=1e-9)
    assert m.second is not None
    np.testing.assert_allclose(m.second[2], ((x[y == 2] - m.shift) ** 2).sum(0))


def test_parts_add_up_and_subtract() -> None:
    x, y = drawn()
    whole = Moments.of(x, y, 3, norms=True)
    a, b = (Moments.of(x[s], y[s], 3, norms=True) for s in (slice(0, 31), slice(31, 90)))
    same(a + b, whole)
    same(b + a, whole)
    same(whole - a, b)
    assert (a + b).shrinkage == pytest.approx(whole.shrinkage, rel=1e-10)
    assert (whole - a).shrinkage == pytest.approx(b.shrinkage, rel=1e-9)


def test_batches_are_blocks() -> None:
    x, y = drawn()
    batches = ((x[i : i + 20], y[i : i + 20]) for i in range(0, 100, 20))  # the last one is empty
    same(Moments.from_batches(batches, 3), Moments.of(x, y, 3))


def test_a_mean_of_a_million_deviations_costs_no_digits() -> None:
    x, _ = drawn()
    x = np.round(x * 2**10) / 2**10  # exact after the shift too, so that the same numbers are compared
    far, value = x + 2.0**20, x[:, 0] + 2.0**22
    near, distant = Moments.of(x, x[:, 0], 0, norms=True), Moments.of(far, value, 0, block=17, norms=True)
    for name in ("variance", "centred_gram", "centred_sums", "centred_energy"):
        a, b = getattr(distant, name), getattr(near, name)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max(), err_msg=name)
    assert distant.shrinkage == pytest.approx(near.shrinkage, rel=1e-9)


def test_float32_features_are_summed_in_float64() -> None:
    x = np.full((100_000, 1), 0.1, dtype=np.float32)
    x[::2] = 0.3
    exact = Fraction(float(x[0, 0]) + float(x[1, 0])) / 2
    assert Moments.of(x, np.zeros(len(x)), 0).mean[0] == pytest.approx(float(exact), rel=1e-15)


def test_only_what_is_asked_is_kept() -> None:
    x, y = drawn()
    m = Moments.of(x, y, 3, gram=False)
    assert (m.gram, m.second, m.norms) == (None, None, None)
    assert (Moments.of(x, y, 3) - m).gram is None
    for name in ("centred_gram", "within_gram", "shrinkage"):
        with pytest.raises(Unfit):
            getattr(m, name)
    with pytest.raises(Unfit):
        Moments.of(x[:0], y[:0], 3)
    with pytest.raises(Unfit):
        Moments.of(x, x[:, 0], 0, second=True)


def test_a_constant_feature_has_no_deviation_to_divide_by() -> None:
    x, y = drawn()
    x = np.hstack([x, np.full((90, 1), 0.1), np.arange(90)[:, None] == 89])
    whole = Moments.of(x, y, 3)
    assert whole.inverse_deviation()[-2] == 0
    assert whole.inverse_deviation()[-1] > 0
    without_its_row = whole - Moments.of(x[80:], y[80:], 3)
    assert without_its_row.inverse_deviation(whole)[-2:].tolist() == [0, 0]


@pytest.mark.parametrize(("rows", "width"), [(40, 10), (10, 40), (200, 3)])
def test_shrinkage_is_that_of_scikit_learn(rows: int, width: int) -> None:
    x, y = drawn(rows, width)
    x += 50
    assert Moments.of(x, y, 3, block=16, norms=True).shrinkage == pytest.approx(ledoit_wolf_shrinkage(x), rel=1e-10)


@pytest.mark.parametrize(("rows", "width"), [(40, 10), (10, 40)])
def test_shrunk_covariance_solves_as_scikit_learn_inverts(rows: int, width: int) -> None:
    x, _ = drawn(rows, width)
    right, f = np.eye(width)[:3], x - x.mean(0)
    want = right @ LedoitWolf().fit(x).precision_
    fourth = float(((f**2).sum(1) ** 2).sum())
    np.testing.assert_allclose(Shrunk.of_covariance(f.T @ f / rows, fourth, rows).solve(right), want, atol=1e-9)
    np.testing.assert_allclose(Shrunk.of_rows(f).solve(right), want, atol=1e-9)
