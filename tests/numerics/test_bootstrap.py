"""Intervals: by hand, against SciPy's bootstrap, and by simulation of their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headstart.core import METRICS
from headstart.numerics.bootstrap import gained, interval, outer_factor, resampled, resamples, scored
from headstart.numerics.metrics import value


def names(rows: int) -> list[str]:
    return [f"{i:05d}" for i in range(rows)]


def classes_and_guesses(seed: int, rows: int, right: float = 0.8, classes: int = 3):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    said = np.where(rng.random(rows) < right, y, rng.integers(0, classes, rows))
    return y, np.eye(classes)[said]


def test_each_class_keeps_its_number_of_groups() -> None:
    y = np.array([0, 0, 0, 1, 1, 2])
    groups = ["a", "a", "b", "c", "d", "e"]
    for w in resamples(y, groups, draws=50, seed=1):
        assert (w[:, 0] == w[:, 1]).all()  # a group is drawn whole
        assert (w[:, 0] + w[:, 2] == 2).all()
        assert (w[:, 3] + w[:, 4] == 2).all()
        assert (w[:, 5] == 1).all()


def test_a_groups_class_is_its_commonest_and_the_lower_of_equals() -> None:
    y = np.array([0, 1, 1, 0, 1, 0])
    groups = ["a", "a", "a", "b", "b", "c"]
    for w in resamples(y, groups, draws=20):
        assert (w[:, 0] == 1).all()  # alone in class 1
        assert (w[:, 3] + w[:, 5] == 2).all()


def test_draws_do_not_depend_on_the_order_of_rows_nor_on_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p = classes_and_guesses(0, 40)
    groups = names(40)
    there = np.random.default_rng(5).permutation(40)
    a = resampled("macro_f1", y, [p], groups, draws=100)
    b = resampled("macro_f1", y[there], [p[there]], [groups[i] for i in there], draws=100)
    np.testing.assert_allclose(a, b, atol=1e-12)
    assert (a == resampled("macro_f1", y, [p], groups, draws=100)).all()
    assert (a != resampled("macro_f1", y, [p], groups, draws=100, seed=1)).any()
    monkeypatch.setattr("headstart.numerics.bootstrap.CELLS", 40 * 7)
    assert resampled("macro_f1", y, [p], groups, draws=100).shape == (1, 100)


def test_agrees_with_scipys_bootstrap_of_a_mean_error() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=120)
    p = (y + rng.exponential(size=120))[:, None]
    (mine,) = scored("mae", y, [p], names(120), draws=4000)
    theirs = stats.bootstrap(
        (np.abs(p[:, 0] - y),), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert mine.low == pytest.approx(theirs.low, abs=0.02)  # Monte Carlo error of a 2.5 % quantile of 4,000 draws
    assert mine.high == pytest.approx(theirs.high, abs=0.02)


def test_the_factor_widens_about_the_middle() -> None:
    assert outer_factor(5) == pytest.approx(np.sqrt(1.25))
    low, high = interval(np.arange(1001.0))
    wide = interval(np.arange(1001.0), factor=1.5)
    assert wide[1] - wide[0] == pytest.approx(1.5 * (high - low))
    assert sum(wide) == pytest.approx(low + high)
    y, p = classes_and_guesses(1, 30, right=0.97)
    (one,) = scored("accuracy", y, [p], names(30), factor=3.0)
    assert one.high == 1.0  # never outside the metric's range


@pytest.mark.parametrize("rows", [1, 2, 30])
@pytest.mark.parametrize("right", [False, True])
def test_where_all_rows_are_alike_the_interval_is_that_of_a_share(rows: int, right: bool) -> None:
    y = np.arange(rows) % 2
    (one,) = scored("accuracy", y, [np.eye(2)[y if right else 1 - y]], names(rows))
    exact = stats.binomtest(rows * right, rows).proportion_ci(0.95, "exact")
    assert (one.low, one.high) == pytest.approx((exact.low, exact.high))
    (wide,) = scored("accuracy", y, [np.eye(2)[y if right else 1 - y]], names(rows), factor=1.1)
    assert wide.high - wide.low == pytest.approx(min(1.0, 1.1 * (one.high - one.low)))
    (few,) = scored("accuracy", y, [np.eye(2)[y if right else 1 - y]], ["one document"] * rows)
    assert few.high - few.low == pytest.approx(0.975)  # one group says next to nothing


def test_what_always_says_one_class_has_an_interval() -> None:
    y = np.arange(60) % 3
    (one,) = scored("macro_f1", y, [np.eye(3)[np.zeros(60, dtype=int)]], names(60))
    assert one.low < one.value - 0.005 < one.value + 0.02 < one.high
    far = scored("rmse", y.astype(float), [y + 1.0], names(60))  # no end above, and none of the rows is nearer
    assert (far[0].value, far[0].high) == (1.0, 1.0)


@pytest.mark.parametrize("name", [m for m in METRICS if m != "span_f1"])
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_ties_one_group_and_one_row_are_finite(name: str, rows: int) -> None:
    number = METRICS[name].tasks == ("regression",)
    y = np.full(rows, 2.5) if number else np.zeros(rows, dtype=np.int64)
    p = np.full((rows, 1), 2.5) if number else np.full((rows, 3), 1 / 3)
    for groups in (["one"] * rows, names(rows)):
        (one,) = scored(name, y, [p], groups)
        assert np.isfinite([one.value, one.low, one.high]).all()
        diff = gained(name, y, p, p, groups)
        assert (diff.value, diff.low, diff.high) == (0, 0, 0)


def test_lower_is_better_is_negated() -> None:
    y = np.arange(20.0)
    good, bad = y[:, None] + 0.1, y[:, None] + 1.0
    gain = gained("rmse", y, good, bad, names(20))
    assert gain.value == pytest.approx(0.9)
    assert gain.low > 0
    assert gained("r2", y, good, bad, names(20)).value > 0


def coverage(rows: int, runs: int, *, group_of: int = 1, right: float = 0.8) -> float:
    """How often the interval of a gain in accuracy holds the true gain, 0.1; groups of copies count as one row."""
    inside = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        n = rows // group_of
        y = rng.integers(0, 2, n)
        a = np.where(rng.random(n) < right, y, 1 - y)
        b = np.where(rng.random(n) < right - 0.1, y, 1 - y)
        y, a, b = (np.repeat(v, group_of) for v in (y, a, b))
        groups = [str(i // group_of) for i in range(len(y))]
        gain = gained("accuracy", y, np.eye(2)[a], np.eye(2)[b], groups, draws=400, seed=seed)
        inside += gain.low <= 0.1 <= gain.high
    return inside / runs


def test_coverage_is_near_95_percent_small() -> None:
    assert 0.90 <= coverage(200, 200) <= 0.985  # ± 3 standard errors of 200 runs


def test_groups_of_copies_are_not_more_evidence() -> None:
    assert 0.89 <= coverage(400, 150, group_of=4) <= 0.99  # as above, 150 runs


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "group_of"), [(200, 1), (400, 4)])
def test_coverage_is_between_93_and_97_percent(rows: int, group_of: int) -> None:
    assert 0.93 <= coverage(rows, 3000, group_of=group_of) <= 0.97


def test_the_metric_itself_is_of_all_rows() -> None:
    y, p = classes_and_guesses(2, 50)
    (one,) = scored("macro_f1", y, [p], names(50))
    assert one.value == value("macro_f1", y, p)
    assert one.rows == 50
