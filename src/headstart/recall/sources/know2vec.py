"""Know2Vec: sources by what they decide about fixed probes, aligned with tasks by what the bank remembers.

Shang, Liu, Liu, Gu, Ding and Ji, "Know2Vec: A Black-Box Proxy for Neural Network Retrieval", AAAI 2025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Guess, Known, Needs, Unfit
from headstart.numerics.alignment import Coordinates, ridge_without_groups
from headstart.numerics.records import Records, mean_by_source, nearness

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Know2Vec:
    """Ridge regression of past figures on products of the sources' decision vectors and their targets' coordinates.

    figure(t, s) = u(t)' A v(s): v the leading principal components of the vectors, u a 1 and those of the similarities
    among targets, on which the new target is placed by its own. The strength is the one that predicts best the figures
    of sources that were left out with all they have. No source is queried for the new target.

    Shapes: records (T, S), vectors (S, V), similarities (T,) and (T, T); N figures are a regression of
    (N, (1 + dimensions) · dimensions).
    Returns: values (S,), and one standard error for all: of the figures of a source that was left out. A source with a
    vector needs no record of its own; one without gets the mean of its figures. Where nothing is known of similarities,
    u is 1 for all targets.
    Errors: `Unfit` below `least_models` sources with a vector or `least_targets` targets, and for settings that cannot
    be.

    The paper trains two networks into one space, with triplets, and describes a data set by relations within it; here
    both sides are linear, and targets are described by their signatures. Its zoos hold hundreds of models.
    """

    needs = Needs(labels=False)
    claims = ("source_order", "target_order", "scale", "direction", "follows_the_vectors")
    cites = "arXiv:2412.16251"

    # of either side
    dimensions: int = 16
    # with a vector and a record
    least_models: int = 30
    least_targets: int = 5
    # multiples of the mean squared length of a row of the regression
    penalties: tuple[float, ...] = (1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3)

    def __post_init__(self) -> None:
        bad = self.dimensions < 1 or self.least_models < 2 or self.least_targets < 1
        if bad or not self.penalties or not min(self.penalties) > 0:
            raise Unfit(
                f"dimensions {self.dimensions}, least_models {self.least_models}, least_targets {self.least_targets} "
                f"and penalties {self.penalties} cannot be",
                where="Know2Vec(dimensions=…, least_models=…, least_targets=…, penalties=…)",
                fix="use 16, 30, 5 and multiples above 0",
            )

    def __call__(self, records: Records, target: Known) -> Guess:
        figures = records.standardised()
        seen = np.isfinite(figures)
        vectors = np.full((seen.shape[1], 1), np.nan) if target.vectors is None else np.asarray(target.vectors)
        told = np.isfinite(vectors).all(axis=1)
        both = int((told & seen.any(axis=0)).sum())
        self._enough(both, int(seen[:, told].any(axis=1).sum()), int(seen.any(axis=0).sum()))
        sources = Coordinates.of(vectors[told] @ vectors[told].T, self.dimensions).at
        targets, here = self._tasks(records, target)
        t, s = np.nonzero(seen[:, told])
        wanted = figures[:, told][t, s]
        fitted = ridge_without_groups(_pairs(targets[t], sources[s]), wanted, s, self.penalties)
        values = mean_by_source(figures)
        values[told] = _pairs(np.tile(here, (len(sources), 1)), sources) @ fitted.weights
        error, total = (float(np.square(x).mean()) for x in (fitted.left_out, wanted))
        return Guess(
            values,
            np.where(np.isfinite(values), np.sqrt(error), np.nan),
            {
                "models": both,
                "penalty": fitted.penalty,
                # of sources that were left out: 0 is as good as no vector
                "explained": 1 - error / total if total > 0 else 0.0,
            },
        )

    def _tasks(self, records: Records, target: Known) -> tuple[Array, Array]:
        """(T, k) of the past targets and (k,) of the new one: a 1, and its place among them as far as that is known."""
        near, between = nearness(records, target)
        constant = np.ones((len(near), 1))
        if between is None or not np.isfinite(near).any():
            return constant, np.ones(1)
        between = np.where(np.eye(len(near), dtype=bool) & np.isnan(between), 1.0, between)
        alike = np.where(np.isnan(between), np.nanmean(between), between)
        places = Coordinates.of((alike + alike.T) / 2, self.dimensions)
        here = places.of_new(np.where(np.isfinite(near), near, np.nanmean(near)))
        return np.hstack([constant, places.at]), np.concatenate([[1.0], here])

    def _enough(self, models: int, targets: int, every: int) -> None:
        if models < self.least_models or targets < self.least_targets:
            raise Unfit(
                f"{models} of {every} sources have a vector, with records of {targets} targets; that is too few to "
                "align",
                where="Know2Vec(least_models=…, least_targets=…)",
                fix=f"bring {self.least_models} such sources and {self.least_targets} targets: ask sources with "
                "`headstart inventory ask`; until then use `nearest_tasks`",
            )


def _pairs(targets: Array, sources: Array) -> Array:
    """(N, k · d) products of each number of a target with each of a source."""
    return np.asarray((targets[:, :, None] * sources[:, None, :]).reshape(len(targets), -1))
