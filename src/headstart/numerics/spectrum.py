"""Spectrum: the eigenvalues of centred features on their smaller side, and the targets along them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import eigh, eigvalsh, eigvalsh_tridiagonal
from scipy.linalg.lapack import dormqr, dptsv, dsytrd, dsytrd_lwork

from headstart.core import Score, Unfit, View

from .held_out import cells, explained
from .moments import Moments, targets_of

Array = np.ndarray[Any, Any]
SURE = 1e-5  # of two numbers: what their difference must come to, so that it has ten digits
# of held-out ridge regression, as multiples of the mean squared length of a training row
PENALTIES: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0, 1e3, 1e4)
LEAST_PENALTY = 1e-12  # of the largest eigenvalue: what lifts zero eigenvalues well above their rounding


@dataclass(frozen=True, eq=False, slots=True)
class Spectrum:
    """Of F'F (width side) or F F' (rows side), F and the targets Y less their means, k the rank.

    values: (k,) eigenvalues above max(N, D) * eps of the largest, on either side the same; those left out are exact
    zeros. vectors: (D, k) or (N, k). projected: (k, K) vectors' F'Y, or vectors' Y on the rows side.
    shares: (k, K) squares of Y along the rows' eigenvectors, on either side. rest: (K,) squares of Y that no linear
    map of F reaches.
    """

    rows: int
    by_width: bool
    values: Array
    vectors: Array
    projected: Array
    shares: Array
    rest: Array

    @classmethod
    def of_view(cls, view: View) -> Spectrum:
        """On the smaller side: from the view's moments when N >= D, else from its features."""
        rows, width = view.features.shape
        return cls.of_moments(view.moments) if rows >= width else cls.of_kernel(*_rows_side(view), width)

    @classmethod
    def of_moments(cls, moments: Moments) -> Spectrum:
        """The width side; O(D³)."""
        values, vectors = _eigen(moments.centred_gram, moments.rows)
        projected = vectors.T @ moments.centred_sums.T
        shares = projected**2 / values[:, None]
        rest = np.maximum(moments.centred_energy - shares.sum(axis=0), 0.0)
        if len(values) >= moments.rows - 1:  # all directions that centring leaves: the difference is rounding
            rest[:] = 0
        return cls(moments.rows, True, values, vectors, projected, shares, rest)

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
        if len(values) == len(kernel) - 1:  # all directions that centring leaves: the difference is rounding
            rest[:] = 0
        return cls(len(kernel), False, values, vectors, projected, projected**2, rest)

    @property
    def level(self) -> float:
        """Mean squared length of a row, which neither rotation nor empty features change; 1 where all are zero."""
        return _level(self.values, self.rows)

    @property
    def along(self) -> Array:
        """(k, K) the targets along the rows' eigenvectors, on either side."""
        return np.copysign(np.sqrt(self.shares), self.projected)

    def standardised(self, *, values: bool) -> Spectrum:
        """Features of mean squared length 1, and of the targets those columns that vary; values: of variance 1."""
        energy = self.shares.sum(axis=0) + self.rest
        varying = energy > 0
        unit = self.rows / energy[varying] if values else 1.0
        return replace(
            self,
            values=self.values / self.level,
            projected=self.projected[:, varying],
            shares=self.shares[:, varying] * unit,
            rest=self.rest[varying] * unit,
        )

    def ridge(self, penalties: Array, columns: Array) -> tuple[Array, Array]:
        """Of ridge regression of some columns, each by its own penalty: squared lengths of weights, squared errors."""
        shares, values = self.shares[:, columns], self.values[:, None]
        left = penalties / (values + penalties)
        sizes = (shares * values / (values + penalties) ** 2).sum(axis=0)
        return sizes, np.asarray(self.rest[columns] + (shares * left**2).sum(axis=0))

    def freedom(self, penalty: Array | float) -> Array:
        """Rows less the mean and less the effective parameters of ridge, for each penalty; without cancellation."""
        return _freedom(self.rows, self.values, penalty)

    def cross_validated(self, penalties: Array) -> Array:
        """(penalties,) generalised cross-validation's estimate of the squared error of ridge, over all columns."""
        every = np.arange(len(self.rest))
        errors = np.array([self.ridge(np.full(len(every), p), every)[1].sum() for p in penalties])
        return np.asarray(errors * self.rows / np.maximum(self.freedom(penalties), 1e-9) ** 2)

    def left_out(self, penalties: Array, features: Array, targets: Array) -> Array:
        """(penalties,) squared error of ridge, over all columns, on each row left out by itself, exactly.

        Allen, "The Relationship between Variable Selection and Data Augmentation and a Method for Prediction", 1974.
        features (N, D), targets (N, K): the rows that this was made of.
        """
        rows = self.vectors
        if self.by_width:
            rows = np.subtract(features, features.mean(axis=0, dtype=np.float64), dtype=np.float64) @ rows
            rows /= np.sqrt(self.values)
        squares, along = rows**2, self.along
        beyond = np.maximum(1 - 1 / self.rows - squares.sum(axis=1), 0.0)  # of a row that no direction reaches
        missed = targets - targets.mean(axis=0) - rows @ along
        if len(self.values) >= self.rows - 1:  # all directions that centring leaves: the differences are rounding
            beyond[:], missed = 0.0, np.zeros_like(missed)
        found = []
        for penalty in penalties:
            left = penalty / (self.values + penalty)
            error = (missed + rows @ (left[:, None] * along)) / (beyond + squares @ left)[:, None]
            found.append(np.square(error).sum())
        return np.array(found)

    def best(self, penalties: Array, features: Array, targets: Array, train: Array) -> float:
        """Of these penalties that of the least error on rows that are left out.

        features (rows, D), targets (rows, K): of which this was made of the rows `train`; they are read only if needed.
        Where rows are twice the rank, by generalised cross-validation, which needs no rows. With fewer it is fooled:
        rows that come twice with one label leave freedom without errors, and so the least penalty looks best.
        """
        if self.rows >= 2 * len(self.values):
            errors = self.cross_validated(penalties)
        else:
            errors = self.left_out(penalties, features[train], targets[train])
        return float(penalties[errors.argmin()])

    def coefficients(self, penalty: float) -> Array:
        """Of ridge regression: (D, K) weights, or on the rows side (N, K) weights of the rows."""
        return np.asarray(self.vectors @ (self.projected / (self.values[:, None] + penalty)))


@dataclass(frozen=True, eq=False, slots=True)
class Tridiagonal:
    """What `Spectrum` tells of ridge regression, without eigenvectors: in half of the time.

    The smaller side of the centred features, F'F (by_width) or F F', is Q T Q' with T tridiagonal; its eigenvalues
    need no vectors, and a ridge regression is one solve with T + penalty, O(k).

    diagonal, beside: of T. values: (k,) eigenvalues as in `Spectrum`. projected: (side, K) Q'F'Y or Q'Y. energy: (K,)
    squares of Y.
    """

    rows: int
    by_width: bool
    diagonal: Array
    beside: Array
    values: Array
    projected: Array
    energy: Array

    @classmethod
    def of_view(cls, view: View) -> Tridiagonal:
        """On the smaller side: from the view's moments when N >= D, else from its features."""
        rows, width = view.features.shape
        if rows < width:
            kernel, y = _rows_side(view)
            return cls._of(kernel, y, np.square(y).sum(axis=0), rows, width)
        moments = view.moments
        return cls._of(moments.centred_gram, moments.centred_sums.T, moments.centred_energy, rows, rows)

    @classmethod
    def _of(cls, symmetric: Array, right: Array, energy: Array, rows: int, other_side: int) -> Tridiagonal:
        side = len(symmetric)
        if side == 1:
            diagonal = values = np.array(symmetric[0])
            beside, projected = np.zeros(1), np.array(right)  # LAPACK wants one number beside the diagonal at least
        else:
            work = int(dsytrd_lwork(side, lower=1)[0])
            columns = symmetric if symmetric.flags.f_contiguous else symmetric.T
            reduced, diagonal, beside, scales, _ = dsytrd(columns, lower=1, lwork=work, overwrite_a=1)
            # the reflectors that make up Q lie below the diagonal, as those of a QR decomposition of one side less
            turned, _, _ = dormqr("L", "T", _below(reduced), scales, right[1:], lwork=64 * right.shape[1])
            projected = np.concatenate([right[:1], turned])
            values = eigvalsh_tridiagonal(diagonal, beside, check_finite=False, lapack_driver="sterf")
        return cls(rows, other_side == rows, diagonal, beside, _above_rounding(values, other_side), projected, energy)

    @property
    def level(self) -> float:
        """As of a `Spectrum`."""
        return _level(self.values, self.rows)

    def standardised(self, *, values: bool) -> Tridiagonal:
        """As of a `Spectrum`."""
        varying = self.energy > 0
        unit = self.rows / self.energy[varying] if values else np.ones(int(varying.sum()))
        scale = unit / self.level if self.by_width else unit
        return replace(
            self,
            diagonal=self.diagonal / self.level,
            beside=self.beside / self.level,
            values=self.values / self.level,
            projected=self.projected[:, varying] * np.sqrt(scale),
            energy=self.energy[varying] * unit,
        )

    def ridge(self, penalties: Array, columns: Array) -> tuple[Array, Array]:
        """As of a `Spectrum`; NaN for both where they are differences of nearly equal numbers."""
        found = [
            self._one(float(p), self.projected[:, c], float(self.energy[c]))
            for p, c in zip(penalties, columns, strict=True)
        ]
        told = np.array(found, dtype=np.float64).reshape(-1, 2)
        return told[:, 0], told[:, 1]

    def _one(self, penalty: float, right: Array, energy: float) -> tuple[float, float]:
        _, _, solved, failed = dptsv(self.diagonal + penalty, self.beside, right)
        square, fitted = float(solved @ solved), float(right @ solved)
        largest = float(self.values[-1]) if len(self.values) else 0.0
        if failed or penalty < LEAST_PENALTY * largest:
            return np.nan, np.nan
        if self.by_width:  # solved: the weights
            error = energy - fitted - penalty * square
            return (square, error) if error >= SURE * energy else (np.nan, np.nan)
        # solved: the weights of the rows, a; those of the features have the squared length a'Ta
        size = fitted - penalty * square
        if size < SURE * fitted:
            crossed = 2 * float((self.beside[: len(solved) - 1] * solved[:-1]) @ solved[1:])
            size = float((self.diagonal * solved) @ solved) + crossed
            if size < SURE * largest * square:
                return np.nan, np.nan
        return size, penalty**2 * square

    def freedom(self, penalty: Array) -> Array:
        """As of a `Spectrum`."""
        return _freedom(self.rows, self.values, penalty)


def two_rows_a_dimension(rank: int, rows: int, where: str, instead: str) -> None:
    """Raises `Unfit` where features have a rank above half of the rows, so that noise gives half of what there is."""
    if 2 * rank > rows:
        raise Unfit(
            f"{rows} rows and features of rank {rank}: noise of that rank would score as well as a good source",
            where=where,
            fix=f"use {instead}, or label two rows for each dimension of the source",
        )


def rank_of(features: Array, varying: int) -> int:
    """Of centred features; `varying`, of which there are so many, where that is at most half of the rows anyway.

    >>> rank_of(np.array([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]]), 2)
    1
    """
    if 2 * varying <= len(features):
        return varying
    f = np.array(features, dtype=np.float64)
    f -= f.mean(axis=0)
    symmetric = f @ f.T if len(f) < f.shape[1] else f.T @ f
    return len(_above_rounding(eigvalsh(symmetric, check_finite=False), max(f.shape)))


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
        kernel = _kernel(features)
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


def held_out_ridge(
    features: Array, labels: Array, classes: int, folds: Array, penalties: Sequence[float],
    moments: Moments | None = None,
) -> Score:  # fmt: skip
    """R² of ridge regression on held-out folds, and each row's squared error; the arguments are as for `ridge_cells`.

    >>> x = np.arange(12.0)[:, None]
    >>> round(held_out_ridge(x, 2 * x[:, 0], 0, np.arange(12) % 3, (1e-6, 1.0)).value, 3)
    1.0
    """
    y = targets_of(labels, classes)
    losses, naive = np.full(len(y), np.nan), np.full(len(y), np.nan)
    for train, valid, said in ridge_cells(features, labels, classes, folds, penalties, moments):
        losses[valid] = np.square(y[valid] - said).sum(axis=1)
        naive[valid] = np.square(y[valid] - y[train].mean(axis=0)).sum(axis=1)
    return explained(losses, naive)


def ridge_cells(
    features: Array, labels: Array, classes: int, folds: Array, penalties: Sequence[float],
    moments: Moments | None = None,
) -> Iterator[tuple[Array, Array, Array]]:  # fmt: skip
    """Fold by fold: the rows to train on and to score, and what ridge regression on the former says of the latter.

    The first arguments are as for `fold_spectra`. penalties: multiples of the mean squared length of a training row, of
    which `Spectrum.best` takes one in each fold's training rows.

    >>> x = np.arange(12.0)[:, None]
    >>> _, valid, said = next(ridge_cells(x, 2 * x[:, 0], 0, np.arange(12) % 3, (1e-9,)))
    >>> valid.tolist(), said[:, 0].round(6).tolist()
    ([0, 3, 6, 9], [0.0, 6.0, 12.0, 18.0])
    """
    y = targets_of(labels, classes)
    for train, valid, spectrum, along in fold_spectra(features, labels, classes, folds, moments):
        penalty = spectrum.best(np.array(penalties) * spectrum.level, features, y, train)
        yield train, valid, y[train].mean(axis=0) + along @ spectrum.coefficients(penalty)


def _eigen(symmetric: Array, other_side: int) -> tuple[Array, Array]:
    values, vectors = eigh(symmetric, check_finite=False, driver="evd")
    kept = _above_rounding(values, other_side)
    return kept, vectors[:, len(values) - len(kept) :]


def _below(square: Array) -> Array:
    """square[1:, :-1] in columns without gaps, as LAPACK wants them; in the memory of the square, which it takes."""
    side, flat = len(square), square.ravel(order="F")
    less = side - 1
    for j in range(less):
        flat[j * less : (j + 1) * less] = flat[j * side + 1 : (j + 1) * side]
    return flat[: less * less].reshape((less, less), order="F")


def _above_rounding(values: Array, other_side: int) -> Array:
    """Of ascending eigenvalues those that are not what rounding makes of zero."""
    floor = max(len(values), other_side) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    return np.asarray(values[values > floor])


def _level(values: Array, rows: int) -> float:
    return float(values.sum()) / rows or 1.0


def _freedom(rows: int, values: Array, penalty: Array | float) -> Array:
    kept = np.asarray(penalty) / (values[:, None] + penalty)
    return np.asarray(rows - 1 - len(values) + kept.sum(axis=0))


def _kernel(features: Array) -> Array:
    """(N, N) of centred features."""
    f = np.array(features, dtype=np.float64)
    f -= f.mean(axis=0)
    return np.asarray(f @ f.T)


def _rows_side(view: View) -> tuple[Array, Array]:
    """The kernel, and centred targets (N, K)."""
    y = targets_of(view.labels, view.classes)
    return _kernel(view.features), y - y.mean(axis=0)
