"""Gradient histograms on scikit-learn's digits, where five labels a class are known to give about 0.85."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from headstart.adaptation.baselines.hog_logistic import HogLogistic
from headstart.core import Steps, Unfit
from headstart.testing.adaptation_baselines import fit_view


def test_good_on_digits_with_five_labels_a_class() -> None:
    digits = load_digits()
    first = np.concatenate([np.flatnonzero(digits.target == c)[:5] for c in range(10)])
    rows = np.concatenate([first, np.setdiff1d(np.arange(450), first)])
    images = np.repeat((digits.images[rows] * 15.9375).astype(np.uint8)[..., None], 3, axis=3)
    made = HogLogistic()(fit_view(digits.target[rows], images=images, valid=range(50, len(rows))), None, Steps())
    assert (made.predictions.argmax(axis=1) == digits.target[rows][50:]).mean() > 0.8


def test_settings_out_of_range() -> None:
    with pytest.raises(Unfit, match="at least two cells"):
        HogLogistic(side=8, cell=8)
