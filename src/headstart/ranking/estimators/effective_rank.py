"""Effective rank: how many directions the features use.

Roy and Vetterli, "The Effective Rank: A Measure of Effective Dimensionality", EUSIPCO 2007; as a label-free score of
encoders, Garrido et al., "RankMe", ICML 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigvalsh

from headstart.core import Needs, Score, View
from headstart.numerics.spectrum import two_rows_a_dimension


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectiveRank:
    """Exponential of the entropy of the singular values: a collapsed encoder uses few of its dimensions.

    Shapes: features (N, D), centred; eigenvalues of the smaller of (D, D) and (N, N), float64.
    Returns: from 1 to min(N - 1, D); 0 where nothing varies; no per-row losses.
    Errors: `Unfit` for fewer than two rows for each dimension: it is then a number of rows.

    Reads no labels, so it can be had where there are none. It says nothing of the task, and noise has the highest rank:
    it tells collapsed encoders of one family from sound ones, and no more.
    """

    needs = Needs(gives=("features",), labels=False)
    claims = ("row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "jackknife")
    cites = "arXiv:2210.02885"

    def __call__(self, view: View) -> Score:
        f = np.asarray(view.features, dtype=np.float64)
        f = f - f.mean(axis=0)
        largest = np.abs(view.features).max(initial=0.0)
        if np.abs(f).max(initial=0.0) <= 1e-9 * largest:
            return Score(0.0)
        values = np.maximum(eigvalsh(f @ f.T if len(f) < f.shape[1] else f.T @ f, check_finite=False), 0.0)
        values = values[values > max(f.shape) * np.finfo(np.float64).eps * values[-1]]
        two_rows_a_dimension(len(values), len(f), "`effective_rank`", "estimators that read labels")
        share = np.sqrt(values) / np.sqrt(values).sum()
        return Score(float(np.exp(-(share * np.log(share)).sum())))
