"""Greedy search: lazy is plain, and no worse than 1 − 1/e of all sets, on functions known to be submodular."""

from __future__ import annotations

from collections.abc import Callable
from math import e
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import Unfit
from headstart.numerics.greedy import Found, Value, exhaustive, greedy, lazy_greedy

Function = tuple[Value, int]


@st.composite
def coverage(draw: Any) -> Function:
    """Weights of all points that any chosen set of points covers; whole numbers, so that ties are common."""
    weights = draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))
    covered = draw(st.lists(st.sets(st.integers(0, len(weights) - 1)), min_size=1, max_size=8))
    return lambda s: float(sum(weights[p] for p in set().union(*(covered[i] for i in s)))), len(covered)


@st.composite
def facilities(draw: Any) -> Function:
    """The sum over customers of the best chosen facility; in 64ths, so that sums are exact."""
    customers = draw(st.integers(1, 6))
    rows = st.lists(st.integers(0, 64).map(lambda n: n / 64), min_size=customers, max_size=customers)
    gains = draw(st.lists(rows, min_size=1, max_size=8))
    return lambda s: sum((max(gains[i][c] for i in s) for c in range(customers)), 0.0) if s else 0.0, len(gains)


@st.composite
def cuts(draw: Any) -> Function:
    """Weight of the edges between a set and the rest: submodular, and it falls again."""
    size = draw(st.integers(1, 7))
    weights = draw(st.dictionaries(st.tuples(*2 * [st.integers(0, size - 1)]), st.integers(0, 4), max_size=12))
    return lambda s: float(sum(w for (a, b), w in weights.items() if (a in s) != (b in s))), size


monotone = st.one_of(coverage(), facilities())


def counted(value: Value) -> tuple[Value, list[int]]:
    calls = [0]

    def count(members: tuple[int, ...]) -> float:
        calls[0] += 1
        return value(members)

    return count, calls


@given(function=st.one_of(monotone, cuts()), most=st.integers(0, 8), least=st.integers(0, 3))
def test_lazy_is_plain_with_no_more_evaluations(function: Function, most: int, least: int) -> None:
    value, size = function
    plain, lazy = (search(value, size, most, least=least) for search in (greedy, lazy_greedy))
    assert (lazy.members, lazy.values) == (plain.members, plain.values)
    if most:
        assert lazy.evaluations <= plain.evaluations


@given(function=monotone, most=st.integers(1, 5))
def test_greedy_is_no_worse_than_the_bound(function: Function, most: int) -> None:
    value, size = function
    best, near = exhaustive(value, size, most), greedy(value, size, most)
    reached = near.values[-1] if near.values else 0.0
    assert reached >= (1 - 1 / e) * (best.values[-1] if best.values else 0.0) - 1e-9


@given(function=cuts(), most=st.integers(0, 7))
def test_all_sets_are_looked_at(function: Function, most: int) -> None:
    value, size = function
    masks = [tuple(i for i in range(size) if mask >> i & 1) for mask in range(2**size)]
    best = max(value(s) for s in masks if len(s) <= most)
    found = exhaustive(value, size, most)
    assert (found.values[-1] if found.values else 0.0) == best
    assert all(value(s) < best for s in masks if len(s) < len(found.members)), "a smaller set would do"


def test_lazy_asks_far_less() -> None:
    weights = [float(100 - i) for i in range(100)]
    value, calls = counted(lambda s: sum(weights[i] for i in s))
    found = lazy_greedy(value, 100, 10)
    assert found.members == tuple(range(10))
    assert found.evaluations == calls[0] == 100 + 9
    assert greedy(value, 100, 10).evaluations == sum(100 - i for i in range(10))


@pytest.mark.parametrize("search", [greedy, lazy_greedy, exhaustive])
def test_ties_go_to_the_first_and_none_joins_for_nothing(search: Callable[..., Found]) -> None:
    found = search(lambda s: float(bool(s)), 4, 3)
    assert (found.members, found.values, found.gains) == ((0,), (1.0,), (1.0,))
    assert search(lambda s: -float(len(s)), 4, 3).members == ()
    assert search(lambda s: -float(len(s)), 4, 3, least=2).members == (0, 1)
    assert search(lambda s: float(len(s)), 0, 3).members == ()


def test_sums_in_another_order_tie() -> None:
    values = {(0,): 0.1 + 0.2 + 0.3, (1,): 0.3 + 0.2 + 0.1}
    assert values[0,] > values[1,]
    found = greedy(lambda s: values[tuple(1 - i for i in s)] if len(s) == 1 else 0.0, 2, 1)
    assert found.members == (0,)


def test_too_many_sets_are_refused() -> None:
    with pytest.raises(Unfit, match="8,191 sets"):
        exhaustive(lambda s: 0.0, 13, 2)


def test_all_sets_find_what_greed_misses() -> None:
    values = {(0,): 2.0, (1,): 1.9, (2,): 1.9, (0, 1): 2.5, (0, 2): 2.5, (1, 2): 3.8}
    assert greedy(lambda s: values[tuple(sorted(s))], 3, 2).values[-1] == 2.5
    assert exhaustive(lambda s: values[tuple(sorted(s))], 3, 2).members == (1, 2)
