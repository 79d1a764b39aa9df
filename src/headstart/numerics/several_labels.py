"""Several labels a row, for methods that know rows of one class: label by label, each having it or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Ranking, Score, TaskType, View

from .moments import Moments

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False, slots=True)
class OneLabel:
    """A `core.View` of one of several labels: the same rows, of class 1 where they have it, else of class 0."""

    view: View
    number: int

    @property
    def task(self) -> TaskType:
        return "single_label"

    @property
    def classes(self) -> int:
        return 2

    @property
    def labels(self) -> Array:
        return np.asarray(np.asarray(self.view.labels)[:, self.number] > 0, dtype=np.int64)

    @property
    def folds(self) -> Array:
        return self.view.folds

    @property
    def groups(self) -> Array:
        return self.view.groups

    @property
    def features(self) -> Array:
        return self.view.features

    @property
    def moments(self) -> Moments:
        return Moments.of(self.view.features, self.labels, 2)

    @property
    def class_moments(self) -> Moments:
        return Moments.of(self.view.features, self.labels, 2, gram=False)

    @property
    def predictions(self) -> Array:
        return self.view.predictions

    @property
    def reference(self) -> Array:
        told = self.view.reference[:, self.number]
        return np.stack([1 - told, told], axis=1)


def label_by_label(method: Ranking, view: View) -> Score:
    """The mean over labels of a method's score of each alone, and of its losses where it has them.

    Which labels count, see `counted`.
    """
    scores = [method(OneLabel(view, number)) for number in counted(view.labels)]
    losses = [s.losses for s in scores if s.losses is not None]
    return Score(float(np.mean([s.value for s in scores])), np.mean(losses, axis=0) if losses else None)


def counted(labels: Array) -> list[int]:
    """Numbers of the labels that say something, of (rows, labels) 0 and 1.

    Those that no row has, or every row, are left out, unless all are such; then the first is there.

    >>> counted(np.array([[1, 0, 1], [1, 1, 0]])), counted(np.array([[1, 0]]))
    ([1, 2], [0])
    """
    shares = np.asarray(labels).mean(axis=0)
    return np.flatnonzero((shares > 0) & (shares < 1)).tolist() or [0]


def one_by_one(labels: Array, classes: int) -> list[tuple[Array, int]]:
    """Labels (rows,) of one class each, and how many classes there are; several labels a row give one of these each.

    >>> [(y.tolist(), classes) for y, classes in one_by_one(np.array([[1, 0, 1], [1, 1, 0]]), 3)]
    [([0, 1], 2), ([1, 0], 2)]
    """
    given = np.asarray(labels)
    if given.ndim == 1:
        return [(given, classes)]
    return [(np.asarray(given[:, number] > 0, dtype=np.int64), 2) for number in counted(given)]
