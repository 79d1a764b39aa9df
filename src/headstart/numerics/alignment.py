"""Aligning two sides by what is known of pairs: coordinates of a kernel, and ridge judged without whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Coordinates:
    """Principal coordinates of n things that a kernel compares, at (n, k), of mean squared length 1."""

    at: Array
    _axes: Array
    _means: Array

    @classmethod
    def of(cls, kernel: Array, most: int) -> Coordinates:
        """kernel: (n, n) symmetric; what is negative in it is dropped. most: so many coordinates, the largest first.

        >>> Coordinates.of(np.array([[1.0, -1.0], [-1.0, 1.0]]), 9).at.round(6).tolist()
        [[-1.0], [1.0]]
        """
        means = kernel.mean(axis=0)
        values, vectors = np.linalg.eigh(kernel - means - means[:, None] + means.mean())
        kept = np.argsort(-values)[:most]
        kept = kept[values[kept] > 1e-9 * max(float(values[-1]), 1e-300)]
        scale = np.sqrt(max(float(values[kept].sum()), 1e-300) / len(kernel))
        vectors = vectors[:, kept] * np.copysign(1.0, vectors[-1, kept] + 1e-12)
        roots = np.sqrt(values[kept])
        return cls(vectors * roots / scale, vectors / roots / scale, means)

    def of_new(self, kernel: Array) -> Array:
        """(k,) of one more thing, by the kernel's values (n,) between it and the others."""
        centred = kernel - kernel.mean() - self._means + self._means.mean()
        return np.asarray(centred @ self._axes)


@dataclass(frozen=True, eq=False, slots=True)
class Ridge:
    """weights: (D,). penalty: the chosen multiple. left_out: (N,) residuals of each row by a fit without its group."""

    weights: Array
    penalty: float
    left_out: Array


def ridge_without_groups(design: Array, wanted: Array, groups: Array, penalties: Sequence[float]) -> Ridge:
    """Ridge regression without intercept of wanted (N,) on design (N, D); groups: (N,) numbers.

    penalties: multiples of the mean squared length of a row; of them the one with the least squared error of rows whose
    whole group was left out, which the hat matrix of all rows tells: one decomposition of (D, D), and one solve of a
    group's size for each group and penalty.

    >>> x = np.array([[1.0], [1.0], [2.0], [2.0]])
    >>> ridge_without_groups(x, 3 * x[:, 0], np.array([0, 0, 1, 1]), [1e-9, 1.0]).weights.round(6).tolist()
    [3.0]
    """
    values, axes = np.linalg.eigh(design.T @ design)
    values = np.maximum(values, 0.0)
    level = max(float(np.square(design).sum()) / len(design), 1e-300)
    turned = design @ axes
    told = turned.T @ wanted
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    best = None
    for penalty in penalties:
        shrunk = 1 / (values + penalty * level)
        residuals = wanted - turned @ (told * shrunk)
        left_out = np.empty(len(wanted))
        for rows in members:
            hat = (turned[rows] * shrunk) @ turned[rows].T
            left_out[rows] = np.linalg.solve(np.eye(len(rows)) - hat, residuals[rows])
        if best is None or np.square(left_out).sum() < np.square(best.left_out).sum():
            best = Ridge(axes @ (told * shrunk), float(penalty), left_out)
    assert best is not None  # there is a penalty
    return best
