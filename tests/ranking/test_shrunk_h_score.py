"""Shrunk H-score by scikit-learn's Ledoit-Wolf covariance and full inverses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from headstart.ranking.estimators.shrunk_h_score import ShrunkHScore
from headstart.testing.ranking_estimators import draw, score

Array = np.ndarray[Any, Any]


def direct(f: Array, y: Array) -> float:
    f = f[:, f.std(0) > 0]
    f = (f - f.mean(0)) / f.std(0)
    fitted = LedoitWolf().fit(f)
    means = np.stack([f[y == c].mean(0) for c in y])
    return float((1 - fitted.shrinkage_) * np.trace(fitted.precision_ @ means.T @ means / len(f)))


@pytest.mark.parametrize(("rows", "width"), [(120, 12), (40, 90), (50, 50)])
def test_equals_the_full_inverse(rows: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.ranking.estimators.shrunk_h_score.STRIP_CELLS", 1)  # strips of 32 rows
    f, y = draw(0, rows, width, 4, apart=0.4)
    f[:, 1], f[:, 2] = 50 + 3 * f[:, 1], 0.0
    assert score(ShrunkHScore(), f, y, 4) == pytest.approx(direct(f, y), rel=1e-9)


def test_several_labels_are_the_sum_of_two_class_scores() -> None:
    f, y = draw(1)
    hot = np.eye(3, dtype=np.int8)[y]
    want = sum(direct(f, hot[:, c]) for c in range(3))
    assert score(ShrunkHScore(), f, hot, 3, task="multi_label") == pytest.approx(want, rel=1e-9)


def test_noise_does_not_saturate() -> None:
    """The plain H-score is 3 for any full-rank features here; 0.12 was measured for shrunk noise."""
    f, y = np.random.default_rng(0).standard_normal((120, 400)), np.arange(120) % 4
    assert score(ShrunkHScore(), f, y, 4) < 0.3


def test_two_far_classes_reach_the_ceiling() -> None:
    f, y = draw(2, 2000, 1, 2, apart=100.0)
    assert score(ShrunkHScore(), f, y, 2) == pytest.approx(1.0, abs=1e-2)


def test_misleads_with_few_rows_and_wide_noise() -> None:
    """What the docstring warns of: 8 rows a class, and noise of width 1,024 above half of the signal's score."""
    y = np.arange(40) % 5
    f, _ = draw(0, 40, 32, 5, apart=0.8)
    noise = score(ShrunkHScore(), np.random.default_rng(0).standard_normal((40, 1024)), y, 5)
    assert noise > 0.5 * score(ShrunkHScore(), f, y, 5)


def test_misleads_with_noise_of_uneven_spectrum() -> None:
    """What the docstring warns of: variances that fall off are shrunk little, and chance fits 120 rows well. So it is
    not safe for any width, and does not say that it is."""
    assert "width_safe" not in ShrunkHScore.claims
    f, y = draw(0, 120, 32, 4, apart=0.5)
    chance = np.random.default_rng(0)
    turn, _ = np.linalg.qr(chance.standard_normal((384, 384)))
    noise = chance.standard_normal((120, 384)) @ (turn * (np.arange(1, 385) ** -0.7)[:, None])
    assert score(ShrunkHScore(), noise, y, 4) > score(ShrunkHScore(), f, y, 4)
