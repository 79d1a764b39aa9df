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

    Labels that no row has, or every row, say nothing and are left out, unless all are such; then the first is scored.
    """
    shares = np.asarray(view.labels).mean(axis=0)
    varying = np.flatnonzero((shares > 0) & (shares < 1))
    scores = [method(OneLabel(view, int(number))) for number in (varying if len(varying) else [0])]
    losses = [s.losses for s in scores if s.losses is not None]
    return Score(float(np.mean([s.value for s in scores])), np.mean(losses, axis=0) if losses else None)
