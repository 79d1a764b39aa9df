"""Chunks: moments of parts of the rows, and from them the error of anything that moments say, without a second pass.

The delete-a-group jackknife with groups of unequal size is of Busing, Meijer and van der Leeden, "Delete-m Jackknife
for Unequal m", Statistics and Computing 1999.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import Any, Protocol, Self

import numpy as np

from headstart.core import Ranking, Score, TaskType, Unfit, View

from .moments import Moments, pays_to_compile, slices
from .some_rows import by_label, looked_at

Array = np.ndarray[Any, Any]
Statistic = Callable[[Moments], float]
PARTS = 10
KEPT_BYTES = 2**27  # of the moments of all parts together: with ten Gram matrices, up to a width of 1,295


@dataclass(frozen=True, slots=True)
class Spread:
    """A statistic of all rows with its standard error and a 95 % interval."""

    value: float
    error: float
    low: float
    high: float


def jackknife(value: float, without: Sequence[float], sizes: Sequence[int]) -> float:
    """Standard error, from a statistic of all rows, and of all rows less each group, of these many rows; two or more.

    >>> round(jackknife(2.0, [2.5, 2.0, 1.5], [1, 1, 1]), 4)  # the mean of 1, 2 and 3
    0.5774
    """
    left, share = np.asarray(without, dtype=np.float64), np.sum(sizes) / np.asarray(sizes, dtype=np.float64)
    pseudo = share * value - (share - 1) * left
    centre = len(left) * value - float(((1 - 1 / share) * left).sum())
    return float(np.sqrt((np.square(pseudo - centre) / (share - 1)).mean()))


def cut(rows: int, parts: int = PARTS) -> list[slice]:
    """So many parts of the rows in the order they lie, of equal size but for the last; fewer of fewer rows, but one.

    >>> [(s.start, s.stop) for s in cut(5, 2)]
    [(0, 3), (3, 5)]
    """
    return list(slices(rows, max(-(-rows // parts), 1))) or [slice(0, 0)]


@dataclass(frozen=True, eq=False, slots=True)
class Chunks:
    """Moments of all rows and of disjoint parts of them, from one pass.

    kept: of the parts, where these take `KEPT_BYTES` at most; else empty, and a part is counted again, from its rows,
    each time it is asked for. count: takes moments of a slice of the rows.
    """

    whole: Moments
    slices: tuple[slice, ...]
    kept: tuple[Moments, ...]
    count: Callable[[slice], Moments]

    @classmethod
    def of(cls, features: Array, labels: Array, classes: int, number: int = PARTS, **what: bool) -> Self:
        """Of rows in the order they lie, which should be a random or stratified one, cut into equal parts.

        what: as `Moments.of` takes it. With fewer rows than parts, a row is a part. Raises `Unfit` without rows.
        """
        parts = tuple(cut(len(features), number))
        held = len(parts) * _bytes(features.shape[1], labels, classes, **what) <= KEPT_BYTES
        first = parts[0] if held else slice(len(features))
        many = pays_to_compile(features)
        near = Moments.of(features[first], labels[first], classes, many=many, **what)

        def count(rows: slice) -> Moments:
            """About one shift, so that the sums of parts are sums of their entries."""
            batch = features[rows], labels[rows]
            return Moments.from_batches(
                [batch], classes, many=many, shift=near.shift, target_shift=near.target_shift, **what
            )

        if not held:
            return cls(near, parts, (), count)
        kept = near, *(count(rows) for rows in parts[1:])
        return cls(reduce(add, kept), parts, kept, count)

    def part(self, number: int) -> Moments:
        return self.kept[number] if self.kept else self.count(self.slices[number])

    def without(self, number: int, *, gram: bool = True) -> Moments:
        """Of all rows but those of one part: by subtraction."""
        part = self.part(number)
        return self.whole - (part if gram else replace(part, gram=None, norms=None))

    def bootstrap(self, statistic: Statistic, draws: int = 200, seed: int = 0) -> Spread:
        """The statistic of all rows, with the spread over parts drawn with replacement.

        Few parts vary too little, by (parts - 1) / parts in variance; deviations are stretched to make that good.
        """
        number = len(self.slices)
        if number < 2:
            raise Unfit("one part has no spread", where="the bootstrap", fix="cut the rows into two parts or more")
        chance, value = np.random.default_rng(seed), statistic(self.whole)
        heard = np.empty(draws)
        for at in range(draws):
            weights = chance.multinomial(number, [1 / number] * number)
            heard[at] = statistic(reduce(add, [self.part(p).times(int(w)) for p, w in enumerate(weights) if w]))
        heard = value + (heard - heard.mean()) * (number / (number - 1)) ** 0.5
        low, high = np.quantile(heard, [0.025, 0.975])
        return Spread(value, float(heard.std(ddof=1)), float(low), float(high))


def _bytes(width: int, labels: Array, classes: int, *, gram: bool = True, **_: bool) -> int:
    """Of the moments of one part."""
    columns = labels.shape[1] if labels.ndim == 2 else max(classes, 1)
    return 8 * width * (2 * columns + (width if gram else 0))


class Parted(View, Protocol):
    """A view that tells moments of parts of its rows, `PARTS` of them."""

    @property
    def chunks(self) -> Chunks: ...

    @property
    def class_chunks(self) -> Chunks:
        """With or without a Gram matrix."""
        ...


class Without:
    """A `core.View` of all rows of another one but those of one part; moments come by subtraction.

    number: of the part; None for other rows, of which there are no moments.
    """

    def __init__(self, view: Parted, number: int | None, left_out: slice | Array) -> None:
        self._view, self._number, self._out = view, number, left_out

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
        assert self._number is not None
        return self._view.chunks.without(self._number)

    @cached_property
    def class_moments(self) -> Moments:
        assert self._number is not None
        return self._view.class_chunks.without(self._number, gram=False)

    @cached_property
    def predictions(self) -> Array:
        return self._kept(self._view.predictions)

    @cached_property
    def reference(self) -> Array:
        return self._kept(self._view.reference)


def standard_error(method: Ranking, view: Parted, score: Score, groups: Sequence[str] | None = None) -> float | None:
    """How far a score may be off for want of rows: one standard error over draws of rows as many as these.

    By the losses where the score is their mean, or that of the probabilities they are minus the logarithms of; groups:
    of each row, such as the sentence of a word, whose losses are then not independent. Else, for an estimator that
    claims `jackknife`, by leaving out one of ten parts at a time, of the rows that it looks at where a setting `rows`
    bounds them; otherwise the rows should lie in a random or stratified order. None for all others.
    """
    if score.error is not None or score.losses is None:
        told = score.error
    else:
        finite = np.isfinite(score.losses)
        seen = score.losses[finite]
        of = np.arange(len(score.losses)) if groups is None else np.array(groups)
        told = next((grouped_error(one, of[finite]) for one in _means_of(score.value, seen)), None)
    if told is not None or "jackknife" not in method.claims:
        return told
    rows, most = len(view.folds), getattr(method, "rows", None)
    if most is None or rows <= most:
        parts = cut(rows)
        left = [Without(view, number, part) for number, part in enumerate(parts)]
        sizes = [part.stop - part.start for part in parts]
    else:
        seen = by_label(view, looked_at(view, most, reference=method.needs.reference))
        dealt = [seen[number::PARTS] for number in range(min(PARTS, len(seen)))]
        left = [Without(view, None, np.setdiff1d(np.arange(rows), np.setdiff1d(seen, part))) for part in dealt]
        sizes = [len(part) for part in dealt]
    if len(left) < 2:
        return None
    try:
        without = [method(one).value for one in left]
    except Unfit:  # with a tenth of the rows less, it says nothing
        return None
    return jackknife(score.value, without, sizes)


def _means_of(value: float, losses: Array) -> list[Array]:
    """The losses, or the probabilities that they are minus the logarithms of, where the value is their mean."""
    if len(losses) < 2:
        return []
    if any(abs(value + losses.mean() - c) <= 1e-9 * (1 + abs(c)) for c in (0.0, 1.0)):
        return [losses]
    told = np.exp(-losses)
    return [told] if abs(value - told.mean()) <= 1e-9 else []


def grouped_error(values: Array, groups: Array) -> float | None:
    """Standard error of the mean of values that are alike within groups; None for one group.

    >>> round(grouped_error(np.array([1.0, 2.0, 3.0]), np.array(["a", "b", "c"])), 4)
    0.5774
    """
    _, of = np.unique(groups, return_inverse=True)
    sums = np.bincount(of, weights=values - values.mean())
    number = len(sums)
    return float(np.sqrt(number / (number - 1) * np.square(sums).sum())) / len(values) if number > 1 else None
