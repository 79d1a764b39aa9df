"""Chunks: moments of parts of the rows, and from them the error of anything that moments say, without a second pass.

The delete-a-group jackknife with groups of unequal size is of Busing, Meijer and van der Leeden, "Delete-m Jackknife
for Unequal m", Statistics and Computing 1999.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from headstart.core import Ranking, Score, TaskType, Unfit, View

from .moments import Moments, slices

Array = np.ndarray[Any, Any]
Statistic = Callable[[Moments], float]


@dataclass(frozen=True, slots=True)
class Spread:
    """A statistic of all rows with its standard error, and a 95 % interval where it was drawn."""

    value: float
    error: float
    low: float | None = None
    high: float | None = None


def jackknife(value: float, without: Sequence[float], sizes: Sequence[int]) -> Spread:
    """From a statistic of all rows, and of all rows less each group, of these many rows; two groups or more.

    >>> jackknife(2.0, [2.5, 2.0, 1.5], [1, 1, 1])  # the mean of 1, 2 and 3
    Spread(value=2.0, error=0.5773502691896257, low=None, high=None)
    """
    left, share = np.asarray(without, dtype=np.float64), np.sum(sizes) / np.asarray(sizes, dtype=np.float64)
    pseudo = share * value - (share - 1) * left
    centre = len(left) * value - float(((1 - 1 / share) * left).sum())
    return Spread(value, float(np.sqrt((np.square(pseudo - centre) / (share - 1)).mean())))


@dataclass(frozen=True, eq=False, slots=True)
class Chunks:
    """Moments of disjoint parts of the rows; memory is that of one Moments for each part."""

    parts: tuple[Moments, ...]

    @classmethod
    def of(cls, features: Array, labels: Array, classes: int, number: int = 10, **what: bool) -> Self:
        """Of rows in the order they lie, which should be a random or stratified one, cut into equal parts.

        what: as `Moments.of` takes it. With fewer rows than parts, a row is a part.
        """
        block = max(-(-len(features) // number), 1)
        cut = [Moments.of(features[s], labels[s], classes, **what) for s in slices(len(features), block)]
        return cls(tuple(cut))

    @property
    def whole(self) -> Moments:
        """Of all rows."""
        return _sum(self.parts)

    def without(self, part: int) -> Moments:
        """Of all rows but those of one part: by subtraction."""
        return self.whole - self.parts[part]

    def jackknife(self, statistic: Statistic) -> Spread:
        """The statistic of all rows, with its standard error from leaving out one part at a time.

        >>> chunks = Chunks.of(np.array([[1.0], [2.0], [3.0]]), np.zeros(3, dtype=int), 1, number=3)
        >>> round(chunks.jackknife(lambda m: float(m.mean[0])).error, 4)
        0.5774
        """
        whole = self._divided("the jackknife")
        return jackknife(statistic(whole), [statistic(whole - p) for p in self.parts], [p.rows for p in self.parts])

    def bootstrap(self, statistic: Statistic, draws: int = 200, seed: int = 0) -> Spread:
        """The statistic of all rows, with the spread over parts drawn with replacement.

        Few parts vary too little, by (parts - 1) / parts in variance; deviations are stretched to make that good.
        """
        whole, number = self._divided("the bootstrap"), len(self.parts)
        chance, value = np.random.default_rng(seed), statistic(whole)
        heard = np.empty(draws)
        for at in range(draws):
            weights = chance.multinomial(number, [1 / number] * number)
            heard[at] = statistic(_sum([p.times(int(w)) for p, w in zip(self.parts, weights, strict=True) if w]))
        heard = value + (heard - heard.mean()) * (number / (number - 1)) ** 0.5
        low, high = np.quantile(heard, [0.025, 0.975])
        return Spread(value, float(heard.std(ddof=1)), float(low), float(high))

    def _divided(self, where: str) -> Moments:
        """The whole, where it has parts to compare."""
        if len(self.parts) < 2:
            raise Unfit("one part has no spread", where=where, fix="cut the rows into two parts or more")
        return self.whole


class Without:
    """A `core.View` of all rows of another one but those of one part; moments come by subtraction."""

    def __init__(self, view: View, left_out: slice) -> None:
        self._view, self._out = view, left_out

    def _kept(self, rows: Array) -> Array:
        return np.delete(np.asarray(rows), self._out, axis=0)

    @property
    def task(self) -> TaskType:
        return self._view.task

    @property
    def classes(self) -> int:
        return self._view.classes

    @property
    def labels(self) -> Array:
        return self._kept(self._view.labels)

    @property
    def folds(self) -> Array:
        return self._kept(self._view.folds)

    @property
    def groups(self) -> Array:
        return self._kept(self._view.groups)

    @cached_property
    def features(self) -> Array:
        return self._kept(self._view.features)

    @cached_property
    def moments(self) -> Moments:
        return self._view.moments - self._part(gram=True)

    @cached_property
    def class_moments(self) -> Moments:
        return self._view.class_moments - self._part(gram=False)

    def _part(self, *, gram: bool) -> Moments:
        """Of what is left out."""
        features, labels = self._view.features[self._out], self._view.labels[self._out]
        return Moments.of(features, labels, self._view.classes, gram=gram)

    @cached_property
    def predictions(self) -> Array:
        return self._kept(self._view.predictions)

    @cached_property
    def reference(self) -> Array:
        return self._kept(self._view.reference)


def standard_error(
    method: Ranking, view: View, score: Score, groups: Sequence[str] | None = None, parts: int = 10
) -> float | None:
    """How far a score may be off for want of rows: one standard error over draws of rows as many as these.

    By the losses where the score is their mean; groups: of each row, such as the sentence of a word, whose losses are
    then not independent. Else, for an estimator that claims `jackknife`, by leaving out one of
    so many parts at a time; the rows should lie in a random or stratified order. None for all others.
    """
    if score.error is not None or score.losses is None:
        told = score.error
    else:
        finite = np.isfinite(score.losses)
        seen = score.losses[finite]
        plain = len(seen) > 1 and any(abs(score.value + seen.mean() - c) <= 1e-9 * (1 + abs(c)) for c in (0.0, 1.0))
        of = np.arange(len(score.losses)) if groups is None else np.array(groups)
        told = grouped_error(seen, of[finite]) if plain else None
    if told is not None or "jackknife" not in method.claims:
        return told
    rows = len(view.folds)
    cut = list(slices(rows, -(-rows // parts)))
    if len(cut) < 2:
        return None
    try:
        without = [method(Without(view, one)).value for one in cut]
    except Unfit:  # with a tenth of the rows less, it says nothing
        return None
    return jackknife(score.value, without, [len(range(*one.indices(rows))) for one in cut]).error


def grouped_error(values: Array, groups: Array) -> float | None:
    """Standard error of the mean of values that are alike within groups; None for one group.

    >>> round(grouped_error(np.array([1.0, 2.0, 3.0]), np.array(["a", "b", "c"])), 4)
    0.5774
    """
    _, of = np.unique(groups, return_inverse=True)
    sums = np.bincount(of, weights=values - values.mean())
    number = len(sums)
    return float(np.sqrt(number / (number - 1) * np.square(sums).sum())) / len(values) if number > 1 else None


def _sum(parts: Sequence[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
