"""McNemar's test: of the rows on which two systems differ, how many went each way?

McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947; the exact
binomial form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from headstart.core import Finding, Needs
from headstart.numerics.metrics import predicted

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class McNemar:
    """Count the rows that only one of two systems gets right; exact and two-sided.

    Shapes: chosen, opponent (rows, classes); labels (rows,) class numbers. Cost and memory: rows.
    Returns: a finding with `only_chosen`, `only_opponent` (rows that just one gets right) and `p`.
    Errors: none.

    About accuracy whatever the target's metric, and about independent rows: with groups of several rows p is too
    small, and the finding says so. It stands beside the verdict and decides nothing.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label",))
    claims = ("row_order", "class_names", "a_clear_gain_is_found")
    cites = "McNemar 1947"

    def __call__(
        self,
        chosen: Array,
        opponent: Array,
        labels: Array,
        groups: Sequence[str],
        metric: str,  # noqa: ARG002  # the kind's shape
    ) -> Finding:
        mine, theirs = predicted(chosen) == labels, predicted(opponent) == labels
        b, c = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
        p = float(binomtest(b, b + c).pvalue) if b + c else 1.0
        grouped = len(set(groups)) < len(labels)
        shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        sentence = f"{b} rows only the chosen system gets right, {c} only the opponent; {shown} for accuracy" + (
            ", too small because rows come in groups" if grouped else ""
        )
        return Finding("mcnemar", sentence, {"only_chosen": b, "only_opponent": c, "p": p, "grouped": grouped})
