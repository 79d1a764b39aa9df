"""Leave-one-out neighbours by a loop over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.ranking.estimators.knn_loo import KNNLoo
from headstart.testing.ranking_estimators import draw, score, seen

Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("task", ["single_label", "regression"])
@pytest.mark.parametrize("groups", [np.arange(45), np.arange(45) * 7 % 9, np.repeat([4, 2, 9], [42, 2, 1])])
def test_equals_a_loop(task: str, groups: Array) -> None:
    """Rows alone, in groups of five, and in groups so large that fewer than five rows are left to vote."""
    f, y = draw(0, 45, 6, apart=0.5)
    f += 3
    values = f[:, 0] if task == "regression" else np.eye(3)[y]
    g = f - f.mean(0)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    want, naive = [], []
    for i in range(45):
        may = groups != groups[i]
        alike = (g @ g[i])[may]
        near = np.argsort(-alike)[:5]
        told = np.average(values[may][near], axis=0, weights=np.exp(alike[near] / 0.07))
        naive.append(np.square(values[may].mean(axis=0) - values[i]).sum())
        want.append((told - values[i]) ** 2 if task == "regression" else told.argmax() != y[i])
    method = KNNLoo(block=7)
    truth, classes = (f[:, 0], 0) if task == "regression" else (y, 3)
    given = method(seen(method, f, truth, classes, task, grouped=groups))  # type: ignore[arg-type]  # a name above
    assert given.losses is not None
    np.testing.assert_allclose(given.losses, want, rtol=1e-9)
    assert given.value == pytest.approx(1 - np.mean(want) if classes else 1 - np.sum(want) / np.sum(naive))


def test_a_row_is_left_out_by_number_also_among_its_duplicates() -> None:
    """Each row has one twin with another label: whoever drops 'the nearest' instead of itself may see its own label."""
    f = np.repeat(np.random.default_rng(0).standard_normal((20, 4)), 2, axis=0)
    y = np.arange(40) % 2
    assert score(KNNLoo(neighbours=1), f, y, 2) == 0
    assert score(KNNLoo(neighbours=1), f, np.arange(40) // 2 % 2, 2) == 1


def test_twins_in_one_group_do_not_tell_each_other() -> None:
    """Labels that are chance, on rows that stand twice: alone, each twin knows the other's."""
    chance = np.random.default_rng(0)
    f, y = np.repeat(chance.standard_normal((60, 4)), 2, axis=0), np.repeat(chance.integers(0, 2, 60), 2)
    assert score(KNNLoo(neighbours=1), f, y, 2) == 1
    assert score(KNNLoo(neighbours=1), f, y, 2, grouped=np.repeat(np.arange(60), 2)) < 0.7


def test_a_common_direction_is_taken_out() -> None:
    f, y = draw(1, 60, 4, apart=1.0)
    assert score(KNNLoo(), f + 1e4, y) == pytest.approx(score(KNNLoo(), f, y), abs=1e-12)


def test_few_rows() -> None:
    assert score(KNNLoo(), np.array([[0.0], [1.0], [1.1]]), np.array([0, 1, 1]), 2) == pytest.approx(2 / 3)
    with pytest.raises(Unfit, match="single group"):
        score(KNNLoo(), np.array([[0.0]]), np.array([0]), 2)
    with pytest.raises(Unfit, match="single group"):
        score(KNNLoo(), np.eye(3), np.arange(3) % 2, 2, grouped=np.zeros(3, dtype=np.int64))
