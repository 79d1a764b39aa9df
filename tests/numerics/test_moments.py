"""Moments against the same sums done in one go on all rows."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from headstart.core import Unfit
from headstart.numerics.moments import SINGLE_ROWS, Moments, pays_to_compile, product, targets_of
from headstart.numerics.shrinkage import Shrunk

Array = np.ndarray[Any, Any]
WHAT = ("mean", "target_mean", "variance", "class_means", "centred_gram", "centred_sums", "centred_energy")


def drawn(rows: int = 90, width: int = 7, classes: int = 3, seed: int = 0) -> tuple[Array, Array]:
    chance = np.random.default_rng(seed)
    return chance.standard_normal((rows, width)) * np.arange(1, width + 1), chance.integers(classes, size=rows)


def same(one: Moments, two: Moments, rtol: float = 1e-10) -> None:
    assert one.rows == two.rows
    for name in WHAT:
        if name == "class_means" and not one.classes:
            continue
        a, b = getattr(one, name), getattr(two, name)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(), err_msg=name)
    if one.classes:
        np.testing.assert_allclose(one.class_spreads, two.class_spreads, rtol=rtol)


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
    spreads = [((x[y == c] - x[y == c].mean(0)) ** 2).sum(1).mean() for c in range(3)]
    np.testing.assert_allclose(m.class_spreads, [*spreads, 0])
    within = sum((x[y == c] - x[y == c].mean(0)).T @ (x[y == c] - x[y == c].mean(0)) for c in range(3))
    np.testing.assert_allclose(m.within_gram, within, atol=1e-9)
    assert m.second is not None
    np.testing.assert_allclose(m.second[2], ((x[y == 2] - m.shift) ** 2).sum(0))


def test_parts_add_up_and_subtract() -> None:
    x, y = drawn()
    whole = Moments.of(x, y, 3, norms=True)
    a, b = (Moments.of(x[s], y[s], 3, norms=True) for s in (slice(0, 31), slice(31, 90)))
    same(a + b, whole, rtol=1e-12)
    same(b + a, whole, rtol=1e-12)
    same(whole - a, b)
    assert (a + b).shrinkage == pytest.approx(whole.shrinkage, rel=1e-12)
    assert (whole - a).shrinkage == pytest.approx(b.shrinkage, rel=1e-9)


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("gram", [True, False])
@pytest.mark.parametrize("few", [0, 100])
def test_panels_and_strips_are_only_for_speed(
    classes: int, gram: bool, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = drawn(300, 6, classes)
    about = np.full(6, 0.5)
    whole = Moments.from_batches([(x, y)], classes, second=True, norms=True, shift=about)
    monkeypatch.setattr("headstart.numerics.moments.PANEL_ROWS", 70)
    monkeypatch.setattr("headstart.numerics.moments.STRIP_CELLS", 1)  # strips of 32 rows
    monkeypatch.setattr("headstart.numerics.moments.FEW_CLASSES", few)
    cut = Moments.from_batches([(x, y)], classes, gram=gram, second=True, norms=True, shift=about)
    names = ("total", "squares", "counts", "energy", "sums", "lengths", "second", *(["gram"] if gram else []))
    for name in names:
        want = getattr(whole, name)
        np.testing.assert_allclose(getattr(cut, name), want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("gram", [True, False])
@pytest.mark.parametrize("form", ["float64", "float32", "read_only"])
def test_compiled_kernels_are_only_for_speed(form: str, gram: bool, single: bool) -> None:
    x, y = drawn(2500, 6, 40)
    y[y == 7] = 8  # a class without rows
    x += 1000.0
    x = x.astype("f4" if form == "float32" else "f8")
    x.flags.writeable = form != "read_only"
    one, other = (Moments.of(x, y, 40, gram=gram, single=single, many=many) for many in (False, True))
    for name in ("total", "squares", "counts", "energy", "sums", "lengths", *(["gram"] if gram else [])):
        want = getattr(one, name)
        np.testing.assert_allclose(getattr(other, name), want, rtol=1e-12, atol=1e-12 * np.abs(want).max())


def test_what_kernels_do_not_cover_goes_the_other_way() -> None:
    x, y = drawn()
    several = (x[:, :3] > 0).astype(np.int8)
    for labels, classes, what in [
        (y, 3, {"second": True}),
        (y, 3, {"norms": True}),
        (several, 3, {}),
        (x[:, 0], 0, {}),
    ]:
        one, other = (Moments.of(x, labels, classes, many=many, **what) for many in (False, True))
        assert all((a == b).all() for a, b in zip(one.arrays().values(), other.arrays().values(), strict=True))
    assert pays_to_compile(np.empty((1 << 12, 1 << 11), dtype=np.float32))
    assert not pays_to_compile(np.empty((1 << 12, 1 << 11), dtype=np.float16))
    assert not pays_to_compile(np.empty((1 << 12, 1 << 12), dtype=np.float32)[:, ::2])
    with pytest.raises(IndexError):
        Moments.of(x, y, 2, many=True)
    with pytest.raises(IndexError, match="label 9 of 3 classes"):  # in a later panel
        Moments.from_batches([(x, y), (x, np.where(y == 2, 9, y))], 3, many=True)


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
def test_a_gram_matrix_is_the_same_above_and_below(width: int) -> None:
    x, y = drawn(90, width, 3)
    found = Moments.of(x, y, 3)
    assert found.gram is not None
    assert (found.gram == found.gram.T).all()
    u = x - found.shift
    np.testing.assert_allclose(found.gram, u.T @ u, rtol=1e-12, atol=1e-12 * np.abs(found.gram).max())


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
    with pytest.raises(Unfit):
        _ = Moments.of(x, x[:, 0], 0).class_spreads
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


@given(
    cuts=st.lists(st.integers(1, 89), max_size=4, unique=True),
    far=st.sampled_from([0.0, 1e6]),
    kind=st.sampled_from([0, 3]),
)
def test_shards_give_the_moments_of_all_rows(cuts: list[int], far: float, kind: int) -> None:
    x, labels = drawn()
    x, y = np.round(x * 2**10) / 2**10 + far, labels if kind else x[:, 0] + far
    whole = Moments.of(x, y, kind, second=bool(kind), norms=True)
    ends = [0, *sorted(cuts), 90]
    sums = [Moments.of(x[a:b], y[a:b], kind, second=bool(kind), norms=True) for a, b in pairwise(ends)]
    total = sums[0]
    for one in sums[1:]:
        total = total + one
    same(total, whole, rtol=1e-12)
    assert total.shrinkage == pytest.approx(whole.shrinkage, rel=1e-12)


def test_more_rows_update_what_is_there() -> None:
    x, y = drawn()
    some = Moments.of(x[:40], y[:40], 3, second=True, norms=True)
    more = some.updated(x[40:], y[40:])
    same(more, Moments.of(x, y, 3), rtol=1e-12)
    assert more.second is not None
    assert more.norms is not None
    assert Moments.of(x[:40], y[:40], 3, gram=False).updated(x[40:], y[40:]).gram is None


@given(scale=st.sampled_from([1e-20, 1e-6, 1.0, 1e6, 1e20]), rows=st.sampled_from([3, 700, 2000]))
def test_the_float32_product_keeps_its_bound(scale: float, rows: int) -> None:
    u = scale * drawn(rows)[0]
    u[:, 1] = u[:, 0] * (1 + 1e-6)  # nearly one direction
    exact, fast = product(u, u), product(u, u, single=True)
    roots = np.sqrt(np.outer(np.diagonal(exact), np.diagonal(exact)))
    worst = (np.abs(fast - exact) / roots).max()
    assert worst <= 2.0**-24 * (min(rows, SINGLE_ROWS) + 2)
    assert (worst < 1e-14) == (scale in (1e-20, 1e20))  # out of range: the product is in float64
    moments = Moments.of(u + 5 * scale, np.zeros(rows), 0, single=True)
    np.testing.assert_allclose(
        moments.centred_gram, Moments.of(u, np.zeros(rows), 0).centred_gram, atol=3.2e-5 * roots.max()
    )


def test_times_is_rows_repeated() -> None:
    x, y = drawn()
    thrice = Moments.of(x, y, 3, second=True, norms=True).times(3)
    same(thrice, Moments.of(np.tile(x, (3, 1)), np.tile(y, 3), 3))
    assert thrice.shrinkage == pytest.approx(ledoit_wolf_shrinkage(np.tile(x, (3, 1))))


@pytest.mark.parametrize("what", [{}, {"gram": False}, {"second": True, "norms": True}])
def test_arrays_are_moments_again(what: dict[str, bool]) -> None:
    x, y = drawn()
    first = Moments.of(x, y, 3, **what)
    again = Moments.of_arrays(first.arrays())
    assert {k: v.tolist() for k, v in again.arrays().items()} == {k: v.tolist() for k, v in first.arrays().items()}
    assert (again.rows, again.classes, again.norms is None) == (90, 3, "norms" not in what)


@pytest.mark.parametrize("spoilt", ["missing", "misshapen", "unknown", "half", "infinite"])
def test_arrays_that_are_no_moments(spoilt: str) -> None:
    arrays = Moments.of(*drawn(), 3, norms=True).arrays()
    if spoilt == "missing":
        del arrays["total"]
    elif spoilt == "misshapen":
        arrays["gram"] = arrays["gram"][:-1]
    elif spoilt == "unknown":
        arrays["more"] = np.zeros(3)
    elif spoilt == "half":
        del arrays["cubes"]
    else:
        arrays["sums"][0, 0] = np.inf
    with pytest.raises(Unfit, match="no moments"):
        Moments.of_arrays(arrays)
