"""Graph ranker: a regression on where targets and sources lie in the graph of what was tried.

Li, van der Wilk, Zhan, Khosla, Bozzon and Hai, "Model Selection with Model Zoo via Graph Learning" (TransferGraph),
ICDE 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.core import Guess, Known, Needs, Unfit
from headstart.numerics.records import SHARED, Records, mean_by_source, nearness

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphRanker:
    """Ridge regression of standardised figures on the embeddings of a graph of targets and sources.

    An edge weighs the source's place on the target, (0, 1]. Nodes are embedded by the leading singular vectors of the
    normalised adjacency; a pair is described by the products of the two embeddings, and by the mean, the spread and the
    number of the source's past figures. Each past target takes its turn as the new one: the graph is made without it,
    and it is placed by the same sources' figures as the new target has, or by its similarities, or in the middle.

    Shapes: records (T, S); T decompositions of (T, S).
    Returns: values (S,), and one standard error for all: the residual on past targets.
    Errors: `Unfit` below `least_records` records or `least_targets` targets, and for settings that cannot be.

    The paper embeds the graph by node2vec or a graph network, and adds features of models and data sets, which records
    do not hold. Here no pair is fitted in a graph that holds its own edge. With few targets prefer nearest_tasks.
    """

    needs = Needs(labels=False)
    claims = ("source_order", "target_order", "scale", "direction", "finds_the_best")
    cites = "arXiv:2404.03988"

    dimensions: int = 4
    # of the regression, in standardised features
    ridge: float = 10.0
    # of similarities, as in nearest_tasks
    bandwidth: float = 0.1
    least_records: int = 300
    least_targets: int = 5

    def __post_init__(self) -> None:
        if self.dimensions < 1 or not (self.ridge > 0 and self.bandwidth > 0) or self.least_targets < 2:
            raise Unfit(
                f"dimensions {self.dimensions}, ridge {self.ridge}, bandwidth {self.bandwidth} and "
                f"least_targets {self.least_targets} cannot be",
                where="GraphRanker(dimensions=…, ridge=…, bandwidth=…, least_targets=…)",
                fix="use 4, 10.0, 0.1 and 5, the defaults",
            )

    def __call__(self, records: Records, target: Known) -> Guess:
        figures = records.standardised()
        seen = np.isfinite(figures)
        if seen.sum() < self.least_records or len(figures) < self.least_targets:
            raise Unfit(
                f"{seen.sum()} records of {len(figures)} targets are too few to learn from",
                where="GraphRanker(least_records=…, least_targets=…)",
                fix=f"bring {self.least_records} records of {self.least_targets} targets, or use `nearest_tasks`",
            )
        near, between = nearness(records, target)
        own = np.full(seen.shape[1], np.nan) if target.values is None else records.sign * np.asarray(target.values)
        given = np.isfinite(own) & (np.isfinite(own).sum() >= SHARED)
        links = np.vstack([_places(row) for row in figures])
        design, wanted = [], []
        for t, row in enumerate(figures):
            others = np.arange(len(figures)) != t
            place = self._place(links[others], _kept(row, given), None if between is None else between[t, others])
            ask = seen[t] & ~given
            design.append(self._described(figures[others], links[others], place)[ask])
            wanted.append(row[ask])
        model = make_pipeline(StandardScaler(), Ridge(self.ridge))
        features, values = np.vstack(design), np.concatenate(wanted)
        if not len(values):
            return Guess(mean_by_source(figures))  # the new target has the figures of every source already
        model.fit(features, values)
        error = float(np.sqrt(np.square(values - model.predict(features)).mean()))
        place = self._place(links, _kept(own, given), None if between is None else near)
        known = seen.any(axis=0)
        guess = model.predict(self._described(figures, links, place))
        return Guess(np.where(known, guess, np.nan), np.where(known, error, np.nan), {"edges": int(seen.sum())})

    def _place(self, links: Array, own: Array, near: Array | None) -> Array:
        """(S,) edges of a target that is not in the graph."""
        if np.isfinite(own).any():
            return _places(own)
        weights = np.ones(len(links))
        if near is not None and np.isfinite(near).any():
            lifted = np.where(np.isfinite(near), near, -np.inf)
            weights = np.exp((lifted - lifted.max()) / self.bandwidth)
        return np.asarray(weights @ links / weights.sum())

    def _described(self, figures: Array, links: Array, place: Array) -> Array:
        """(S, dimensions + 3) features of the pairs of one target, by its edges, and all sources."""
        degree = np.sqrt(np.maximum(links.sum(axis=0), 1e-12))
        _, sizes, right = np.linalg.svd(links / np.sqrt(np.maximum(links.sum(axis=1), 1e-12))[:, None] / degree, False)
        leading = right[: self.dimensions] * (sizes[: self.dimensions] > 1e-9)[:, None]
        there = leading[:, place > 0]  # a source that was not tried is no worst one: only edges that are there count
        gram = there @ there.T + 0.1 * place.astype(bool).mean() * np.eye(len(there))
        folded = np.linalg.solve(gram, there @ (place / degree)[place > 0])
        products = np.zeros((len(degree), self.dimensions))
        products[:, : len(leading)] = (leading * folded[:, None]).T * degree[:, None]
        seen = np.isfinite(figures)
        count, mean = seen.sum(axis=0), np.nan_to_num(mean_by_source(figures))
        spread = np.sqrt(np.where(seen, np.square(figures - mean), 0.0).sum(axis=0) / np.maximum(count, 1))
        return np.column_stack([products, mean, spread, np.log1p(count)])


def _places(row: Array) -> Array:
    """Rank over count of what is known, the best 1; 0 where nothing is."""
    seen = np.isfinite(row)
    places = np.zeros(len(row))
    places[seen] = rankdata(row[seen]) / max(seen.sum(), 1)
    return places


def _kept(row: Array, given: Array) -> Array:
    return np.where(given, row, np.nan)
