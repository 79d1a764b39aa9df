"""Linear discriminant analysis with a covariance safe for few rows, and what it says of rows it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import log_softmax

from headstart.core import Score, View

from .held_out import cells
from .shrinkage import Shrunk

Array = np.ndarray[Any, Any]
Change = Callable[[Array, Array], Array]


def true_class(view: View, change: Change | None = None) -> Score:
    """Mean probability of the true class on held-out rows, as in `held_out`; losses minus its logarithm, at most 50."""
    labels = np.asarray(view.labels)
    told = held_out(view.features, labels, view.folds, view.classes, change)
    losses = -np.maximum(told[np.arange(len(labels)), labels], -50.0)
    return Score(float(np.exp(-losses[~np.isnan(losses)]).mean()), losses)


def held_out(features: Array, labels: Array, folds: Array, classes: int, change: Change | None = None) -> Array:
    """(rows, classes) log probabilities, each row's by a fit without its fold; NaN for rows in no fold.

    Features are in units of their deviation over the training rows, and constant ones drop out. change: of training
    rows, given their classes' numbers, before they are fitted. A class that training did not see has -inf. Raises
    `Unfit` when no row is in a fold.

    >>> x = np.array([[0.0], [9.0], [1.0], [10.0]])
    >>> held_out(x, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 2).argmax(axis=1).tolist()
    [0, 1, 0, 1]
    """
    told = np.full((len(labels), classes), np.nan)
    for train, valid in cells(folds):
        x, new = np.asarray(features[train], dtype=np.float64), np.asarray(features[valid], dtype=np.float64)
        centre, spread = x.mean(axis=0), x.std(axis=0)
        alive = spread > 1e-9 * np.abs(x).max(axis=0)
        present, codes = np.unique(labels[train], return_inverse=True)
        told[valid] = -np.inf
        if alive.any():
            x, new = ((f - centre)[:, alive] / spread[alive] for f in (x, new))
            if change is not None:
                x = change(x, codes)
            told[np.ix_(valid, present)] = log_probabilities(x, codes, new)
        else:
            told[np.ix_(valid, present)] = np.log(np.bincount(codes) / len(codes))
    return told


def log_probabilities(x: Array, codes: Array, new: Array) -> Array:
    """(new rows, classes) by a fit to x, whose covariance inside classes is shrunk as Ledoit and Wolf derive.

    codes: (rows,) every class of 0 … classes − 1 at least once.
    """
    means, counts = class_means(x, codes), np.bincount(codes)
    within = x - means[codes]
    if len(x) < x.shape[1]:
        shrunk = Shrunk.of_rows(within, floor=1e-10)
    else:
        lengths = np.square(within).sum(axis=1)
        shrunk = Shrunk.of_covariance(within.T @ within / len(x), float(lengths @ lengths), len(x), floor=1e-10)
    weights = shrunk.solve(means)
    scores = new @ weights.T - 0.5 * (means * weights).sum(axis=1) + np.log(counts / len(codes))
    return np.asarray(log_softmax(scores, axis=1))


def class_means(x: Array, codes: Array) -> Array:
    """(classes, width), for codes as in `log_probabilities`.

    >>> class_means(np.array([[1.0], [3.0], [5.0]]), np.array([0, 0, 1])).tolist()
    [[2.0], [5.0]]
    """
    return np.stack([x[codes == c].mean(axis=0) for c in range(codes.max() + 1)])
