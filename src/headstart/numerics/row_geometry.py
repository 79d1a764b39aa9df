"""How rows lie in a space, and how their classes lie to each other: a few numbers that sets of any size share."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SPREAD = 7
CLASSES = 11
FIRST = (1, 2, 5, 20)  # directions whose share of the variance is told
PAIRS = (0.0, 0.1, 0.5, 0.9, 1.0)  # quantiles of the distances between class means
OWN = (0.1, 0.5, 0.9)  # quantiles of the classes' own variances
FIFTHS = (0.2, 0.4, 0.6, 0.8)


def spread(rows: Array) -> Array:
    """(SPREAD,) of rows (N, D): variance within the mean square, log of effective rank by entropy and by participation,
    and the share of the first directions. Zeros where rows do not vary. O(N·D·min(N, D)).

    >>> (spread(np.eye(4)[[0, 0, 1, 1]]).round(2) + 0).tolist()  # along one direction
    [0.5, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    """
    if len(rows) < 2:
        return np.zeros(SPREAD)
    apart = rows - rows.mean(axis=0)
    powers = np.linalg.eigvalsh(apart.T @ apart if len(apart) > apart.shape[1] else apart @ apart.T)[::-1].clip(0)
    if powers.sum() <= 1e-12 * np.square(rows).sum():
        return np.zeros(SPREAD)
    return np.array(
        [
            powers.sum() / np.square(rows).sum(),
            *_ranks(powers),
            *(powers[:most].sum() / powers.sum() for most in FIRST),
        ]
    )


def lie_of_classes(rows: Array, labels: Array, task_type: str) -> Array:
    """(CLASSES,) of rows (N, D) with a class each, several (N, C) of 0 and 1, or a number, which is cut at its fifths.

    The share of the variance between classes; quantiles of the squared distances between class means, in units of the
    variance within classes; how many directions the means span, as a share of those they could, and how much lies in
    the first; quantiles of the classes' own variances over the mean one. Shares and distances are less what chance
    gives. The names and the order of classes do not matter. Zeros where there are no two classes, or none has two rows.

    >>> rows = np.array([[0.0, 1.0], [0.0, -1.0], [4.0, 1.0], [4.0, -1.0]])
    >>> lie_of_classes(rows, np.array([0, 0, 1, 1]), "single_label")[1:6].tolist()  # 16 / 2 - 1/2 - 1/2
    [7.0, 7.0, 7.0, 7.0, 7.0]
    """
    at, own = _classes(labels, task_type)
    found, own = np.unique(own, return_inverse=True)
    if len(found) < 2 or len(at) <= len(found):
        return np.zeros(CLASSES)
    counts = np.bincount(own).astype(np.float64)
    members = np.zeros((len(found), len(rows)))
    members[own, at] = 1
    means, middle = members @ rows / counts[:, None], rows[at].mean(axis=0)
    total = float(np.square(rows[at] - middle).sum())
    inside = np.bincount(own, weights=np.square(rows[at] - means[own]).sum(axis=1))
    within = float(inside.sum()) / (len(at) - len(found))
    if within <= 1e-12 * total or total <= 0:
        within = max(total, 1e-300) / len(at)  # classes without any spread: measured by that of all
    upper = np.triu_indices(len(found), 1)
    chance = 1 / counts
    square = np.square(means).sum(axis=1)
    apart = square[:, None] + square - 2 * means @ means.T
    distances = (apart / within - chance[:, None] - chance)[upper]
    weighted = (means - middle) * np.sqrt(counts)[:, None]
    powers = np.linalg.eigvalsh(weighted @ weighted.T)[::-1].clip(0)
    between = 1 - within * (len(at) - 1) / total if total > 0 else 0.0
    spanned = np.exp(_ranks(powers)[0]) / (len(found) - 1) if powers.sum() > 0 else 0.0
    several = counts > 1
    return np.array(
        [
            between,
            *np.quantile(distances, PAIRS),
            spanned,
            powers[0] / max(float(powers.sum()), 1e-300),
            *np.quantile(inside[several] / (counts[several] - 1) / within, OWN),
        ]
    )


def _classes(labels: Array, task_type: str) -> tuple[Array, Array]:
    """Rows and their classes; a row of several classes stands once in each."""
    if task_type == "regression":
        known = np.flatnonzero(np.isfinite(labels))
        return known, np.searchsorted(np.quantile(labels[known], FIFTHS), labels[known]) if len(known) else known
    if labels.ndim == 2:
        at, own = np.nonzero(labels)
        return at, own
    return np.arange(len(labels)), labels


def _ranks(powers: Array) -> tuple[float, float]:
    """Logs of the effective rank: by the entropy of the shares, and by their sum of squares."""
    shares = powers[powers > 1e-12 * powers[0]] / powers.sum()
    return float(-(shares * np.log(shares)).sum()), float(-np.log(np.square(shares).sum()))
