"""Pixels with logistic regression against scikit-learn on its digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from headstart.adaptation.baselines.pixel_logistic import PixelLogistic
from headstart.core import Steps, Unfit
from headstart.testing.adaptation_baselines import fit_view


def test_equals_scikit_learn_on_pixels() -> None:
    digits = load_digits()
    images = (digits.images[:200] * 15.9375).astype(np.uint8)
    view = fit_view(digits.target[:200], images=np.repeat(images[..., None], 3, axis=3), valid=range(100, 200))
    made = PixelLogistic(side=8, strengths=(0.1,))(view, None, Steps())
    pixels = images.reshape(200, 64) / 255
    pixels = (pixels - pixels[:100].mean(axis=0)) / np.sqrt(((pixels[:100] - pixels[:100].mean(axis=0)) ** 2).mean())
    wanted = LogisticRegression(C=0.1, tol=1e-8, max_iter=10_000).fit(pixels[:100], digits.target[:100])
    np.testing.assert_allclose(made.predictions, wanted.predict_proba(pixels[100:]), atol=2e-3)  # solvers stop early


def test_settings_out_of_range() -> None:
    with pytest.raises(Unfit, match="side 2"):
        PixelLogistic(side=2)
