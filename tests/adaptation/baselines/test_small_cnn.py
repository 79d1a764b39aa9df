"""The small network on shapes: it learns what pixels alone cannot, and speaks in the label's unit."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.adaptation.baselines.small_cnn import SmallCnn
from headstart.core import Steps, Unfit
from headstart.testing.adaptation_baselines import fit_view


def stripes(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stripes down or across, of any phase: no pixel alone tells which."""
    chance = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    row, column = np.mgrid[0:16, 0:16]
    at = np.where(labels[:, None, None] == 1, row, column) + chance.integers(0, 4, (rows, 1, 1))
    images = np.where(at % 4 < 2, 200, 30) + chance.integers(0, 25, (rows, 16, 16))
    return labels, np.repeat(images.astype(np.uint8)[..., None], 3, axis=3)


def test_learns_what_no_pixel_tells() -> None:
    labels, images = stripes(96, 0)
    view = fit_view(labels, images=images, valid=range(64, 96))
    made = SmallCnn(side=16, widths=(8, 16))(view, None, Steps(horizon=60))
    assert (made.predictions.argmax(axis=1) == labels[64:]).mean() > 0.95


def test_numbers_come_in_their_own_unit() -> None:
    labels, images = stripes(64, 1)
    view = fit_view(5000 + 100.0 * labels, images=images, valid=range(48, 64), task="regression")
    made = SmallCnn(side=16, widths=(8, 16))(view, None, Steps(horizon=60))
    assert np.abs(made.predictions[:, 0] - (5000 + 100.0 * labels[48:])).mean() < 30


def test_another_seed_is_another_network() -> None:
    labels, images = stripes(16, 2)
    one, two = (
        SmallCnn(side=16)(fit_view(labels, images=images, valid=[14, 15], seed=s), None, Steps(horizon=2))
        for s in (0, 1)
    )
    assert not np.array_equal(one.predictions, two.predictions)


def test_settings_out_of_range() -> None:
    with pytest.raises(Unfit, match="halved 3 times"):
        SmallCnn(side=4)
