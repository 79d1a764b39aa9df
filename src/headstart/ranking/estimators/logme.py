"""LogME: the evidence of a Bayesian linear head on frozen features.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021; the fixed-point
iteration is of You et al., "Ranking and Tuning Pre-trained Models", JMLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import Array
from headstart.numerics.spectrum import Spectrum, Tridiagonal

MOST, FARTHEST = 0.99, 3.0  # what a step shrinks to is taken for less than itself; and how far one goes, in logs


@dataclass(frozen=True, kw_only=True, slots=True)
class LogME:
    """Log evidence of a Bayesian linear head, mean over rows and classes.

    Shapes: `view.moments` (D, D) when N >= D, else `view.features` (N, D) through their (N, N) kernel; memory
    O(min(N, D)²) float64, plus O(N·D) when N < D; time O(min(N, D)³) once, for all classes.
    Returns: nats a row, no per-row losses; compare sources of one target only.
    Errors: none of its own. Classes without rows, or with all of them, are left out; without any other, 0.

    Features and labels are centred, and the evidence is of the N - 1 directions that this leaves: an intercept that is
    integrated out. The published code has none; counting N there would reward wide noise when rows are few, since the
    direction that centring removed always fits. All D eigenvalues count: one that is zero adds log(alpha) - log(alpha)
    = 0, where the published code for N < D keeps only half of that and so prefers wide sources. Features are brought
    to unit length and values to unit variance first, so that no unit matters.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "jackknife",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2102.11005"

    iterations: int = 100
    # of the ratio alpha / beta, relative: how near the fixed point is, not how short the last step was
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.tolerance >= 0:
            raise Unfit(
                f"{self.iterations} iterations to a tolerance of {self.tolerance}",
                where="LogME(iterations=…, tolerance=…)",
                fix="use at least one iteration and a tolerance of 0 or more",
            )

    def __call__(self, view: View) -> Score:
        values = view.task == "regression"
        found = self._evidence(Tridiagonal.of_view(view).standardised(values=values))
        if np.isnan(found).any():  # fits so close that the short way would tell rounding
            found = self._evidence(Spectrum.of_view(view).standardised(values=values))
        return Score(float(found.mean()) if len(found) else 0.0)

    def _evidence(self, head: Tridiagonal | Spectrum) -> Array:
        """(K,) nats a row at the fixed point of t = alpha / beta, each column with its own.

        The published step shrinks by a nearly constant factor each time, often by little; so from the second on, the
        last two tell where it leads, and it is gone there at once.
        """
        n, columns, values = head.rows - 1, head.projected.shape[1], head.values[:, None]
        t, moving = np.ones(columns), np.arange(columns)
        last, gone = np.zeros(columns), np.zeros(columns)
        for _ in range(self.iterations):
            before = t[moving]
            size, error = head.ridge(before, moving)
            alpha = (values / (values + before)).sum(axis=0) / np.maximum(size, 1e-300)
            beta = head.freedom(before) / np.maximum(error, 1e-300)
            step = np.log(np.maximum(alpha, 1e-300) / np.maximum(beta, 1e-300)) - np.log(before)
            with np.errstate(divide="ignore", invalid="ignore"):
                factor = 1 + (step - last[moving]) / gone[moving]
            factor = np.clip(np.where(np.isfinite(factor), factor, 0.0), 0.0, MOST)
            far = np.clip(step / (1 - factor), -FARTHEST, FARTHEST)
            # the bounds hold where the evidence is flat: labels that are all noise, or none
            t[moving] = np.clip(before * np.exp(far), 1e-12, 1e12)
            last[moving], gone[moving] = step, np.log(t[moving] / before)
            moving = moving[np.abs(t[moving] - before) > self.tolerance * before]
            if not len(moving):
                break
        sizes, errors = head.ridge(t, np.arange(columns))
        loss = errors + t * sizes  # n / beta
        volume = np.log1p(values / t).sum(axis=0)
        return np.asarray(-0.5 * (np.log(2 * pi * np.maximum(loss, 1e-300) / n) + 1 + volume / n))
