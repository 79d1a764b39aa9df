"""Inner folds: for choices made on the training rows alone, such as a strength or a number of steps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def inner_folds(ids: Sequence[str], labels: Array, k: int) -> Array:
    """(rows,) the fold of each row, from its id and its label: the same whatever the order of the rows.

    Rows are dealt in hash order, class by class (numbers: by rank, so that each fold spans the range), and each class
    goes on where the one before it stopped. Rows with several labels are dealt without strata.

    >>> inner_folds(["a", "b", "c", "d"], np.array([0, 0, 1, 1]), 2).tolist()
    [1, 0, 0, 1]
    """
    keys = [hashlib.sha256(f"inner {i}".encode()).digest() for i in ids]
    strata = np.zeros(len(keys)) if labels.ndim > 1 or labels.dtype == object else np.asarray(labels, dtype=np.float64)
    order = sorted(range(len(keys)), key=lambda i: (strata[i], keys[i]))
    folds = np.empty(len(keys), dtype=np.int64)
    folds[order] = np.arange(len(keys)) % k
    return folds


def first_seen(labels: Array) -> Array:
    """(rows,) class numbers without gaps, in the order of first appearance: what classes are called changes nothing.

    >>> first_seen(np.array([7, 2, 7, 0])).tolist()
    [0, 1, 0, 2]
    """
    _, first, codes = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    return np.asarray(first.argsort().argsort()[codes])
