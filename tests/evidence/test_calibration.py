"""Calibration by hand, against scikit-learn, and on simulated systems whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from headstart.core import Unfit
from headstart.evidence.checks.calibration import Calibration


def figures(p, labels, bins: int = 15):
    return Calibration(bins=bins)(p, p, labels, [str(i) for i in range(len(labels))], "accuracy").figures


def simulated(seed: int, rows: int, *, sharpen: float = 1.0):
    """Labels drawn from the very probabilities given, which are then made more extreme."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([1.0, 1.0, 1.0], rows)
    labels = np.array([rng.choice(3, p=row) for row in p])
    q = p**sharpen
    return q / q.sum(axis=1, keepdims=True), labels


def test_by_hand() -> None:
    p = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
    labels = np.array([0, 0, 0, 1, 0, 0, 0, 0])
    found = figures(p, labels, bins=2)
    # said .6 and was 1.0 on four rows; said .9 and was .75 on four
    assert found["ece"] == pytest.approx((0.4 + 0.15) / 2)
    # chance takes .75 · .25 / 3 out of the second bin, and nothing out of the first
    assert found["ece_debiased"] == pytest.approx(np.sqrt((0.4**2 + 0.15**2 - 0.0625) / 2))
    assert [c["rows"] for c in found["curve"]] == [4, 4]


def test_brier_and_nll_are_scikit_learns() -> None:
    p, labels = simulated(1, 200, sharpen=2)
    found = figures(p, labels)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, p, labels=[0, 1, 2], scale_by_half=False))
    assert found["nll"] == pytest.approx(log_loss(labels, p))


def test_a_calibrated_system_shows_nothing_on_average_once_chance_is_taken_out() -> None:
    found = [figures(*simulated(seed, 300)) for seed in range(40)]
    plain, debiased = (np.mean([f[k] for f in found]) for k in ("ece", "ece_debiased"))
    assert debiased < 0.5 * plain  # the rest is the root, which cannot be below 0
    assert debiased < 0.025


def test_an_overconfident_system_is_seen() -> None:
    p, labels = simulated(0, 2000, sharpen=4)
    found = figures(p, labels)
    assert found["ece_debiased"] > 0.1
    assert found["confidence"] > found["accuracy"] + 0.1


def test_rows_of_equal_confidence_are_one_bin() -> None:
    p = np.full((30, 2), 0.5)
    assert [c["rows"] for c in figures(p, np.arange(30) % 2)["curve"]] == [30]
    assert figures(p, np.arange(30) % 2)["ece"] == 0


def test_no_bins_is_unfit() -> None:
    with pytest.raises(Unfit, match="0 bins"):
        Calibration(bins=0)
