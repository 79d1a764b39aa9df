"""NLEEP: LEEP's limits through a mixture, on rows that it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.ranking.estimators.nleep import NLEEP
from headstart.testing.ranking_estimators import dealt, draw, score


def test_far_classes_are_known_and_shuffled_ones_are_not() -> None:
    f, y = draw(0, 240, 6, 3, apart=8.0)
    known = score(NLEEP(), f, y)
    assert -0.1 < known <= 0
    shuffled = score(NLEEP(), f, np.random.default_rng(0).permutation(y))
    assert shuffled == pytest.approx(-np.log(3), abs=0.1)


def test_a_mixture_of_one_gives_the_shares_of_the_classes() -> None:
    """20 training rows a component: 19 rows have one, whose table is the training shares with one row more."""
    f, y = np.random.default_rng(0).standard_normal((24, 3)), np.repeat([0, 1], (18, 6))
    folds = dealt(y, 4)
    want = []
    for fold in range(4):
        shares = np.bincount(y[folds != fold], minlength=2) / (folds != fold).sum()
        want += [np.log(shares[c]) for c in y[folds == fold]]
    assert score(NLEEP(starts=1), f, y, 2, folds=folds) == pytest.approx(np.mean(want), rel=1e-9)


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(Unfit, match=r"share 1\.5"):
        NLEEP(share=1.5)
