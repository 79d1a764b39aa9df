"""Calibration: does a system that says 80 % turn out right 80 % of the time?

Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015 (ECE); Kumar,
Liang and Ma, "Verified Uncertainty Calibration", NeurIPS 2019 (equal-mass bins, the debiased estimate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Finding, Needs, Unfit
from headstart.numerics.metrics import value

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Compare stated confidence with how often it is right, in bins of equal mass.

    Shapes: chosen, opponent (rows, classes) probabilities; labels (rows,) class numbers. Cost rows × classes.
    Returns: a finding with `ece` (mean gap), `ece_debiased` (root of the mean squared gap, less what chance alone
    puts into it; 0 where nothing is left), `brier`, `nll`, `confidence`, `accuracy`, `curve`, and the first four of the
    opponent.
    Errors: `Unfit` for fewer than one bin.

    Confidence is the probability of the predicted class. Nothing is fitted on these rows, so a temperature must have
    been fitted elsewhere. With few rows `ece` is mostly chance: read `ece_debiased`. Rows of equal confidence are
    never cut apart, so there may be fewer bins.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label",))
    claims = ("row_order", "class_names")
    cites = "arXiv:1909.10155"

    bins: int = 15

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise Unfit(f"{self.bins} bins", where="Calibration(bins=…)", fix="use 15")

    def __call__(
        self,
        chosen: Array,
        opponent: Array,
        labels: Array,
        groups: Sequence[str],  # noqa: ARG002  # the kind's shape
        metric: str,  # noqa: ARG002  # the kind's shape
    ) -> Finding:
        mine, theirs = self._figures(chosen, labels), self._figures(opponent, labels)
        said, was = 100 * mine["confidence"], 100 * mine["accuracy"]
        sentence = (
            f"says {said:.0f} % on average and is right {was:.0f} % of the time; "
            f"ECE {mine['ece']:.3f}, debiased {mine['ece_debiased']:.3f}"
        )
        beside = {name: theirs[name] for name in ("ece", "ece_debiased", "brier", "nll")}
        return Finding("calibration", sentence, {**mine, "opponent": beside, "rows": len(labels)})

    def _figures(self, table: Array, labels: Array) -> dict[str, Any]:
        table = np.asarray(table, dtype=np.float64)
        confidence, right = table.max(axis=1), (table.argmax(axis=1) == labels).astype(np.float64)
        order = np.argsort(confidence, kind="stable")
        parts = [(confidence[rows], right[rows]) for rows in np.split(order, self._cuts(confidence[order]))]
        rows = np.array([len(c) for c, _ in parts])
        said = np.array([c.mean() for c, _ in parts])
        was = np.array([r.mean() for _, r in parts])
        gap, mass = np.abs(said - was), rows / rows.sum()
        chance = was * (1 - was) / np.maximum(rows - 1, 1)  # variance of each bin's accuracy, estimated in it
        own = table[np.arange(len(labels)), labels]
        return {
            "ece": float(mass @ gap),
            "ece_debiased": float(np.sqrt(max(0.0, mass @ (gap**2 - chance)))),
            "brier": float(((table**2).sum(axis=1) - 2 * own + 1).mean()),
            "nll": value("log_loss", labels, table),
            "confidence": float(confidence.mean()),
            "accuracy": float(right.mean()),
            "curve": [
                {"confidence": float(s), "accuracy": float(w), "rows": int(n)}
                for s, w, n in zip(said, was, rows, strict=True)
            ],
        }

    def _cuts(self, ascending: Array) -> Array:
        """Where a new bin starts: bins of equal mass, of two rows at least, moved to where a new value begins."""
        n = len(ascending)
        bins = min(self.bins, max(1, n // 2))
        wanted = np.arange(1, bins) * n // bins
        moved = np.searchsorted(ascending, ascending[wanted], side="left")
        return np.unique(moved[moved > 0])
