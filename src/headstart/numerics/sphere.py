"""Means on a sphere, found from inner products alone.

Every point that these methods visit is a sum of the vectors that they are given; so a small matrix of inner products
tells how much of each, and vectors of any length need not be in memory.

`products` is (models, models), of vectors of any length. What is returned says how much of each vector, as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def angle(products: Array, i: int = 0, j: int = 1) -> float:
    """Cosine between two of the vectors; 1 where one of them is zero.

    >>> angle(np.array([[4.0, 1.0], [1.0, 1.0]]))
    0.5
    """
    length = np.sqrt(products[i, i] * products[j, j])
    return float(np.clip(products[i, j] / length, -1, 1)) if length > 0 else 1.0


def arc(products: Array, t: float, straight: float = 0.9995) -> Array:
    """(2,): the point at t on the arc from the first vector to the second; a straight line where |cosine| > `straight`.

    >>> arc(np.eye(2), 0.5).round(4).tolist()
    [0.7071, 0.7071]
    """
    cosine = angle(products)
    if abs(cosine) > straight:
        return np.array([1 - t, t])
    omega = np.arccos(cosine)
    return np.asarray(np.array([np.sin((1 - t) * omega), np.sin(t * omega)]) / np.sin(omega))


def unit(products: Array) -> tuple[Array, Array]:
    """Inner products of the vectors' directions, and their lengths; a zero vector has no direction, and products 0."""
    lengths = np.sqrt(np.maximum(np.diag(products), 0))
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return np.asarray(products * np.outer(inverse, inverse)), lengths


def mean_direction(products: Array, weights: Array) -> Array | None:
    """(models,): the weighted mean of the directions, as long as the weighted mean of the lengths.

    weights sum to one. None where the directions cancel.
    """
    directions, lengths = unit(products)
    long = float(weights @ directions @ weights)
    if long < 1e-16:
        return None
    share = np.divide(weights, lengths, out=np.zeros_like(weights), where=lengths > 0)
    return np.asarray(share * (weights @ lengths) / np.sqrt(long))


def karcher(products: Array, steps: int, tolerance: float) -> Array:
    """(models,): the point whose directions to all others sum to nothing, as long as the mean of the lengths.

    >>> karcher(np.eye(2), 10, 1e-5).round(4).tolist()
    [0.7071, 0.7071]
    """
    directions, lengths = unit(products)
    real = lengths > 0
    if not real.any():
        return np.full(len(lengths), 1 / len(lengths))
    weights = real / real.sum()
    mean = weights.astype(float)
    long = float(np.sqrt(max(mean @ directions @ mean, 0)))
    mean = mean / long if long > tolerance else np.eye(len(lengths))[int(np.argmax(real))]
    for _ in range(steps):
        cosines = np.clip(directions @ mean, -1, 1)
        angles = np.arccos(cosines)
        none = (angles < tolerance) | (angles > np.pi - tolerance)  # what lies opposite pulls in no direction
        stretch = np.where(none, 0, angles / np.where(none, 1, np.sin(angles))) * weights
        tangent = stretch - (stretch @ cosines) * mean
        far = float(np.sqrt(max(tangent @ directions @ tangent, 0)))
        if far < tolerance:
            break
        mean = np.cos(far) * mean + np.sin(far) * tangent / far
        mean /= np.sqrt(mean @ directions @ mean)
    return np.asarray(np.divide(mean * lengths.mean(), lengths, out=np.zeros_like(mean), where=real))
