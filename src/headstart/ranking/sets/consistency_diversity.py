"""Consistency and diversity: sources that together see most of what there is to see in the target's rows.

Xu, Shi, Wei, Mu, Li and Liang, "Towards Few-Shot Adaptation of Foundation Models via Multitask Finetuning", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from headstart.core import Candidate, Needs, SetFunction, Unfit
from headstart.numerics.moments import Array
from headstart.numerics.similarity import centred
from headstart.numerics.some_rows import evenly


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsistencyDiversity:
    """The share of the variance of the target's features, as all candidates see them, that the set's members span.

    Shapes: features (N, D), at most `rows` of them; (rows, rows) float64 for all candidates and (rows, directions) for
    each; time O(rows²·D + rows³) a source, O(rows²·directions) for each member of a set.
    Returns: coverage tr(P_S K) / tr(K), 0 … 1: K is the mean over candidates of their centred Gram matrices of rows,
    each of trace 1, and P_S projects onto the leading directions of the members.
    Errors: `Unfit` for a threshold beyond −1 … 1, or when no directions or rows are asked for.

    The paper chooses data sets in the space of one encoder; sources have spaces of their own, and share the rows. So
    the ellipsoid is that of the rows, and each source spans as many directions of it, or wide noise would cover most. A
    source is consistent when the mean features of its own rows and of the target's have a cosine of at least
    `consistency`; one whose own rows are not at hand counts as consistent, and one that is not covers nothing. In
    `rank`, own rows come from `--datasets`: from the data sets that are called like sources. The released code
    estimates densities instead, and rejects by thresholds fixed for its data. Reads no labels: it says which sources
    see different things, not whether these matter. Values depend on who else is a candidate.
    """

    needs = Needs(
        gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"), labels=False, own_rows=True
    )
    claims = ("monotone", "candidate_order", "class_names", "duplicate_adds_nothing")
    cites = "arXiv:2402.15017"

    # the least cosine of mean features, −1 … 1
    consistency: float = 0.0
    # that each source spans, and no more than an eighth of the rows
    directions: int = 16
    # the most rows that are looked at, evenly over the folds
    rows: int = 500

    def __post_init__(self) -> None:
        if not -1 <= self.consistency <= 1 or self.directions < 1 or self.rows < 1:
            raise Unfit(
                f"consistency {self.consistency}, directions {self.directions}, rows {self.rows}",
                where="ConsistencyDiversity(consistency=…, directions=…, rows=…)",
                fix="use 0, 16 and 500, the defaults",
            )

    def __call__(self, candidates: Sequence[Candidate]) -> SetFunction:
        if not candidates:
            return lambda _: 0.0
        folds = candidates[0].folds
        some = evenly(folds, folds, self.rows)
        most = max(1, min(self.directions, len(some) // 8))
        pool = np.zeros((len(some), len(some)))
        spans = []
        for candidate in candidates:
            kernel = _kernel(candidate.features[some])
            pool += kernel
            spans.append(_leading(kernel, most if self._consistent(candidate) else 0))
        whole = float(np.trace(pool))

        def value(members: Sequence[int]) -> float:
            if not members or not whole:
                return 0.0
            u, sizes, _ = np.linalg.svd(np.hstack([spans[i] for i in sorted(members)]), full_matrices=False)
            basis = u[:, sizes > 1e-6]  # a copy's directions are there already, but for rounding
            return float((basis * (pool @ basis)).sum()) / whole

        return value

    def _consistent(self, candidate: Candidate) -> bool:
        if candidate.own is None:
            return True
        theirs, ours = np.asarray(candidate.own[0], dtype=np.float64).mean(axis=0), candidate.moments.mean
        lengths = float(np.linalg.norm(theirs) * np.linalg.norm(ours))
        return (float(theirs @ ours) / lengths if lengths else 0.0) >= self.consistency


def _kernel(features: Array) -> Array:
    """The centred Gram matrix of rows, with trace 1; zeros where nothing varies."""
    f = centred(features)
    f = f / (np.abs(f).max(initial=0.0) or 1.0)
    return np.asarray(f @ f.T / (np.square(f).sum() or 1.0))


def _leading(kernel: Array, most: int) -> Array:
    """(rows, directions) orthonormal, of the largest eigenvalues."""
    rows = len(kernel)
    if not most:
        return np.zeros((rows, 0))
    values, vectors = eigh(kernel, subset_by_index=[rows - most, rows - 1])
    return np.asarray(vectors[:, values > 1e-9])
