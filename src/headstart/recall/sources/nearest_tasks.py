"""Nearest tasks: what each source did on the past targets that are most like the new one.

The neighbours of tasks that meta-learning for the choice of configurations goes by: Feurer, Springenberg and Hutter,
"Initializing Bayesian Hyperparameter Optimization via Meta-Learning", AAAI 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Guess, Known, Needs, Unfit
from headstart.numerics.records import Records, nearness, novel

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class NearestTasks:
    """Mean of each source's past figures, weighted by how alike their targets are to the new one.

    Figures are in standard deviations within their target. Weights are a softmax of similarity / bandwidth over past
    targets, to which every record adds `general` in all; so a source that was tried on far targets alone falls back to
    its mean. Where the new target is novel (its nearest past target is farther than the nearest of nearly all past
    targets), or nothing is known of similarities, all targets weigh the same, and the guess is the mean of the source.

    Shapes: records (T, S), similarities (T,); cost T·S, and T²·S where similarities come from figures.
    Returns: values (S,), and standard errors of a new target's value: pooled spread · √(1 + 1 / effective targets).
    Errors: `Unfit` when bandwidth is not above 0, general is below 0, or novelty lies outside (0, 1].

    The papers take a fixed number of neighbours; a kernel has no edge at which a target enters or leaves.
    """

    needs = Needs(labels=False)
    claims = ("source_order", "target_order", "scale", "direction", "finds_the_best", "follows_the_near")
    cites = "doi:10.1609/aaai.v29i1.9354"

    # in the units of the similarities: of two targets this far apart, one weighs e times the other
    bandwidth: float = 0.1
    # weight of a source's mean over all its targets, where all targets' own weights make 1
    general: float = 0.1
    # share of past targets that lie nearer to their nearest than a novel target does to its own
    novelty: float = 0.95

    def __post_init__(self) -> None:
        if not (self.bandwidth > 0 and self.general >= 0 and 0 < self.novelty <= 1):
            raise Unfit(
                f"bandwidth {self.bandwidth}, general {self.general} and novelty {self.novelty} cannot be",
                where="NearestTasks(bandwidth=…, general=…, novelty=…)",
                fix="use 0.1, 0.1 and 0.95, the defaults",
            )

    def __call__(self, records: Records, target: Known) -> Guess:
        figures = records.standardised()
        seen = np.isfinite(figures)
        near, between = nearness(records, target)
        far = novel(near, between, self.novelty)
        weights = self._weights(near, far)
        tried = seen.sum(axis=0)
        kernel = seen * (weights[:, None] + self.general / np.maximum(tried, 1))
        kernel = np.where(kernel.sum(axis=0) > 0, kernel, seen)  # tried on targets of no weight alone
        total = kernel.sum(axis=0)
        known = total > 0
        shares = kernel / np.where(known, total, 1.0)
        filled = np.where(seen, figures, 0.0)
        values = (shares * filled).sum(axis=0)
        effective = 1 / np.where(known, np.square(shares).sum(axis=0), 1.0)
        rest = (shares * np.square(filled - values)).sum()
        freedom = (1 - 1 / effective)[known].sum()
        variance = rest / freedom if freedom > 1e-9 else 1.0  # the variance of standardised figures, for want of pairs
        return Guess(
            np.where(known, values, np.nan),
            np.where(known, np.sqrt(variance * (1 + 1 / effective)), np.nan),
            {"novel": far, "effective_targets": float(1 / np.square(weights).sum())},
        )

    def _weights(self, near: Array, far: bool) -> Array:
        known = np.isfinite(near)
        if far or not known.any():
            return np.full(len(near), 1 / len(near))
        lifted = np.exp((np.where(known, near, -np.inf) - near[known].max()) / self.bandwidth)
        return np.asarray(lifted / lifted.sum())
