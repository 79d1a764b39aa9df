"""TransRate against determinants written out, and its null."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.ranking.estimators.transrate import TransRate
from headstart.testing.ranking_estimators import draw, score

Array = np.ndarray[Any, Any]


def direct(f: Array, y: Array, distortion: float, by_rows: bool) -> float:
    f = f - f.mean(0)
    level = np.square(f).sum() / f.size

    def rate(part: Array) -> float:
        gram = part.T @ part / (len(part) * distortion * level)
        return 0.5 * float(np.linalg.slogdet(np.eye(f.shape[1]) + gram)[1])

    rates = [rate(f[y == c]) for c in np.unique(y)]
    counts = np.unique(y, return_counts=True)[1]
    return rate(f) - float(np.average(rates, weights=counts if by_rows else None))


@pytest.mark.parametrize(("rows", "width"), [(80, 6), (40, 40), (30, 90)])
@pytest.mark.parametrize("weights", ["equal", "rows"])
def test_the_papers_difference_equals_determinants_written_out(rows: int, width: int, weights: Any) -> None:
    f, y = draw(0, rows, width, 3, apart=0.7)
    y = np.where(np.arange(rows) < rows // 3, 0, y)  # classes of unequal size
    made = TransRate(permutations=0, weights=weights, distortion=1e-3)
    assert score(made, 1e3 * f, y) == pytest.approx(direct(f, y, 1e-3, weights == "rows"), rel=1e-9)


def test_one_class_tells_nothing() -> None:
    f, _ = draw(0)
    assert score(TransRate(permutations=0), f, np.zeros(60, dtype=np.int64), 1) == pytest.approx(0.0, abs=1e-9)
    assert score(TransRate(), f, np.zeros(60, dtype=np.int64), 1) == pytest.approx(0.0, abs=1e-9)


def test_classes_further_apart_score_higher() -> None:
    found = [score(TransRate(), *draw(3, 90, 8, 3, apart=apart)) for apart in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert found == sorted(found)
    assert abs(found[0]) < 0.5


def test_shuffled_labels_take_off_what_width_gives() -> None:
    y = np.arange(120) % 4
    noise = np.random.default_rng(0).standard_normal((120, 256))
    assert score(TransRate(permutations=0, distortion=1e-4), noise, y, 4) > 100
    assert abs(score(TransRate(), noise, y, 4)) < 1
