"""TransRate: how much shorter a code of the features is when the classes are known.

Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import Array
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class TransRate:
    """Rate of coding all features, less that of coding each class, less what shuffled labels give.

    Shapes: features (N, D), one centred float64 copy; (permutations + 1) × classes log-determinants on the smaller
    side, O(min(n, D)³) each.
    Returns: nats; no per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` for a distortion that is not above 0, or a negative number of permutations.

    The raw difference grows with the width whatever the features say (the paper's is `permutations=0`); its mean over
    shuffled labels is taken off. Noise of a width of its own remains in it, so with fewer rows than dimensions prefer
    held-out scores. Distances are in units of the features' mean variance, so that no unit matters. Classes are
    centred at the mean of all rows, as published.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = ("row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal")
    cites = "arXiv:2106.09362"

    # of the code, in mean variances
    distortion: float = 1e-4
    # how the classes' rates are averaged: equally, as published, or by their rows
    weights: Literal["equal", "rows"] = "equal"
    # of the labels, whose mean is taken off
    permutations: int = 20

    def __post_init__(self) -> None:
        if not self.distortion > 0 or self.permutations < 0:
            raise Unfit(
                f"distortion {self.distortion}, permutations {self.permutations}",
                where="TransRate(distortion=…, permutations=…)",
                fix="use 1e-4 and 20, the defaults",
            )

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        f = np.asarray(view.features, dtype=np.float64)
        f = f - f.mean(axis=0)
        alive = np.abs(f).max(axis=0) > 1e-9 * np.abs(view.features).max(axis=0)
        lengths = np.square(f[:, alive]).sum(axis=1)
        if not alive.any() or not lengths.any():
            return Score(0.0)
        level = lengths.sum() / (len(f) * alive.sum())
        # an order that neither the rows' own nor a rotation changes, so that the shuffles do not either
        order = np.argsort(lengths, kind="stable")
        f = f[order][:, alive] / np.sqrt(level * self.distortion)
        labels = np.asarray(view.labels)[order]
        chance = np.random.default_rng(0)
        shuffled = [self._by_class(f, chance.permutation(labels)) for _ in range(self.permutations)]
        known = self._by_class(f, labels)
        return Score(float(np.mean(shuffled)) - known if shuffled else _rate(f) - known)

    def _by_class(self, f: Array, labels: Array) -> float:
        classes, counts = np.unique(labels, return_counts=True)
        rates = [_rate(f[labels == c]) for c in classes]
        return float(np.average(rates, weights=counts if self.weights == "rows" else None))


def _rate(f: Array) -> float:
    """½ log det(I + F'F / n) of rows in units of the distortion."""
    rows, width = f.shape
    gram = (f @ f.T if rows < width else f.T @ f) / rows
    gram.flat[:: len(gram) + 1] += 1.0
    return 0.5 * float(np.linalg.slogdet(gram)[1])
