"""Two samples in one space: some of their rows, brought to one scale, and their distances."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.core import Unfit

Array = np.ndarray[Any, Any]


def some(rows: int, most: int, seed: int) -> Array:
    """Numbers of at most so many rows, drawn without replacement, in order; the same for two samples of one size.

    >>> some(3, 5, seed=0).tolist(), len(some(5, 3, seed=0))
    ([0, 1, 2], 3)
    """
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def on_one_scale(source: Array, target: Array) -> tuple[Array, Array]:
    """Both in float64, so moved and scaled that together, each with the same say, they have mean 0 and variance 1.

    The variance is the sum of those of all features: one factor for all, so that no direction gains. What varies by no
    more than rounding becomes 0.

    >>> on_one_scale(np.array([[4.0]]), np.array([[8.0]]))
    (array([[-1.]]), array([[1.]]))
    """
    a, b = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    largest = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
    if largest == 0:
        return a, b
    a, b = a / largest, b / largest
    middle = (a.mean(axis=0) + b.mean(axis=0)) / 2
    a, b = a - middle, b - middle
    spread = float(np.sqrt(((a**2).sum(axis=1).mean() + (b**2).sum(axis=1).mean()) / 2))
    if spread <= 1e-9:
        return np.zeros_like(a), np.zeros_like(b)
    return a / spread, b / spread


def squared_distances(a: Array, b: Array) -> Array:
    """(rows of a, rows of b) squared Euclidean distances.

    >>> squared_distances(np.array([[0.0], [1.0]]), np.array([[3.0]])).tolist()
    [[9.0], [4.0]]
    """
    return np.asarray(np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T, 0.0))


def require_rows(source: int, target: int, least: int, name: str) -> None:
    """Raises `Unfit` where a sample is too small for a comparison."""
    if min(source, target) < least:
        raise Unfit(
            f"{min(source, target)} rows on one side, and `{name}` compares {least} at least",
            where=f"a comparison of {source} rows with {target}",
            fix="give more rows",
        )


def require_one(value: float, name: str, where: str, default: float) -> None:
    """Raises `Unfit` for a setting that is not above 0."""
    if not value > 0:
        raise Unfit(f"{name} is {value}, and must be above 0", where=where, fix=f"use {default}, the default")
