"""Proxy A-distance: how well a linear classifier tells two data sets apart on rows that it has not seen.

Ben-David et al., "A theory of learning from different domains", Machine Learning 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from headstart.core import Needs, Sample, Unfit
from headstart.numerics.moments import Array
from headstart.numerics.two_samples import on_one_scale, require_one, require_rows, some


@dataclass(frozen=True, kw_only=True, slots=True)
class ProxyA:
    """2 (1 - 2 error) of a held-out logistic regression that says which of the two sets a row is of.

    Shapes: features (N, D) and (M, D), at most `rows` of each, drawn with `seed`; `folds` fits, each O((N + M)·D).
    Returns: 0 where no better than chance, to 2 where never wrong.
    Errors: `Unfit` for fewer than 2 rows on a side.

    The error is the mean of those on the two sets, and the fits weigh both alike: with unequal sets, to say always the
    larger would else look like skill. Equal rows are in one fold, so that copies are not told apart by heart. Folds are
    dealt along the sorted rows; a turned space is dealt otherwise, and the distance moves a little.
    Sets that a line separates are all at 2, and cannot be ordered by it.
    """

    needs = Needs(gives=("features",), labels=False)
    claims = ("symmetric", "row_order", "scale", "translation", "grows_with_shift")
    cites = "doi:10.1007/s10994-009-5152-4"

    folds: int = 5
    # inverse strength of the L2 penalty, on features of variance 1 in all
    strength: float = 10.0
    rows: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require_one(self.strength, "strength", "ProxyA(strength=…)", 10.0)
        if min(self.folds, self.rows) < 2:
            raise Unfit(
                f"{self.folds} folds of {self.rows} rows",
                where="ProxyA(folds=…, rows=…)",
                fix="use 2 or more of each; the defaults are 5 and 1000",
            )

    def __call__(self, source: Sample, target: Sample) -> float:
        require_rows(len(source), len(target), 2, "proxy_a")
        a, b = on_one_scale(*(s.features[some(len(s), self.rows, self.seed)] for s in (source, target)))
        x, of = np.concatenate([a, b]), np.repeat([0, 1], [len(a), len(b)])
        order = np.lexsort((of, *x.T[::-1]))  # the fit and the folds do not depend on how the rows lie
        x, of = x[order], of[order]
        wrong, dealt = np.full(len(x), 0.5), self._dealt(x, of)
        for fold in range(self.folds):
            train = dealt != fold
            if len(np.unique(of[train])) == 2 and not train.all():
                made = LogisticRegression(C=self.strength, class_weight="balanced", max_iter=1000)
                side = made.fit(x[train], of[train]).decision_function(x[~train])
                wrong[~train] = np.where(side == 0, 0.5, (side > 0) != of[~train])
        error = (wrong[of == 0].mean() + wrong[of == 1].mean()) / 2
        return max(float(2 * (1 - 2 * error)), 0.0)

    def _dealt(self, x: Array, of: Array) -> Array:
        """(rows,) the fold of each row: those in both sets are dealt first, then those of each alone."""
        _, number = np.unique(x, axis=0, return_inverse=True)
        held = np.stack([np.bincount(number[of == side], minlength=number.max() + 1) > 0 for side in (0, 1)])
        place = np.zeros(held.shape[1], dtype=np.int64)
        shared = held.all(axis=0)
        place[shared] = np.arange(shared.sum())
        for side in (0, 1):
            alone = held[side] & ~shared
            place[alone] = shared.sum() + np.arange(alone.sum())
        return np.asarray(place[number] % self.folds)
