"""LogME: the evidence of a Bayesian linear head on frozen features.

You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021; the fixed-point
iteration is of You et al., "Ranking and Tuning Pre-trained Models", JMLR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import Array
from headstart.numerics.spectrum import Spectrum


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
    )  # fmt: skip
    cites = "arXiv:2102.11005"

    iterations: int = 100
    # of the ratio alpha / beta, relative
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.tolerance >= 0:
            raise Unfit(
                f"{self.iterations} iterations to a tolerance of {self.tolerance}",
                where="LogME(iterations=…, tolerance=…)",
                fix="use at least one iteration and a tolerance of 0 or more",
            )

    def __call__(self, view: View) -> Score:
        spectrum, rows = Spectrum.of_view(view), len(view.features)
        energy = spectrum.shares.sum(axis=0) + spectrum.rest
        varying = energy > 0
        if not varying.any():
            return Score(0.0)
        unit = rows / energy[varying] if view.task == "regression" else 1.0
        scaled = replace(
            spectrum,
            values=spectrum.values / spectrum.level,
            shares=spectrum.shares[:, varying] * unit,
            rest=spectrum.rest[varying] * unit,
        )
        return Score(float(self._evidence(scaled).mean()))

    def _evidence(self, spectrum: Spectrum) -> Array:
        """(K,) nats a row at the fixed point of t = alpha / beta, each column with its own."""
        n, values = spectrum.rows - 1, spectrum.values[:, None]
        t = np.ones(len(spectrum.rest))
        for _ in range(self.iterations):
            size = (spectrum.shares * values / (values + t) ** 2).sum(axis=0)  # of the mean weights, squared
            alpha = (values / (values + t)).sum(axis=0) / np.maximum(size, 1e-300)
            beta = spectrum.freedom(t) / np.maximum(spectrum.residuals(t), 1e-300)
            # the bounds hold where the evidence is flat: labels that are all noise, or none
            before, t = t, np.clip(alpha / np.maximum(beta, 1e-300), 1e-12, 1e12)
            if (np.abs(t - before) <= self.tolerance * before).all():
                break
        loss = spectrum.rest + (spectrum.shares * t / (values + t)).sum(axis=0)  # residual + t * size: n / beta
        volume = np.log1p(values / t).sum(axis=0)
        return np.asarray(-0.5 * (np.log(2 * pi * np.maximum(loss, 1e-300) / n) + 1 + volume / n))
