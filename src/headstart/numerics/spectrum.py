"""Spectrum: the eigenvalues of centred features on their smaller side, and the targets along them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh

from headstart.core import View

from .held_out import cells
from .moments import Moments, targets_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Spectrum:
    """Of F'F (width side) or F F' (rows side), F and the targets Y less their means, k the rank.

    values: (k,) eigenvalues above max(N, D) * eps of the largest, on either side the same; those left out are exact
    zeros. vectors: (D, k) or (N, k). projected: (k, K) vectors' F'Y, or vectors' Y on the rows side.
    shares: (k, K) squares of Y along the rows' eigenvectors, on either side. rest: (K,) squares of Y that no linear
    map of F reaches.
    """

    rows: int
    values: Array
    vectors: Array
    projected: Array
    shares: Array
    rest: Array

    @classmethod
    def of_view(cls, view: View) -> Spectrum:
        """On the smaller side: from the view's moments when N >= D, else from its features."""
        rows, width = view.features.shape
        if rows >= width:
            return cls.of_moments(view.moments)
        f = np.asarray(view.features, dtype=np.float64)
        f = f - f.mean(axis=0)
        y = targets_of(view.labels, view.classes)
        return cls.of_kernel(f @ f.T, y - y.mean(axis=0), width)

    @classmethod
    def of_moments(cls, moments: Moments) -> Spectrum:
        """The width side; O(D³)."""
        values, vectors = _eigen(moments.centred_gram, moments.rows)
        projected = vectors.T @ moments.centred_sums.T
        shares = projected**2 / values[:, None]
        rest = np.maximum(moments.centred_energy - shares.sum(axis=0), 0.0)
        return cls(moments.rows, values, vectors, projected, shares, rest)

    @classmethod
    def of_kernel(cls, kernel: Array, targets: Array, width: int) -> Spectrum:
        """The rows side: kernel (N, N) of centred features, targets (N, K) centred; O(N³), for N < D.

        >>> spectrum = Spectrum.of_kernel(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([[1.0], [-1.0]]), 9)
        >>> spectrum.values.round(6).tolist(), spectrum.shares.round(6).tolist()
        ([2.0], [[2.0]])
        """
        values, vectors = _eigen(kernel, width)
        projected = vectors.T @ targets
        rest = np.maximum((targets**2).sum(axis=0) - (projected**2).sum(axis=0), 0.0)
        return cls(len(kernel), values, vectors, projected, projected**2, rest)

    @property
    def level(self) -> float:
        """Mean squared length of a row, which neither rotation nor empty features change; 1 where all are zero."""
        return float(self.values.sum()) / self.rows or 1.0

    @property
    def along(self) -> Array:
        """(k, K) the targets along the rows' eigenvectors, on either side."""
        return np.copysign(np.sqrt(self.shares), self.projected)

    def residuals(self, penalty: Array | float) -> Array:
        """(K,) squared error of ridge regression on its own rows; penalty a number or one a column."""
        return np.asarray(self.rest + (self.shares * (penalty / (self.values[:, None] + penalty)) ** 2).sum(axis=0))

    def freedom(self, penalty: Array | float) -> Array:
        """Rows less the mean and less the effective parameters of ridge, for each penalty; without cancellation."""
        kept = np.asarray(penalty) / (self.values[:, None] + penalty)
        return np.asarray(self.rows - 1 - len(self.values) + kept.sum(axis=0))

    def cross_validated(self, penalties: Array) -> Array:
        """(penalties,) generalised cross-validation's estimate of the squared error of ridge, over all columns."""
        errors = np.array([self.residuals(float(p)).sum() for p in penalties])
        return np.asarray(errors * self.rows / np.maximum(self.freedom(penalties), 1e-9) ** 2)

    def coefficients(self, penalty: float) -> Array:
        """Of ridge regression: (D, K) weights, or on the rows side (N, K) weights of the rows."""
        return np.asarray(self.vectors @ (self.projected / (self.values[:, None] + penalty)))


def fold_spectra(
    features: Array, labels: Array, classes: int, folds: Array, moments: Moments | None = None
) -> Iterator[tuple[Array, Array, Spectrum, Array]]:
    """Fold by fold: the rows to train on and to score, the spectrum of the former, and the latter along it.

    What is predicted of the rows to score, less the training rows' mean, is `along @ spectrum.coefficients(penalty)`.
    labels, classes: as for `Moments.of`. moments: of all rows, where they are at hand and N >= D. With N >= D each
    fold's moments are taken off those of all rows; with N < D one kernel serves all folds. Raises `Unfit` when no row
    is in a fold.

    >>> f, y, of = np.arange(4.0)[:, None], np.array([1.0, 3.0, 5.0, 7.0]), np.array([0, -1, -1, -1])
    >>> [(5.0 + a @ s.coefficients(0.0)).round(6).item() for _, _, s, a in fold_spectra(f, y, 0, of)]
    [1.0]
    """
    y = targets_of(labels, classes)
    by_width, kernel = len(features) >= features.shape[1], np.empty(0)
    if by_width:
        moments = Moments.of(features, labels, classes) if moments is None else moments
    else:
        f = np.asarray(features, dtype=np.float64)
        f = f - f.mean(axis=0)
        kernel = f @ f.T
    for train, valid in cells(folds):
        if by_width:
            assert moments is not None
            rest = moments - Moments.of(features[valid], labels[valid], classes)
            yield train, valid, Spectrum.of_moments(rest), np.subtract(features[valid], rest.mean, dtype=np.float64)
            continue
        inner, cross = kernel[np.ix_(train, train)], kernel[np.ix_(valid, train)]
        level = inner.mean(axis=0)
        inner = inner - level - level[:, None] + level.mean()
        cross = cross - cross.mean(axis=1, keepdims=True) - level + level.mean()
        yield train, valid, Spectrum.of_kernel(inner, y[train] - y[train].mean(axis=0), features.shape[1]), cross


def _eigen(symmetric: Array, other_side: int) -> tuple[Array, Array]:
    values, vectors = eigh(symmetric, check_finite=False, driver="evd")
    floor = max(len(symmetric), other_side) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    kept = values > floor
    return values[kept], vectors[:, kept]
