"""Covariance alignment: whether two tasks spread over the same directions of one encoder's features.

Wu, Zhang and Ré, "Understanding and Improving Information Transfer in Multi-Task Learning", ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, TaskSample, Unfit
from headstart.numerics.moments import Array, Moments
from headstart.numerics.two_samples import require_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class CovarianceAlignment:
    """How far the second moments of two tasks' features lie along the same principal directions.

    Shapes: features (N, D), read in one pass; moments (D, D) float64, and one eigendecomposition.
    Returns: from 0 for features at right angles to 1 for the same ones up to a scale.
    Errors: `Unfit` for a share outside (0, 1], or without a row.

    As in the paper the moments are about 0, not about the mean, and few directions hold `share` of their trace. With
    A = U √Λ of one task and B of the other, this is |A'B| / √(|A'A| |B'B|) in Frobenius norms; the paper divides by
    |A| |B|, which for a task and itself is below 1 by as much as it has directions. No label is read. Features whose
    mean is large beside their spread make all tasks alike: look at the order then, not at the figures.
    """

    needs = Needs(gives=("features",), labels=False)
    claims = ("symmetric", "class_names", "halves_nearer", "row_order", "rotation", "scale")
    cites = "arXiv:2005.00944"

    # of the trace that the directions kept hold
    share: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise Unfit(
                f"share is {self.share}, and must be above 0 and at most 1",
                where="CovarianceAlignment(share=…)",
                fix="use 0.99, the default",
            )

    def embed(self, sample: TaskSample) -> dict[str, Array]:
        require_rows(len(sample), len(sample), 1, "covariance_alignment")
        x = np.asarray(sample.features, dtype=np.float64)
        x = x / (np.abs(x).max(initial=0.0) or 1.0)  # squares stay within float64
        m = Moments.of(x, np.zeros(len(x), dtype=np.int64), 1)
        assert m.gram is not None  # asked for by default
        across = np.outer(m.shift, m.total)
        second = (m.gram + across + across.T) / m.rows + np.outer(m.shift, m.shift)
        power, turn = np.linalg.eigh(second)
        power, turn = np.maximum(power[::-1], 0.0), turn[:, ::-1]
        whole = float(power.sum())
        kept = int(np.searchsorted(power.cumsum(), self.share * whole * (1 - 1e-12))) + 1 if whole > 0 else 1
        return {"axes": turn[:, :kept] * np.sqrt(power[:kept])}

    def __call__(self, source: Mapping[str, Array], target: Mapping[str, Array]) -> float:
        a, b = source["axes"], target["axes"]
        both, own = float(np.linalg.norm(a.T @ b)), float(np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
        return min(both / float(np.sqrt(own)), 1.0) if own > 0 else 0.0
