"""Weights that are not below 0 and sum to one: the nearest to given numbers, and those of a best mixture."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def sparsemax(values: Array) -> Array:
    """(K,) the weights nearest to the values; those far below the largest get exactly 0.

    Martins and Astudillo, "From Softmax to Sparsemax", ICML 2016.

    >>> sparsemax(np.array([1.0, 0.5, -3.0])).tolist()
    [0.75, 0.25, 0.0]
    """
    z = values - np.max(values)  # so that the 1 below is not lost beside large values
    ordered = np.sort(z)[::-1]
    over = np.cumsum(ordered) - 1
    kept = int((ordered * np.arange(1, len(z) + 1) > over).sum())
    return np.asarray(np.maximum(z - over[kept - 1] / kept, 0.0))


def best_mixture(energy: Array, reached: Array, iterations: int = 1000) -> Array:
    """(K,) weights w for which w'(energy - reached) w is least: the squared error of a linear fit to a mixture.

    energy: (K, K) products of the K targets with each other, reached: of the targets with the fits to them, at most the
    energy. The fit to a mixture is the mixture of the fits, so with each step of the weights the fit moves along: down
    the slope of the error, by a step that never overshoots, and back onto the simplex. Steps gain speed from those
    before them (Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", 2009), which they lose where
    the error would rise; so it never does, and as it is convex, it ends at the least there is.

    >>> best_mixture(np.eye(2), np.diag([0.9, 0.5])).round(3).tolist()
    [0.833, 0.167]
    """
    left = energy - reached
    steepest = max(float(np.linalg.eigvalsh(left)[-1]), 1e-300)
    weights = ahead = np.full(len(left), 1 / len(left))
    error, speed = float(weights @ left @ weights), 1.0
    for _ in range(iterations):
        new = sparsemax(ahead - left @ ahead / steepest)
        now = float(new @ left @ new)
        if now >= error:
            if speed == 1.0:
                break  # a plain step gains nothing: this is the least
            ahead, speed = weights, 1.0
            continue
        faster = (1 + (1 + 4 * speed**2) ** 0.5) / 2
        ahead = new + (speed - 1) / faster * (new - weights)
        weights, error, speed = new, now, faster
    return weights
