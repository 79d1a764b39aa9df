"""Nearest class mean by a loop over held-out rows."""

from __future__ import annotations

import numpy as np

from headstart.ranking.estimators.nmc import NMC
from headstart.testing.ranking_estimators import dealt, draw, seen


def test_equals_a_loop() -> None:
    f, y = draw(0, 61, 5, 3, apart=0.8)
    folds = dealt(y, 4)
    folds[:3] = -1
    want = np.full(61, np.nan)
    for i in np.flatnonzero(folds >= 0):
        train = folds != folds[i]
        means = np.stack([f[train & (y == c)].mean(0) for c in range(3)])
        want[i] = ((f[i] - means) ** 2).sum(1).argmin() != y[i]
    given = NMC()(seen(NMC(), f, y, folds=folds))
    assert given.losses is not None
    np.testing.assert_array_equal(given.losses, want)
    assert given.value == 1 - np.nanmean(want)


def test_a_class_that_was_not_trained_on_is_never_said() -> None:
    f, y = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1])
    given = NMC()(seen(NMC(), f, y, 2, folds=np.array([0, 0, 1, 1])))
    assert given.losses is not None
    assert given.losses.tolist() == [1, 1, 1, 1]


def test_several_labels_are_judged_one_by_one() -> None:
    f = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]] * 5)
    labels = (f > 2).astype(np.int8)
    given = NMC()(seen(NMC(), f, labels, 2, "multi_label", folds=np.arange(20) // 4))
    assert given.value == 1
    labels[0] = [1, 0]  # one label of one row is wrong
    given = NMC()(seen(NMC(), f, labels, 2, "multi_label", folds=np.arange(20) // 4))
    assert given.losses is not None
    assert given.losses[0] == 0.5
