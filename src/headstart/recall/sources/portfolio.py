"""Portfolio: a short list in which every past target finds a source that was nearly its best.

The greedy choice of Nemhauser, Wolsey and Fisher, "An analysis of approximations for maximizing submodular set
functions", Mathematical Programming 1978, as Feurer and others take it for configurations in "Auto-Sklearn 2.0", JMLR
2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Guess, Known, Needs
from headstart.numerics.records import Records


@dataclass(frozen=True, kw_only=True, slots=True)
class Portfolio:
    """Sources in the order in which they lower, one after the other, the mean regret of the list's best.

    Regret on a past target: how far the best source of the list lies below the best of all, in standard deviations. It
    is submodular, so the greedy list of any length comes within 1 - 1/e of the best list of that length. A source that
    was not tried on a target counts there as its worst.

    Shapes: records (T, S); at most min(T, S) rounds of T·S.
    Returns: values (S,): for a listed source, by how much it lowered the mean regret; for the others, minus their mean
    regret, which is below. Of equal gains the better mean wins. No errors.
    Errors: none of its own.

    It looks at no similarity, so it is for banks with few targets, and for trying several sources: the second one is
    good where the first is not.
    """

    needs = Needs(labels=False)
    claims = ("source_order", "target_order", "scale", "direction", "finds_the_best", "complements")
    cites = "arXiv:2007.04074"

    def __call__(self, records: Records, target: Known) -> Guess:  # noqa: ARG002  # the shape of its kind
        figures = records.standardised()
        seen = np.isfinite(figures)
        best = np.where(seen, figures, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
        worst = np.where(seen, figures, np.inf).min(axis=1, initial=np.inf, keepdims=True)
        asked = seen.any(axis=1)
        regret = (best - np.where(seen, figures, worst))[asked]
        cover = (best - worst)[asked][:, 0]
        known = np.asarray(seen.any(axis=0))
        mean = regret.mean(axis=0) if asked.any() else np.zeros(len(known))
        values = np.where(known, -mean, np.nan)
        left = known.copy()
        while left.any():
            gains = np.maximum(cover[:, None] - regret, 0.0).mean(axis=0)
            pick = max(np.flatnonzero(left), key=lambda s: (round(float(gains[s]), 12), -round(float(mean[s]), 12)))
            if gains[pick] <= 1e-12:
                break
            values[pick], left[pick] = gains[pick], False
            cover = np.minimum(cover, regret[:, pick])
        return Guess(values, facts={"listed": int((known & ~left).sum())})
