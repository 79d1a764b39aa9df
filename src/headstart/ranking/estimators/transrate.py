"""TransRate: how much shorter a code of the features is when the classes are known.

Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import cholesky
from scipy.linalg.blas import dsyrk

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import PANEL_ROWS, Array, slices
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class TransRate:
    """Rate of coding all features, less that of coding each class, less what shuffled labels give.

    Shapes: features (N, D), in float64 a panel of rows at a time; (permutations + 1) × classes log-determinants on the
    smaller side, O(min(n, D)³) each.
    Returns: nats; no per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` for a distortion that is not above 0, or a negative number of permutations.

    The raw difference grows with the width whatever the features say; its mean over shuffled labels is taken off.
    Distances are in units of the features' mean variance, so that no unit matters. With the published distortion, 1e-4,
    the rate of a class with about as many rows as dimensions hangs on its smallest eigenvalue, which is chance; with 1
    it does not. The paper's score is `distortion=1e-4, permutations=0`. Classes are centred at the mean of all rows, as
    published.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal",
        "width_safe", "falls_with_label_noise", "null_of_shuffled_labels", "jackknife",
    )  # fmt: skip
    cites = "arXiv:2106.09362"

    # of the code, in mean variances
    distortion: float = 1.0
    # how the classes' rates are averaged: equally, as published, or by their rows
    weights: Literal["equal", "rows"] = "equal"
    # of the labels, whose mean is taken off
    permutations: int = 20

    def __post_init__(self) -> None:
        if not self.distortion > 0 or self.permutations < 0:
            raise Unfit(
                f"distortion {self.distortion}, permutations {self.permutations}",
                where="TransRate(distortion=…, permutations=…)",
                fix="use 1 and 20, the defaults",
            )

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        moments, labels = view.class_moments, np.asarray(view.labels)
        alive = np.flatnonzero(moments.inverse_deviation())
        if not len(alive):
            return Score(0.0)
        unit = float(moments.variance[alive].mean()) * self.distortion
        rows = _Rows(view.features, alive, moments.mean[alive], unit)
        if not self.permutations:
            return Score(rows.rate(np.arange(len(labels))) - self._by_class(rows, labels))
        # an order that neither the rows' own nor a rotation changes, so that the shuffles do not either
        order = np.argsort(rows.lengths(), kind="stable")
        chance, shuffled = np.random.default_rng(0), np.empty_like(labels)
        rates = []
        for _ in range(self.permutations):
            shuffled[order] = chance.permutation(labels[order])
            rates.append(self._by_class(rows, shuffled))
        return Score(float(np.mean(rates)) - self._by_class(rows, labels))

    def _by_class(self, rows: _Rows, labels: Array) -> float:
        classes, counts = np.unique(labels, return_counts=True)
        rates = [rows.rate(np.flatnonzero(labels == c)) for c in classes]
        return float(np.average(rates, weights=counts if self.weights == "rows" else None))


@dataclass(frozen=True, eq=False, slots=True)
class _Rows:
    """Features less their mean, those dimensions that vary; float64, panel by panel. unit: of their squares."""

    features: Array
    alive: Array
    mean: Array
    unit: float

    def take(self, at: Array) -> Array:
        chosen = self.features[at]
        u = np.array(chosen if len(self.alive) == chosen.shape[1] else chosen[:, self.alive], dtype=np.float64)
        u -= self.mean
        return u

    def lengths(self) -> Array:
        """(N,) squared."""
        panels = (self.take(np.arange(s.start, s.stop)) for s in slices(len(self.features), PANEL_ROWS))
        return np.concatenate([np.vecdot(u, u) for u in panels])

    def rate(self, at: Array) -> float:
        """½ log det(I + F'F / n) of these rows, on the smaller side."""
        if len(at) < len(self.alive):
            u = self.take(at)
            gram = u @ u.T
        else:
            gram = np.zeros((len(self.alive),) * 2, order="F")
            for s in slices(len(at), PANEL_ROWS):
                gram = dsyrk(1.0, self.take(at[s]).T, beta=1.0, c=gram, overwrite_c=True)  # the upper half
        gram /= len(at) * self.unit
        gram.flat[:: len(gram) + 1] += 1.0
        root = cholesky(gram, overwrite_a=True, check_finite=False)
        return float(np.log(np.diagonal(root)).sum())
