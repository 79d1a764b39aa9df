"""Maps from the features of one encoder to those of another: an affine one, fitted in closed form from moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Unfit

from .moments import Moments
from .spectrum import Spectrum

Array = np.ndarray[Any, Any]
FOLDS = 5
LEAST_ROWS = 50  # different inputs; a map from fewer says little, and its held-out figure less
LEAST_R2 = 0.05  # a map that explains less is as good as none; chance alone gives a few thousandths
# of ridge, as multiples of the mean squared length of a row
PENALTIES: tuple[float, ...] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True, eq=False, slots=True)
class SpaceMap:
    """x to weight x + bias: weight (E, D) and bias (E,), float32, from features of width D to features of width E."""

    weight: Array
    bias: Array

    def __call__(self, features: Array) -> Array:
        """(rows, E) float64 of features (rows, D).

        >>> SpaceMap(np.array([[2.0, 0.0]]), np.array([1.0]))(np.array([[3.0, 9.0]])).tolist()
        [[7.0]]
        """
        return np.asarray(np.asarray(features, dtype=np.float64) @ self.weight.T.astype(np.float64) + self.bias)

    def moments(self, of: Moments) -> Moments:
        """What `__call__` would give the moments of, from the moments of its features."""
        return of.affine(self.weight, self.bias)


@dataclass(frozen=True, eq=False, slots=True)
class FittedMap:
    """A map and how well it does on rows that it was not fitted on.

    r2: share of the features' variance that the map explains on held-out folds, the strength of each fold chosen on the
    others; 1 is all, 0 the mean. penalty: that the map was fitted with, as one of `PENALTIES`. rows: that it was fitted
    on.
    """

    map: SpaceMap
    r2: float
    penalty: float
    rows: int


def fit_map(
    base: Array, tuned: Array, folds: Sequence[int] | Array, penalties: Sequence[float] = PENALTIES
) -> FittedMap:
    """Ridge least squares with an intercept from base (rows, D) to tuned (rows, E), features of the same inputs.

    folds: (rows,) the fold that each row is held out in. All that is read are moments of each fold, from which its
    error follows exactly: memory O(folds · D · (D + E)), one eigendecomposition of (D, D) a fold.
    Raises `Unfit` for features that are not finite, that do not vary, or of which the map explains next to nothing.

    >>> x = np.random.default_rng(0).standard_normal((60, 2))
    >>> fitted = fit_map(x, x @ np.array([[2.0], [1.0]]) + 3, np.arange(60) % 5)
    >>> fitted.map.weight.round(3).tolist(), fitted.map.bias.round(3).tolist(), round(fitted.r2, 3)
    ([[2.0, 1.0]], [3.0], 1.0)
    """
    _check(base, tuned)
    of, outputs = np.asarray(folds), tuned.shape[1]  # as many columns of targets, each a number
    shift, target_shift = (np.asarray(x, dtype=np.float64).mean(axis=0) for x in (base, tuned))
    parts = [
        Moments.from_batches([(base[of == f], tuned[of == f])], outputs, shift=shift, target_shift=target_shift)
        for f in np.unique(of)
    ]
    whole = sum(parts[1:], parts[0])
    errors, naive = (np.array(x) for x in zip(*(_held_out(whole - p, p, penalties) for p in parts), strict=True))
    total = errors.sum(axis=0)
    chosen = (total - errors).argmin(axis=1)  # for each fold, by the others
    r2 = 1 - float(errors[np.arange(len(parts)), chosen].sum() / naive.sum())
    if r2 < LEAST_R2:
        raise Unfit(
            f"an affine map explains next to nothing of its features (held-out R² {r2:.3f})",
            where=f"a map from {len(base)} rows",
            fix="give more rows, or rows of the source's own kind; `headstart rank --sources` opens the source itself",
        )
    penalty = float(penalties[int(total.argmin())])
    spectrum = Spectrum.of_moments(whole)
    weight = spectrum.coefficients(penalty * spectrum.level).T.astype(np.float32)
    bias = (whole.target_mean - weight.astype(np.float64) @ whole.mean).astype(np.float32)
    return FittedMap(SpaceMap(weight, bias), r2, penalty, len(base))


def _held_out(train: Moments, part: Moments, penalties: Sequence[float]) -> tuple[list[float], float]:
    """Squared error on the rows of `part`, summed over features, for each penalty; and of the training rows' mean.

    |Y - XW'|² = |Y|² - 2 tr(W X'Y) + tr(W X'X W'), about the training rows' means, on the axes of their covariance.
    """
    near = part.about(train.mean, train.target_mean)
    assert near.gram is not None
    spectrum = Spectrum.of_moments(train)
    naive = float(near.energy.sum())
    sums, gram = spectrum.vectors.T @ near.sums.T, spectrum.vectors.T @ near.gram @ spectrum.vectors
    errors = []
    for penalty in penalties:
        w = spectrum.projected / (spectrum.values + penalty * spectrum.level)[:, None]
        errors.append(max(naive - 2 * float(np.vdot(w, sums)) + float(np.vdot(w, gram @ w)), 0.0))
    return errors, naive


def _check(base: Array, tuned: Array) -> None:
    for name, x in (("the base", base), ("the source", tuned)):
        if not np.isfinite(x).all():
            raise Unfit(
                f"features of {name} are not finite",
                where=f"a map from {len(x)} rows",
                fix="see that its weights are whole, with `headstart inventory verify`",
            )
        spread = np.asarray(x, dtype=np.float64).std(axis=0).max(initial=0.0)
        if spread <= 1e-6 * np.abs(x).max(initial=0.0):  # float32 holds no more than rounding there
            raise Unfit(
                f"features of {name} are the same for all rows",
                where=f"a map from {len(x)} rows",
                fix="give rows that differ; see that its tokenizer knows their words",
            )
