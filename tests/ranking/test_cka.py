"""Debiased CKA by sums over quadruples' closed form, its invariances, and where the biased form misleads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import Unfit
from headstart.ranking.estimators.cka import CKA
from headstart.testing.ranking_estimators import draw, score

Array = np.ndarray[Any, Any]


def dependence(k: Array, other: Array) -> float:
    """The unbiased estimate of the Hilbert-Schmidt criterion, in the form of Song et al. (2012), with explicit sums."""
    n, ones = len(k), np.ones(len(k))
    k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
    middle = (ones @ k @ ones) * (ones @ other @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(k @ other) + middle - 2 / (n - 2) * ones @ k @ other @ ones) / (n * (n - 3)))


def direct(f: Array, r: Array) -> float:
    k, other = f @ f.T, r @ r.T
    return dependence(k, other) / np.sqrt(dependence(k, k) * dependence(other, other))


def biased(f: Array, r: Array) -> float:
    """The streaming form: cross-covariances of features, no kernel over rows."""
    f, r = f - f.mean(0), r - r.mean(0)
    norm = np.linalg.norm
    return float(norm(f.T @ r) ** 2 / (norm(f.T @ f) * norm(r.T @ r)))


@given(seed=st.integers(0, 999), width=st.integers(1, 40), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_equals_the_unbiased_sums(seed: int, width: int, scale: float) -> None:
    f, y = draw(seed, 30, width, 3, apart=0.7)
    r = np.random.default_rng(seed).standard_normal((30, 3)) + np.eye(3)[y]
    assert score(CKA(), scale * f + scale, y, told=r) == pytest.approx(direct(f, r), rel=1e-6, abs=1e-9)


def test_a_rotated_reference_is_the_same() -> None:
    f, y = draw(0, 40, 6)
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    assert score(CKA(), f, y, told=3 * f @ turn + 1) == pytest.approx(1.0)


def test_wide_noise_is_at_0_where_the_biased_form_is_not() -> None:
    chance, y = np.random.default_rng(0), np.arange(50) % 3
    pairs = [chance.standard_normal((2, 50, 1000)) for _ in range(20)]
    found = [score(CKA(), f, y, told=r) for f, r in pairs]
    assert np.mean(found) == pytest.approx(0.0, abs=0.02)
    assert biased(*pairs[0]) == pytest.approx(0.955, abs=0.01)


def test_with_many_rows_it_is_the_streaming_form() -> None:
    f, y = draw(1, 1500, 5, 3, apart=0.7)
    r = np.eye(3)[y]
    assert score(CKA(), f, y) == pytest.approx(biased(f, r), abs=0.005)
    kernels = [x - x.mean(0) for x in (f, r)]
    kernels = [x @ x.T for x in kernels]
    gram = np.vdot(*kernels) / (np.linalg.norm(kernels[0]) * np.linalg.norm(kernels[1]))
    assert biased(f, r) == pytest.approx(float(gram), rel=1e-9), "over features as over rows"


def test_values_and_several_labels() -> None:
    f, _ = draw(2, 60, 5)
    value = f[:, :1] + 0.1 * np.random.default_rng(0).standard_normal((60, 1))
    assert score(CKA(), f, value[:, 0], 0, task="regression") == pytest.approx(direct(f, value), rel=1e-6)
    hot = (f[:, :4] > 0).astype(np.int8)
    assert score(CKA(), f, hot, 4, task="multi_label") == pytest.approx(direct(f, hot.astype(float)), rel=1e-6)


def test_rows_in_no_fold_are_left_out() -> None:
    f, y = draw(3, 40, 5)
    r = np.eye(3)[y]
    folds = np.where(np.arange(40) < 10, -1, np.arange(40) % 5)
    assert score(CKA(), f, y, folds=folds) == pytest.approx(direct(f[10:], r[10:]), rel=1e-6)
    with pytest.raises(Unfit, match="3 labelled rows"):
        score(CKA(), f, y, folds=np.where(np.arange(40) < 37, -1, 0))


def test_of_many_rows_a_part_is_compared() -> None:
    f, y = draw(4, 600, 6, 3, apart=1.0)
    assert score(CKA(rows=200), f, y) == pytest.approx(score(CKA(), f, y), abs=0.05)
