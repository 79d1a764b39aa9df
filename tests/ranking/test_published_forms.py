"""Forms as they were published prefer wide noise where rows are few; ours, on the same features, do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from headstart.ranking.estimators.gbc import GBC
from headstart.ranking.estimators.lda import LDA
from headstart.ranking.estimators.logme import LogME
from headstart.ranking.estimators.transrate import TransRate
from headstart.testing.ranking_estimators import draw, score
from ranking.test_official_numbers import INPUT, WIDE_NOISE

Array = np.ndarray[Any, Any]
ROWS, CLASSES = 100, 4


def logme(f: Array, y: Array) -> float:
    """thuml's: of D eigenvalues it has the min(N, D) first, while log(alpha) counts D times; no intercept."""
    n, d = f.shape
    vectors, found, _ = np.linalg.svd(f, full_matrices=True)
    values = np.square(found)
    told = []
    for c in np.unique(y):
        shares = np.square(vectors.T @ (y == c))
        inside, outside = shares[: len(values)], shares[len(values) :].sum()
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (values / (values + t)).sum()
            size = (values * inside / (values + t) ** 2).sum()
            error = (inside / (values / t + 1) ** 2).sum() + outside
            alpha, beta = gamma / (size + 1e-5), (n - gamma) / (error + 1e-5)
            if abs(alpha / beta - t) <= 1e-3 * t:
                break
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta) - np.log(alpha + beta * values).sum() / 2
        told.append(evidence - beta / 2 * error - alpha / 2 * size - n / 2 * np.log(2 * np.pi))
    return float(np.mean(told)) / n


def transrate(f: Array, y: Array) -> float:
    """With the distortion of its listing, and nothing taken off."""
    f = f - f.mean(axis=0)

    def rate(z: Array) -> float:
        return float(np.linalg.slogdet(np.eye(f.shape[1]) + z.T @ z / (len(z) * 1e-4))[1]) / 2

    return rate(f) - sum(rate(f[y == c]) for c in range(CLASSES)) / CLASSES


def in_sample(f: Array, y: Array) -> float:
    """The rows it was fitted on; the covariance is lifted a little, as one with fewer rows has no inverse."""
    return float(LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-3).fit(f, y).score(f, y))


FORMS: dict[str, tuple[Callable[[Array, Array], float], Any]] = {
    "gbc": (lambda f, y: score(GBC(chance="kept"), f, y, CLASSES), GBC()),
    "lda": (in_sample, LDA()),
    "logme": (logme, LogME()),
    "transrate": (transrate, TransRate()),
}


def test_logme_above_is_what_the_authors_code_gives() -> None:
    assert logme(WIDE_NOISE, INPUT[1]) == pytest.approx(6.563340152, abs=1e-9)  # see `test_official_numbers`


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("seed", range(3))
def test_the_published_form_prefers_wide_noise_and_ours_does_not(name: str, seed: int) -> None:
    published, ours = FORMS[name]
    f, y = draw(seed, ROWS, 32, CLASSES, apart=0.5)
    noise = np.random.default_rng((seed, 1)).standard_normal((ROWS, 512))
    assert published(noise, y) > published(f, y)
    assert score(ours, noise, y, CLASSES) < score(ours, f, y, CLASSES)
