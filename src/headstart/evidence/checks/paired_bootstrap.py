"""Paired bootstrap: is the difference of two systems on the same rows more than luck of the draw?

Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; for pairs of systems: Koehn, "Statistical Significance
Tests for Machine Translation Evaluation", EMNLP 2004.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import METRICS, Finding, Needs, Unfit
from headstart.numerics.bootstrap import gained

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedBootstrap:
    """Resample the test by groups within class, and see whether the gain keeps its sign.

    Shapes: chosen, opponent (rows, outputs); labels (rows,); groups (rows,). Cost draws × rows, memory 32 MB.
    Returns: a finding with `verdict`, `value`, `low`, `high`: `helps` where low > 0, `hurts` where high < 0, else
    `no-evidence`; the gain is metric(chosen) − metric(opponent), negated where lower is better.
    Errors: `Unfit` for settings out of range.

    The interval speaks about new rows of the same kind, for these two trained systems; with fewer than about 30 groups
    it is too narrow. With so few that a sign test could not say anything either (below 6, at 95 %) it is stretched to
    hold 0. `factor` widens it where systems were trained on overlapping rows (pooled outer folds).
    """

    needs = Needs(gives=("predictions",))
    claims = ("row_order", "swapping_negates", "class_names", "a_clear_gain_is_found")
    cites = "Koehn 2004"

    draws: int = 2000
    level: float = 0.95
    factor: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.draws >= 1 and 0 < self.level < 1 and self.factor >= 1):
            raise Unfit(
                f"draws {self.draws}, level {self.level}, factor {self.factor}: at least 1, inside (0, 1), at least 1",
                where="PairedBootstrap(draws=…, level=…, factor=…)",
                fix="use 2000, 0.95 and 1.0",
            )

    def __call__(self, chosen: Array, opponent: Array, labels: Array, groups: Sequence[str], metric: str) -> Finding:
        gain = gained(
            metric,
            labels,
            chosen,
            opponent,
            groups,
            factor=self.factor,
            level=self.level,
            draws=self.draws,
            seed=self.seed,
        )
        count = len(set(groups))
        low, high = gain.low, gain.high
        if few := 2 * 0.5**count > 1 - self.level:  # all of them one way may be luck
            low, high = min(low, 0.0), max(high, 0.0)
        verdict = "helps" if low > 0 else "hurts" if high < 0 else "no-evidence"
        sentence = (
            f"a gain of {gain.value:+.3f} in {METRICS[metric].title}, between {low:+.3f} and {high:+.3f} "
            f"({100 * self.level:g} % interval, {gain.rows:,} rows{', too few to exclude luck' * few})"
        )
        figures = {"verdict": verdict, "value": gain.value, "low": low, "high": high}
        counted = {"draws": self.draws, "factor": self.factor, "rows": gain.rows, "groups": count}
        return Finding("paired_bootstrap", sentence, figures | counted)
