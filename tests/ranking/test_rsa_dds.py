"""RSA and DDS: by hand, by scipy and scikit-learn, and at their limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from headstart.core import Unfit
from headstart.ranking.estimators.dds import DDS
from headstart.ranking.estimators.rsa import RSA
from headstart.testing.ranking_estimators import draw, score

from .test_cka import dependence

Array = np.ndarray[Any, Any]


def drawn(seed: int, width: int) -> tuple[Array, Array, Array]:
    f, y = draw(seed, 40, width, 3, apart=0.6)
    return f, y, np.random.default_rng(seed).standard_normal((40, 4)) + np.eye(4)[y]


def test_rsa_by_hand() -> None:
    """One column each: distances of rows 0, 1, 3, 7 rise as those of 0, 1, 2, 9 but for one pair that ties."""
    f, r = np.array([[0.0], [1.0], [3.0], [7.0]]), np.array([[0.0], [1.0], [2.0], [9.0]])
    # pairs 01 02 03 12 13 23: of f 1 3 7 2 6 4, of r 1 2 9 1 8 7; ranks 1 3 6 2 5 4 and 1.5 3 6 1.5 5 4
    want = np.corrcoef([1, 3, 6, 2, 5, 4], [1.5, 3, 6, 1.5, 5, 4])[0, 1]
    found = score(RSA(), f, f[:, 0], 0, task="regression", told=r)
    assert found == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("width", [3, 100])
def test_rsa_equals_scipy(width: int) -> None:
    f, y, r = drawn(0, width)
    f, r = np.round(f, 6), np.round(r, 6)
    upper = np.triu_indices(40, 1)
    one, other = (np.round(1 - np.corrcoef(StandardScaler().fit_transform(x)), 9)[upper] for x in (f, r))
    assert score(RSA(), f, y, told=r) == pytest.approx(spearmanr(one, other).statistic, abs=1e-7)


@pytest.mark.parametrize("width", [3, 100])
def test_dds_equals_unbiased_sums_of_cosines(width: int) -> None:
    f, y, r = drawn(1, width)
    one, other = (1 - cosine_similarity(StandardScaler().fit_transform(x)) for x in (f, r))
    want = dependence(one, other) / np.sqrt(dependence(one, one) * dependence(other, other))
    assert score(DDS(), f, y, told=r) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("method", [RSA(), DDS()])
def test_the_reference_itself_is_at_1_and_wide_noise_at_0(method: Any) -> None:
    _, y, r = drawn(2, 6)
    units = 10.0 ** np.arange(-2, 2)
    assert score(method, r * units, y, told=r) == pytest.approx(1.0)
    noise = np.random.default_rng(0).standard_normal((120, 1000))
    assert abs(score(method, noise, np.arange(120) % 4, 4)) < 0.05
    assert score(method, np.zeros((40, 3)), y, told=r) == 0.0


@pytest.mark.parametrize("method", [RSA, DDS])
def test_fewer_than_four_rows_are_not_compared(method: Any) -> None:
    with pytest.raises(Unfit, match="rows is 3"):
        method(rows=3)
