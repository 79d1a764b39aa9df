"""Moments: sufficient statistics of features and labels, in one pass, in float64, mergeable and subtractable.

Let u = x - shift with the shift fixed at the first batch's mean, so that features far from zero lose no digits, and
let y be the row's targets: one column a class (0 or 1), or one column with the value for regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Unfit

from .shrinkage import ledoit_wolf

Array = np.ndarray[Any, Any]


def targets_of(labels: Array, classes: int) -> Array:
    """Labels as columns (rows, classes) of 0 and 1, or (rows, 1) values where classes is 0; float64.

    >>> targets_of(np.array([1, 0]), 2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    given = np.asarray(labels)
    if not classes:
        return given.astype(np.float64).reshape(len(given), 1)
    if given.ndim == 2:
        return given.astype(np.float64)
    hot = np.zeros((len(given), classes))
    hot[np.arange(len(given)), given.astype(np.int64)] = 1.0
    return hot


def slices(rows: int, block: int) -> Iterator[slice]:
    """Consecutive blocks of rows.

    >>> [(s.start, s.stop) for s in slices(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    return (slice(at, min(at + block, rows)) for at in range(0, rows, block))


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Sums over rows of u = x - shift and y - target_shift; memory O(D² + K·D), K columns of targets.

    total: (D,) of u. squares: (D,) of u². counts, energy: (K,) of y and y². sums: (K, D) of y u'.
    gram: (D, D) of u u', or None. second: (K, D) of y u'² (classes only), or None. norms: of |u|⁴ and (D,) of |u|² u,
    which with the Gram give Ledoit and Wolf's shrinkage exactly, or None.
    """

    rows: int
    classes: int
    shift: Array
    target_shift: Array
    total: Array
    squares: Array
    counts: Array
    energy: Array
    sums: Array
    gram: Array | None = None
    second: Array | None = None
    norms: tuple[float, Array] | None = None

    @classmethod
    def of(
        cls,
        features: Array,
        labels: Array,
        classes: int,
        *,
        block: int = 4096,
        gram: bool = True,
        second: bool = False,
        norms: bool = False,
    ) -> Moments:
        """Of features (rows, width) of any float type, read in blocks of rows; classes 0 means regression.

        >>> Moments.of(np.array([[1.0], [3.0]]), np.array([0, 1]), 2).mean.tolist()
        [2.0]
        """
        batches = ((features[s], labels[s]) for s in slices(len(features), block))
        return cls.from_batches(batches, classes, gram=gram, second=second, norms=norms)

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[tuple[Array, Array]],
        classes: int,
        *,
        gram: bool = True,
        second: bool = False,
        norms: bool = False,
    ) -> Moments:
        """Of (features, labels) pairs; only what is asked is accumulated. Raises `Unfit` when there are no rows."""
        if second and not classes:
            raise Unfit(
                "second moments by class of a regression target",
                where="Moments(second=True)",
                fix="leave second out, or give the number of classes",
            )
        sum_of: Moments | None = None
        for features, labels in batches:
            if not len(features):
                continue
            y = targets_of(labels, classes)
            if sum_of is None:
                shift = np.asarray(features, dtype=np.float64).mean(axis=0)
                target_shift = np.zeros(y.shape[1]) if classes else y.mean(axis=0)
            else:
                shift, target_shift = sum_of.shift, sum_of.target_shift
            y = y - target_shift
            u = np.subtract(features, shift, dtype=np.float64)
            lengths = np.einsum("nd,nd->n", u, u) if norms else np.empty(0)
            one = cls(
                rows=len(u),
                classes=classes,
                shift=shift,
                target_shift=target_shift,
                total=u.sum(axis=0),
                squares=np.einsum("nd,nd->d", u, u),
                counts=y.sum(axis=0),
                energy=(y * y).sum(axis=0),
                sums=y.T @ u,
                gram=u.T @ u if gram else None,
                second=y.T @ (u * u) if second else None,
                norms=(float(lengths @ lengths), lengths @ u) if norms else None,
            )
            sum_of = one if sum_of is None else sum_of + one
        if sum_of is None:
            raise Unfit("no rows to take moments of", where="Moments", fix="give at least one labelled row")
        return sum_of

    def __add__(self, other: Moments) -> Moments:
        return self._combined(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        """The rest, when `other` holds some of the rows in `self`."""
        return self._combined(other, -1)

    def _combined(self, other: Moments, sign: int) -> Moments:
        """What both sides have, about this side's shift."""
        near = other.about(self.shift, self.target_shift)
        return Moments(
            rows=self.rows + sign * near.rows,
            classes=self.classes,
            shift=self.shift,
            target_shift=self.target_shift,
            total=self.total + sign * near.total,
            squares=self.squares + sign * near.squares,
            counts=self.counts + sign * near.counts,
            energy=self.energy + sign * near.energy,
            sums=self.sums + sign * near.sums,
            gram=None if self.gram is None or near.gram is None else self.gram + sign * near.gram,
            second=None if self.second is None or near.second is None else self.second + sign * near.second,
            norms=None
            if self.norms is None or near.norms is None
            else (self.norms[0] + sign * near.norms[0], self.norms[1] + sign * near.norms[1]),
        )

    def about(self, shift: Array, target_shift: Array) -> Moments:
        """The same rows' sums about another shift; exact algebra, O(D²). Norms are kept only beside a Gram."""
        d, e = self.shift - shift, self.target_shift - target_shift
        if not d.any() and not e.any():
            return self
        n, s, gram, second, norms = self.rows, self.total, self.gram, self.second, None
        if self.norms is not None and gram is not None:
            fourth, cubes = self.norms
            dd, sd, spread = float(d @ d), float(s @ d), float(np.trace(gram))
            norms = (
                fourth + 4 * float(d @ gram @ d) + n * dd**2 + 4 * float(cubes @ d) + 2 * dd * spread + 4 * dd * sd,
                cubes + spread * d + 2 * gram @ d + 2 * sd * d + dd * s + n * dd * d,
            )
        if gram is not None:
            gram = gram + np.outer(s, d) + np.outer(d, s) + n * np.outer(d, d)
        if second is not None:
            second = second + 2 * self.sums * d + np.outer(self.counts, d * d)
        return Moments(
            rows=n,
            classes=self.classes,
            shift=shift,
            target_shift=target_shift,
            total=s + n * d,
            squares=self.squares + 2 * s * d + n * d * d,
            counts=self.counts + n * e,
            energy=self.energy + 2 * e * self.counts + n * e * e,
            sums=self.sums + np.outer(self.counts, d) + np.outer(e, s) + n * np.outer(e, d),
            gram=gram,
            second=second,
            norms=norms,
        )

    @property
    def width(self) -> int:
        return len(self.shift)

    @property
    def mean(self) -> Array:
        """(D,) of the features."""
        return np.asarray(self.shift + self.total / self.rows)

    @property
    def target_mean(self) -> Array:
        """(K,) of the targets: class shares, or the mean value."""
        return np.asarray(self.target_shift + self.counts / self.rows)

    @property
    def variance(self) -> Array:
        """(D,) with 1/N."""
        return np.maximum(self.squares / self.rows - (self.total / self.rows) ** 2, 0.0)

    @property
    def class_means(self) -> Array:
        """(C, D); a class without rows has the shift's place."""
        return np.asarray(self.shift + self.sums / np.maximum(self.counts, 1.0)[:, None])

    @property
    def class_variances(self) -> Array:
        """(C, D) with 1/rows of the class; 0 for a class without rows. Raises `Unfit` without second moments."""
        if self.second is None:
            raise Unfit("these moments have no second moments", where="Moments", fix="accumulate with second=True")
        counts = np.maximum(self.counts, 1.0)[:, None]
        return np.maximum(self.second / counts - (self.sums / counts) ** 2, 0.0)

    @property
    def centred_gram(self) -> Array:
        """(D, D) of (x - mean)(x - mean)'. Raises `Unfit` when no Gram was accumulated."""
        if self.gram is None:
            raise Unfit("these moments have no Gram matrix", where="Moments", fix="accumulate with gram=True")
        return np.asarray(self.gram - np.outer(self.total, self.total / self.rows))

    @property
    def centred_sums(self) -> Array:
        """(K, D) of (y - its mean)(x - mean)'."""
        return np.asarray(self.sums - np.outer(self.counts, self.total / self.rows))

    @property
    def centred_energy(self) -> Array:
        """(K,) of (y - its mean)²."""
        return np.maximum(self.energy - self.counts**2 / self.rows, 0.0)

    @property
    def within_gram(self) -> Array:
        """(D, D) of (x - its class mean)(x - its class mean)', for one class a row."""
        if self.gram is None:
            raise Unfit("these moments have no Gram matrix", where="Moments", fix="accumulate with gram=True")
        roots = self.sums / np.sqrt(np.maximum(self.counts, 1.0))[:, None]
        return np.asarray(self.gram - roots.T @ roots)

    def inverse_deviation(self, whole: Moments | None = None) -> Array:
        """(D,) 1/standard deviation, and 0 for a constant feature, so that it drops out.

        Constant is: below 1e-9 of the feature's mean, or below 1e-5 of its deviation in `whole`, from which these
        moments were made by subtraction (what is left there may be rounding).
        """
        spread = np.sqrt(self.variance)
        floor = 1e-9 * np.abs(self.mean)
        if whole is not None:
            floor = np.maximum(floor, 1e-5 * np.sqrt(whole.variance))
        alive = spread > floor
        return np.where(alive, 1.0 / np.where(alive, spread, 1.0), 0.0)

    @property
    def shrinkage(self) -> float:
        """Ledoit and Wolf's intensity for the total covariance; needs the Gram and norms."""
        if self.norms is None:
            raise Unfit("these moments have no norms", where="Moments", fix="accumulate with gram=True, norms=True")
        centred = self.about(self.mean, self.target_shift)
        if centred.norms is None or centred.gram is None:
            raise Unfit("these moments have no Gram matrix", where="Moments", fix="accumulate with gram=True")
        covariance = centred.gram / self.rows
        return ledoit_wolf(
            trace=float(np.trace(covariance)),
            squares=float(np.vdot(covariance, covariance)),
            fourth=centred.norms[0],
            rows=self.rows,
            width=self.width,
        )
