"""Records of past transfers as one table: how each source did on each target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from headstart.core import Known

Array = np.ndarray[Any, Any]
SHARED = 3  # figures that two targets must have in common before they are compared
DOUBT = 5.0  # a correlation over this many shared sources counts half


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Records:
    """Mean figures of one metric by one method, past targets (T) by sources (S).

    tasks: (S,) names of what each source was trained on, as targets are named; empty where unknown. values: (T, S)
    float64 means over repeated runs, NaN where a source was not tried on a target. counts, spread: (T, S) runs behind a
    mean, and their standard deviation (NaN for one run). direct: (T, S) the target's own training from the same model,
    without a source; NaN where unknown. sign: -1 for a metric where lower is better. tests: names of the targets whose
    figures are of test rows, for want of others. mixed: names of settings in which runs behind one mean differ.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    tasks: tuple[str, ...]
    values: Array
    counts: Array
    spread: Array
    direct: Array
    sign: int = 1
    tests: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()

    @property
    def own(self) -> Array:
        """(S,) the number of the past target that a source was trained on, -1 where it is none of them."""
        at = {name: number for number, name in enumerate(self.targets)}
        return np.array([at.get(task, -1) for task in self.tasks], dtype=np.int64)

    def standardised(self) -> Array:
        """(T, S) figures in standard deviations of their target's, higher is better; 0 where a target's are all equal.

        >>> tabulated([("t", "a", None, 2.0), ("t", "b", None, 4.0)], sign=-1).standardised().tolist()
        [[1.0, -1.0]]
        """
        return np.vstack([standard(row) for row in self.sign * self.values]).reshape(self.values.shape)

    def improvement(self) -> Array:
        """(T, S) gain over the target's own training without a source, higher is better; NaN where that is unknown."""
        return np.asarray(self.sign * (self.values - self.direct))

    def ranked(self) -> Records:
        """The same with each figure replaced by its place on its target, the best highest: far outliers weigh less.

        Beside this table a new target's own figures are to be such that higher is better.
        """
        places = np.full_like(self.values, np.nan)
        for place, row in zip(places, self.sign * self.values, strict=True):
            seen = np.isfinite(row)
            place[seen] = rankdata(row[seen])
        unknown = np.full_like(places, np.nan)
        return replace(self, values=places, spread=unknown, direct=unknown, sign=1)

    def without(self, target: str) -> tuple[Records, Array]:
        """The records of all other targets, and this one's own figures (S,), NaN where it has none."""
        if target not in self.targets:
            return self, np.full(len(self.sources), np.nan)
        at = self.targets.index(target)
        parts = {name: np.delete(getattr(self, name), at, axis=0) for name in ("values", "counts", "spread", "direct")}
        names = tuple(name for name in self.targets if name != target)
        tests = tuple(name for name in self.tests if name != target)
        return replace(self, targets=names, tests=tests, **parts), self.values[at]

    def with_sources(self, names: Sequence[str]) -> Records:
        """The same beside sources that were tried on no target.

        >>> table = tabulated([("t", "a", None, 0.5)]).with_sources(["b"])
        >>> table.sources, table.values.tolist(), table.counts.tolist()
        (('a', 'b'), [[0.5, nan]], [[1, 0]])
        """
        nothing = np.full((len(self.targets), len(names)), np.nan)
        return replace(
            self,
            sources=(*self.sources, *names),
            tasks=(*self.tasks, *("" for _ in names)),
            values=np.hstack([self.values, nothing]),
            counts=np.hstack([self.counts, np.zeros_like(nothing, dtype=np.int64)]),
            spread=np.hstack([self.spread, nothing]),
            direct=np.hstack([self.direct, nothing]),
        )


def tabulated(
    runs: Iterable[tuple[str, str | None, str | None, float]], sign: int = 1, tests: Iterable[str] = ()
) -> Records:
    """The table of runs (target, source, model, value); names in alphabetical order.

    A source is a pair of what was trained on and the model; the model stands in its name where sources of several are
    there. A run without a source, or whose source is the target, is direct training and never a transfer.

    >>> table = tabulated([("t", "a", None, 0.5), ("t", "a", None, 0.7), ("t", None, None, 0.4)])
    >>> table.sources, table.values.round(6).tolist(), table.improvement().round(6).tolist()
    (('a',), [[0.6]], [[0.2]])
    """
    cells: dict[tuple[str, str, str], list[float]] = {}
    alone: dict[tuple[str, str], list[float]] = {}
    for target, source, model, value in runs:
        if not source or source == target:
            alone.setdefault((target, model or ""), []).append(value)
        else:
            cells.setdefault((target, source, "" if model == source else model or ""), []).append(value)
    targets = tuple(sorted({t for t, *_ in cells} | {t for t, _ in alone}))
    pairs = sorted({(source, model) for _, source, model in cells})
    several = len({model for _, model in pairs}) > 1
    shape = len(targets), len(pairs)
    values, spread, direct = (np.full(shape, np.nan) for _ in range(3))
    counts = np.zeros(shape, dtype=np.int64)
    for i, target in enumerate(targets):
        for j, (source, model) in enumerate(pairs):
            found = cells.get((target, source, model), ())
            counts[i, j] = len(found)
            if len(found):
                values[i, j] = np.mean(found)
            if len(found) > 1:
                spread[i, j] = np.std(found, ddof=1)
            if bare := alone.get((target, model)):
                direct[i, j] = np.mean(bare)
    return Records(
        targets=targets,
        sources=tuple(f"{source} ({model})" if several and model else source for source, model in pairs),
        tasks=tuple(source for source, _ in pairs),
        values=values,
        counts=counts,
        spread=spread,
        direct=direct,
        sign=sign,
        tests=tuple(sorted(set(tests) & set(targets))),
    )


def standard(row: Array) -> Array:
    """Less the mean, over the standard deviation, of what is known; 0 where all are equal up to rounding.

    >>> standard(np.array([1.0, np.nan, 3.0])).tolist(), standard(np.array([0.1, 0.1, 0.1])).tolist()
    ([-1.0, nan, 1.0], [0.0, 0.0, 0.0])
    """
    seen = np.isfinite(row)
    if not seen.any():
        return np.full(row.shape, np.nan)
    centred = row - row[seen].mean()
    deviation = np.sqrt(np.square(centred[seen]).mean())
    flat = deviation <= 1e-12 * np.abs(row[seen]).max()
    return np.where(seen, 0.0 if flat else centred / (deviation or 1.0), np.nan)


def agreement(one: Array, other: Array) -> float:
    """Correlation of two targets' figures (S,) over the sources that both have, drawn to 0 the fewer these are.

    NaN below 3 shared sources, and where either target's figures are all equal.

    >>> round(agreement(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([2.0, 4.0, 6.0, 8.0, 10.0])), 6)
    0.5
    """
    both = np.isfinite(one) & np.isfinite(other)
    shared = int(both.sum())
    if shared < SHARED:
        return float("nan")
    a, b = standard(one[both]), standard(other[both])
    if not a.any() or not b.any():
        return float("nan")
    return float(np.mean(a * b) * shared / (shared + DOUBT))


def nearness(records: Records, target: Known) -> tuple[Array, Array | None]:
    """Similarities (T,) of the new target to the past ones, and (T, T) among these; NaN, and None, where unknown.

    Those that were given; else the agreement of the figures that the new target has already with each past target's.
    """
    count = len(records.targets)
    if target.similarities is not None and np.isfinite(target.similarities).any():
        return np.asarray(target.similarities, dtype=np.float64), target.between
    if target.values is None or np.isfinite(target.values).sum() < SHARED:
        return np.full(count, np.nan), None
    near = np.array([agreement(row, target.values) for row in records.values])
    tried = np.isfinite(target.values)  # past targets are compared on the same sources, so that both are as uncertain
    between = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i):
            between[i, j] = between[j, i] = agreement(records.values[i, tried], records.values[j, tried])
    return near, between


def novel(near: Array, between: Array | None, share: float) -> bool:
    """Whether a target is farther from its nearest past target than this share of these are from theirs.

    near: (T,), between: (T, T), as `nearness` gives them; what is unknown makes nothing novel.

    >>> between = np.array([[1.0, 0.8], [0.8, 1.0]])
    >>> novel(np.array([0.7, 0.1]), between, 0.95), novel(np.array([0.9, 0.1]), between, 0.95)
    (True, False)
    """
    if between is None or not np.isfinite(near).any():
        return False
    known = np.isfinite(between) & ~np.eye(len(between), dtype=bool)
    others = np.where(known, between, -np.inf).max(axis=1)[known.any(axis=1)]
    return len(others) > 0 and bool(np.nanmax(near) < np.quantile(others, 1 - share))


def mean_by_source(standardised: Array) -> Array:
    """(S,) the mean of what is known of each source; NaN where nothing is.

    >>> mean_by_source(np.array([[1.0, np.nan], [3.0, np.nan]])).tolist()
    [2.0, nan]
    """
    seen = np.isfinite(standardised)
    count = seen.sum(axis=0)
    total = np.where(seen, standardised, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
