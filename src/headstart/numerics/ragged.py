"""Rows of unequal length in one flat array: row i lies at starts[i] … starts[i + 1], as words do in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def starts_of(lengths: Sequence[int] | Array) -> Array:
    """(rows + 1,) where each row begins; the last is where all end.

    >>> starts_of([2, 0, 3]).tolist()
    [0, 2, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64), dtype=np.int64)])


def places(starts: Array, rows: Sequence[int] | Array) -> Array:
    """Where the members of these rows lie, row after row.

    >>> places(np.array([0, 2, 2, 5]), [2, 0]).tolist()
    [2, 3, 4, 0, 1]
    """
    at = np.asarray(rows, dtype=np.int64)
    lengths = starts[at + 1] - starts[at]
    ends = np.cumsum(lengths)
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(starts[at] - ends + lengths, lengths))


def owners(starts: Array) -> Array:
    """The row of each member.

    >>> owners(np.array([0, 2, 2, 5])).tolist()
    [0, 0, 2, 2, 2]
    """
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))
