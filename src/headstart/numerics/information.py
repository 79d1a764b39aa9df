"""What one column of names tells of another: entropies in nats, and labels read through a source's own classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.core import Unfit

from .moments import targets_of

Array = np.ndarray[Any, Any]


def entropy(*names: Array) -> float:
    """Of the frequencies of names, or of their combinations row by row, in nats.

    >>> round(entropy(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])), 6)
    1.386294
    """
    _, counts = np.unique(np.stack(names), axis=1, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0


def left_open(names: Array, given: Array) -> float:
    """The share of the entropy of names that remains when `given` is known, 0 … 1; 0 where there is none.

    >>> left_open(np.array([0, 0, 1, 1]), np.array([5, 5, 7, 7])), left_open(np.array([0, 1]), np.array([5, 5]))
    (0.0, 1.0)
    """
    whole = entropy(names)
    return min(max(entropy(names, given) - entropy(given), 0.0) / whole, 1.0) if whole else 0.0


def expected_predictions(theta: Array, labels: Array, classes: int) -> Array:
    """(rows,) probability of each row's label by P(label | source class), counted on these rows, and theta (rows, Z).

    The expected empirical prediction of LEEP (Nguyen et al., 2020). What a head with several labels a row says does not
    add up to 1; it is taken as shares, and of all classes alike where it says nothing of any.

    >>> expected_predictions(np.array([[0.75, 0.25], [0.25, 0.75]]), np.array([0, 1]), 2).tolist()
    [0.625, 0.625]
    >>> expected_predictions(np.array([[6.0, 2.0], [1.0, 3.0]]), np.array([0, 1]), 2).tolist()
    [0.625, 0.625]
    """
    theta = _shares(theta)
    joint = targets_of(labels, classes).T @ theta
    mass = joint.sum(axis=0)
    given = np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
    likelihood = (theta * given[np.asarray(labels)]).sum(axis=1)
    return np.asarray(np.maximum(likelihood, np.finfo(np.float64).tiny))


def four_rows_a_class(theta: Array, where: str) -> None:
    """Raises `Unfit` where a table of labels by source classes has hardly more rows than classes: it knows them.

    A source class counts by the part that single rows have in it, Σ theta² / Σ theta: 1 where each row is in one class
    alone, and less for rows spread over many.
    """
    shares = _shares(theta)
    mass = shares.sum(axis=0)
    used = float(np.divide(np.square(shares).sum(axis=0), mass, out=np.zeros_like(mass), where=mass > 0).sum())
    if 4 * used > len(shares):
        raise Unfit(
            f"{len(shares)} rows in {used:.0f} of the source's classes: so few a class are told apart by any source",
            where=where,
            fix="use `nce_cv`, which is judged on held-out rows, or label four rows for each such class",
        )


def _shares(theta: Array) -> Array:
    """(rows, Z) float64 in rows that add up to 1, alike over all classes where nothing is said of any."""
    theta = np.asarray(theta, dtype=np.float64)
    said = theta.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(theta, said, out=np.full_like(theta, 1 / theta.shape[1]), where=said != 0))
