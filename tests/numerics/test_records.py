"""The table of past transfers against loops over the runs it was made from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import Known
from headstart.numerics.records import agreement, nearness, standard, tabulated

RUNS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from(["", "a", "b", "x", "y"]),
        st.sampled_from([None, "m", "n"]),
        st.floats(-100, 100).map(lambda v: round(v, 3)),
    ),
    max_size=40,
)


@given(runs=RUNS)
def test_each_cell_is_the_mean_of_its_runs(runs: list[tuple[str, str, str | None, float]]) -> None:
    table = tabulated(runs)
    several = len({m or "" for t, s, m, _ in runs if s and s != t}) > 1
    for i, target in enumerate(table.targets):
        for j, (name, task) in enumerate(zip(table.sources, table.tasks, strict=True)):
            model = name.removeprefix(task).strip(" ()") if several else None
            found = [v for t, s, m, v in runs if (t, s) == (target, task) and (not several or (m or "") == model)]
            if target == task:
                found = []
            assert table.counts[i, j] == len(found)
            if not found:
                assert np.isnan(table.values[i, j])
                continue
            assert np.isclose(table.values[i, j], sum(found) / len(found))
            assert np.isnan(table.spread[i, j]) == (len(found) == 1)
    assert set(table.targets) == {t for t, *_ in runs}


def test_direct_training_is_no_transfer_and_is_what_improvement_is_over() -> None:
    runs = [
        ("t", "s", "m", 0.7),
        ("t", "s", "n", 0.9),
        ("t", "t", "m", 0.6),
        ("t", "", "m", 0.8),
        ("t", None, "n", 0.5),
    ]
    table = tabulated(runs, sign=-1)
    assert table.sources == ("s (m)", "s (n)")
    np.testing.assert_allclose(table.direct, [[0.7, 0.5]])
    np.testing.assert_allclose(table.improvement(), [[0.0, -0.4]], atol=1e-12)


def test_a_model_that_is_its_own_source_needs_no_second_name() -> None:
    assert tabulated([("t", "org/vit", "org/vit", 0.5), ("t", "org/bert", "org/bert", 0.5)]).sources == (
        "org/bert",
        "org/vit",
    )


def test_a_target_is_taken_out_with_all_that_belongs_to_it() -> None:
    table = tabulated([("a", "b", None, 1.0), ("b", "a", None, 2.0), ("b", "c", None, 3.0)], tests=["b", "zzz"])
    assert table.tests == ("b",)
    assert table.own.tolist() == [0, 1, -1]
    rest, own = table.without("b")
    assert (rest.targets, rest.tests, rest.values.shape) == (("a",), (), (1, 3))
    np.testing.assert_array_equal(own, [2.0, np.nan, 3.0])
    same, nothing = table.without("nobody")
    assert same is table
    assert np.isnan(nothing).all()


@given(scale=st.sampled_from([1e-6, 1.0, 1e6]), shift=st.sampled_from([0.0, 1e3]), seed=st.integers(0, 99))
def test_standardised_figures_know_no_unit(scale: float, shift: float, seed: int) -> None:
    row = np.random.default_rng(seed).standard_normal(9)
    row[seed % 9] = np.nan
    np.testing.assert_allclose(standard(scale * (row + shift)), standard(row), atol=1e-8)
    assert np.isclose(np.nanmean(np.square(standard(row))), 1)
    assert np.array_equal(standard(np.full(3, scale * 0.1)), np.zeros(3))


def test_agreement_is_the_correlation_drawn_to_zero() -> None:
    chance = np.random.default_rng(0)
    one, other = chance.standard_normal((2, 12))
    one[3] = other[5] = np.nan
    both = [i for i in range(12) if i not in (3, 5)]
    assert np.isclose(agreement(one, other), np.corrcoef(one[both], other[both])[0, 1] * 10 / 15)
    assert np.isnan(agreement(one[:4], other[:4] * np.nan))
    assert np.isnan(agreement(one, np.ones(12)))


def test_given_similarities_come_before_those_of_figures() -> None:
    table = tabulated([(t, s, None, float(ord(t) * ord(s) % 11)) for t in "ab" for s in "wxyz"])
    given_ones = np.array([0.3, np.nan])
    near, between = nearness(table, Known(given_ones, table.values[0]))
    assert between is None
    np.testing.assert_array_equal(near, given_ones)
    near, between = nearness(table, Known(None, table.values[0]))
    assert np.isclose(near[0], 4 / 9)
    assert between is not None
    assert between[0, 1] == near[1]
    near, _ = nearness(table, Known(None, np.array([1.0, 2.0, np.nan, np.nan])))
    assert np.isnan(near).all()
