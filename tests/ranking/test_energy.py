"""Energy against logits that are known, hand values, and what probabilities do not tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from headstart.core import Unfit
from headstart.ranking.estimators.energy import Energy
from headstart.testing.ranking_estimators import draw, score


@given(seed=st.integers(0, 999), known=st.integers(2, 30), temperature=st.sampled_from([0.5, 1.0, 3.0]))
def test_is_the_log_sum_exp_of_centred_logits(seed: int, known: int, temperature: float) -> None:
    """A view turns its features into probabilities by a softmax, so that they are logits."""
    logits = np.random.default_rng(seed).standard_normal((40, known))
    z = (logits - logits.mean(axis=1, keepdims=True)) / temperature
    want = temperature * (logsumexp(z, axis=1) - np.log(known)).mean()
    assert score(Energy(temperature=temperature), logits, np.arange(40) % 3) == pytest.approx(want, rel=1e-9)


def test_by_hand() -> None:
    """Probabilities 0.8 and 0.2: log(0.5) - the mean of log 0.8 and log 0.2 = log(0.5 / 0.4)."""
    logits = np.log(np.array([[0.8, 0.2], [0.5, 0.5]]))
    assert score(Energy(), logits, np.array([0, 1]), 2) == pytest.approx(np.log(0.5 / 0.4) / 2)


def test_a_constant_added_to_a_rows_logits_is_lost() -> None:
    f, y = draw(0)
    louder = f + np.arange(60)[:, None]
    assert score(Energy(), louder, y) == pytest.approx(score(Energy(), f, y), rel=1e-9)


def test_surer_sources_score_higher_and_certain_ones_are_finite() -> None:
    f, y = draw(0)
    found = [score(Energy(), sure * f, y) for sure in (0.0, 0.5, 1.0, 2.0, 1e4)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(found[-1])


def test_a_temperature_is_above_0() -> None:
    with pytest.raises(Unfit, match="temperature 0"):
        Energy(temperature=0)
