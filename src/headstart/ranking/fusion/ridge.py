"""Ridge regression whose weights are not below 0.

Hoerl and Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics 1970; why weights of
stacked predictors should not be negative: Breiman, "Stacked Regressions", Machine Learning 1996.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from headstart.core import Expectation, Experience, Needs
from headstart.numerics.conformal import by_target, others

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class _Line:
    """A plane over features (m, d), at the level of the past targets where a feature says nothing."""

    level: float
    centre: Array
    weights: Array

    def __call__(self, features: Array) -> Array:
        return np.asarray(self.level + (features - self.centre) @ self.weights)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ridge:
    """A weight for each feature, none below 0, drawn to 0 as strongly as past targets that were left out ask for.

    strengths: of the penalty, in units of a standardised feature's own; the largest is nearly no model at all.

    Shapes: features (n, d); time O(folds · n · d² + folds · strengths · d³).
    Returns: an `Expectation`; its values are linear in the features.
    Errors: none.

    folds: parts of the targets, each left out once; a target is a part where there are fewer. Every target counts
    alike, however many sources were tried on it. A feature that never varied has weight 0.
    """

    needs = Needs(labels=False)
    claims = ("row_order", "shift", "unit", "learns", "shrinks")
    cites = "doi:10.1080/00401706.1970.10488634"

    strengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    folds: int = 8

    def __call__(self, past: Experience) -> Expectation:
        targets, place = np.unique(past.targets, return_inverse=True)
        if len(targets) < 3:
            return _fitted(past, (max(self.strengths),))[0]
        errors = np.zeros(len(self.strengths))
        for rest, left_out in others(Experience(past.features, past.values, place % self.folds)):
            named = Experience(rest.features, rest.values, past.targets[place % self.folds != left_out.targets[0]])
            off = [left_out.values - line(left_out.features) for line in _fitted(named, self.strengths)]
            errors += np.square(off).sum(axis=1)
        return _fitted(past, (self.strengths[int(errors.argmin())],))[0]


def _fitted(past: Experience, strengths: Sequence[float]) -> list[_Line]:
    """The planes for these strengths of the penalty."""
    share = by_target(past)
    centre, level = share @ past.features, float(share @ past.values)
    apart = past.features - centre
    spread = np.sqrt(share @ np.square(apart))
    varying = spread > 1e-9 * np.abs(past.features).max(axis=0, initial=0.0)
    unit = np.where(varying, spread, 1.0)
    rows = np.sqrt(share)[:, None] * np.where(varying, apart / unit, 0.0)
    right = np.sqrt(share) * (past.values - level)
    gram, along, none = rows.T @ rows, rows.T @ right, np.eye(len(centre))
    lines = []
    for strength in strengths:
        root = np.linalg.cholesky(gram + strength * none)  # the same problem in as many rows as features
        weights, _ = nnls(root.T, np.linalg.solve(root, along))
        lines.append(_Line(level, centre, np.where(varying, weights / unit, 0.0)))
    return lines
