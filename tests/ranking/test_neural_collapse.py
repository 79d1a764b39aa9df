"""NC1 with covariance matrices and a pseudo-inverse, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.core import Unfit
from headstart.ranking.estimators.neural_collapse import NeuralCollapse
from headstart.testing.ranking_estimators import draw, score


@given(seed=st.integers(0, 999), width=st.integers(2, 20), classes=st.integers(2, 6))
def test_equals_covariances_written_out(seed: int, width: int, classes: int) -> None:
    f, y = draw(seed, 50, width, classes, apart=0.7)
    means = np.stack([f[y == c].mean(0) for c in y])
    inside, between = (f - means), (means - f.mean(0))
    sw, sb = inside.T @ inside / 50, between.T @ between / 50
    nc1 = np.trace(sw @ np.linalg.pinv(sb, rcond=1e-10, hermitian=True)) / classes
    assert score(NeuralCollapse(), f, y, classes) == pytest.approx(1 / (1 + nc1), rel=1e-6)


def test_limits() -> None:
    y = np.arange(60) % 3
    assert score(NeuralCollapse(), np.eye(3)[y], y) == pytest.approx(1.0)
    paired = np.repeat(np.random.default_rng(0).standard_normal((20, 4)), 3, axis=0)
    assert score(NeuralCollapse(), paired, y) == pytest.approx(0.0, abs=1e-9)


def test_few_rows_are_refused_also_where_dimensions_are_padded_and_turned() -> None:
    y = np.arange(40) % 4
    noise = np.random.default_rng(0).standard_normal((40, 2000))
    with pytest.raises(Unfit, match="rank 39"):
        score(NeuralCollapse(), noise, y, 4)
    turn, _ = np.linalg.qr(noise.T)
    assert score(NeuralCollapse(), noise[:, :8] @ turn[:, :8].T, y, 4) == pytest.approx(
        score(NeuralCollapse(), noise[:, :8], y, 4)
    )
