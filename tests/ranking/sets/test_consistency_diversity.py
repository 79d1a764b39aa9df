"""Coverage against projectors by pseudo-inverses, and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core import Unfit
from headstart.ranking.sets.consistency_diversity import ConsistencyDiversity
from headstart.testing.ranking_sets import draw, subsets

Array = np.ndarray[Any, Any]


def direct(features: list[Array], members: tuple[int, ...], directions: int) -> float:
    pool, spans = np.zeros((40, 40)), []
    for f in features:
        f = f - f.mean(axis=0)
        u, s, _ = np.linalg.svd(f)
        pool += u[:, : len(s)] @ np.diag(s**2 / (s**2).sum()) @ u[:, : len(s)].T
        spans.append(u[:, :directions])
    if not members:
        return 0.0
    both = np.hstack([spans[i] for i in members])
    return float(np.trace(both @ np.linalg.pinv(both, rcond=1e-6) @ pool) / np.trace(pool))


@settings(max_examples=15)
@given(seed=st.integers(0, 999), directions=st.integers(1, 5))
def test_equals_projectors(seed: int, directions: int) -> None:
    method = ConsistencyDiversity(directions=directions)
    drawn = draw(method, seed)
    value = method(drawn)
    for s in subsets():
        assert value(s) == pytest.approx(direct([c.given for c in drawn], s, directions), abs=1e-7)
        assert -1e-12 <= value(s) <= 1 + 1e-12


def test_two_that_see_different_things_see_all_together() -> None:
    """A column apiece, at right angles and in different units: each covers a half, and one that mixes them too."""
    t = np.arange(40) * 2 * np.pi / 40
    columns = np.cos(t), 1e6 * np.sin(t), np.cos(t) + np.sin(t)
    drawn = draw(ConsistencyDiversity(), 0)
    a, b, c = (
        replace(drawn[i], given=x[:, None].astype(np.float32), rows_of_its_own=None) for i, x in enumerate(columns)
    )
    value = ConsistencyDiversity()([a, b])
    assert value([0]) == pytest.approx(0.5, abs=1e-6)
    assert value([1]) == pytest.approx(0.5, abs=1e-6)
    assert value([0, 1]) == pytest.approx(1, abs=1e-6)
    assert ConsistencyDiversity()([a, b, c])([2]) == pytest.approx((1 + 2 * 0.5) / 3, abs=1e-6)


def test_noise_of_any_width_covers_no_more_than_its_share() -> None:
    chance = np.random.default_rng(0)
    drawn = draw(ConsistencyDiversity(), 0)
    wide = replace(drawn[0], given=chance.standard_normal((40, 500)), rows_of_its_own=None)
    value = ConsistencyDiversity()([*drawn, wide])
    assert value([5]) < min(value([i]) for i in range(5))


def test_a_source_whose_rows_point_elsewhere_covers_nothing() -> None:
    drawn = draw(ConsistencyDiversity(), 0)
    one = replace(drawn[0], given=drawn[0].given + 10, rows_of_its_own=(drawn[0].given - 10, drawn[0].known))
    assert ConsistencyDiversity()([one])([0]) == 0
    assert ConsistencyDiversity(consistency=-1.0)([one])([0]) > 0
    assert ConsistencyDiversity()([replace(one, rows_of_its_own=None)])([0]) > 0, "unknown counts as consistent"


def test_features_that_never_vary_cover_nothing() -> None:
    still = replace(draw(ConsistencyDiversity(), 0)[0], given=np.full((40, 3), 0.1), rows_of_its_own=None)
    assert ConsistencyDiversity()([still])([0]) == 0


def test_settings_are_checked() -> None:
    with pytest.raises(Unfit, match="consistency 2"):
        ConsistencyDiversity(consistency=2.0)
