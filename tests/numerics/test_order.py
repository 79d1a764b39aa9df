"""Order statistics by counting, against a sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headstart.numerics.order import order

Array = np.ndarray[Any, Any]
finite = st.floats(0, width=32, allow_nan=False, allow_infinity=False)


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=finite | st.sampled_from([0.0, 1.0, 1e-45])), st.data())
def test_any_rank_is_that_of_a_sort(values: Array, data: st.DataObject) -> None:
    ranks = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=4))

    def counted(count: Callable[[int, Array, Any], None], begin: Callable[[], Any]) -> list[Any]:
        halves = []
        for half in np.array_split(values, 2):  # as two threads would
            held = begin()
            count(0, half, held)
            halves.append(held)
        return halves

    found = order(counted, [(0, rank) for rank in ranks], 1)
    in_order = np.sort(values)
    for rank, one in zip(ranks, found, strict=True):
        assert one.value == in_order[rank]
        assert one.equal == (values == in_order[rank]).sum()
        assert one.upto == (values <= in_order[rank]).sum()
