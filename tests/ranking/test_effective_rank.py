"""Effective rank in closed form, and what it does not see."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core import Unfit
from headstart.ranking.estimators.effective_rank import EffectiveRank
from headstart.testing.ranking_estimators import score


@pytest.mark.parametrize("width", [6, 90])
def test_equals_singular_values_written_out(width: int) -> None:
    chance = np.random.default_rng(0)
    f = chance.standard_normal((40, 6)) @ chance.standard_normal((6, width))
    s = np.linalg.svd(f - f.mean(0), compute_uv=False)
    p = s[s > 1e-9] / s.sum()
    assert score(EffectiveRank(), f, np.zeros(40)) == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-9)


def test_equal_directions_count_one_each() -> None:
    q, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((50, 7)))
    q, _ = np.linalg.qr(q - q.mean(0))
    assert score(EffectiveRank(), q @ np.eye(7, 12), np.zeros(50)) == pytest.approx(7.0, rel=1e-6)
    assert score(EffectiveRank(), np.outer(np.arange(9.0), np.ones(4)), np.zeros(9)) == pytest.approx(1.0)


def test_as_many_dimensions_as_rows_are_refused() -> None:
    """It would be about the number of rows, of any encoder."""
    with pytest.raises(Unfit, match="rank 39"):
        score(EffectiveRank(), np.random.default_rng(3).standard_normal((40, 90)), np.zeros(40))


def test_labels_are_never_read() -> None:
    f = np.random.default_rng(2).standard_normal((30, 5))
    assert not EffectiveRank.needs.labels
    assert score(EffectiveRank(), f, np.arange(30) % 3) == score(EffectiveRank(), f, np.zeros(30))
