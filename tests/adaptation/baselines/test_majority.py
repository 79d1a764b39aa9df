"""Majority on labels counted by hand."""

from __future__ import annotations

import numpy as np

from headstart.adaptation.baselines.majority import Majority
from headstart.core import Steps
from headstart.testing.adaptation_baselines import fit_view


def test_frequencies_of_the_training_rows() -> None:
    view = fit_view([0, 0, 0, 1, 1, 1], texts=list("abcdef"), valid=[4, 5])
    np.testing.assert_allclose(Majority()(view, None, Steps()).predictions, [[0.75, 0.25]] * 2)


def test_mean_of_numbers() -> None:
    view = fit_view([1.0, 2.0, 6.0, 99.0], columns={"x": [0.0, 0, 0, 0]}, valid=[3], task="regression")
    assert Majority()(view, None, Steps()).predictions.tolist() == [[3.0]]


def test_frequency_of_each_label() -> None:
    labels = np.array([[1, 0], [1, 1], [1, 0], [1, 0]])
    view = fit_view(labels, texts=list("abcd"), valid=[3], task="multi_label")
    np.testing.assert_allclose(Majority()(view, None, Steps()).predictions, [[1.0, 1 / 3]], atol=2e-6)  # never quite 1
