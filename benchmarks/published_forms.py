"""Estimators as they were published, for the width audit and for the tests; nothing here is for use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from headstart.ranking.estimators.gbc import GBC
from headstart.testing.ranking_estimators import score

Array = np.ndarray[Any, Any]


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
    f, classes = f - f.mean(axis=0), np.unique(y)

    def rate(z: Array) -> float:
        return float(np.linalg.slogdet(np.eye(f.shape[1]) + z.T @ z / (len(z) * 1e-4))[1]) / 2

    return rate(f) - sum(rate(f[y == c]) for c in classes) / len(classes)


def in_sample(f: Array, y: Array) -> float:
    """The rows it was fitted on; the covariance is lifted a thousandth, as one with fewer rows has no inverse."""
    n, d = f.shape
    _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    means = np.stack([f[codes == c].mean(axis=0) for c in range(len(counts))])
    x = f - means[codes]
    level = 1e-3 * np.square(x).sum() / (n * d)
    inner = x @ x.T
    inner.flat[:: n + 1] += level * n / (1 - 1e-3)
    weights = (means - means @ x.T @ np.linalg.solve(inner, x)) / level  # by the rows, which are fewer
    told = f @ weights.T - (means * weights).sum(axis=1) / 2 + np.log(counts / n)
    return float((told.argmax(axis=1) == codes).mean())


def gbc(f: Array, y: Array) -> float:
    """On the features themselves, without principal directions, and what chance gives kept."""
    return score(GBC(chance="kept"), f, y, int(y.max()) + 1)


FORMS: dict[str, tuple[str, Callable[[Array, Array], float]]] = {
    "gbc": ("without principal components", gbc),
    "lda": ("on the rows it was fitted on", in_sample),
    "logme": ("as its authors' code has it", logme),
    "transrate": ("raw, as its authors list it", transrate),
}
