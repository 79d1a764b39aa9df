"""Maximum mean discrepancy: how far the means of two samples are in the space of a Gaussian kernel.

Gretton et al., "A Kernel Two-Sample Test", JMLR 2012.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Sample
from headstart.numerics.two_samples import on_one_scale, require_one, require_rows, some, squared_distances


@dataclass(frozen=True, kw_only=True, slots=True)
class MMD:
    """Squared maximum mean discrepancy of the features with a Gaussian kernel, its width the median distance.

    Shapes: features (N, D) and (M, D), at most `rows` of each, drawn with `seed`; memory O((N + M)²) float64.
    Returns: the unbiased estimate, or 0 where that is below 0; less than 2.
    Errors: `Unfit` for fewer than 2 rows on a side.

    The biased form, as much code has it, falls with the number of rows, so that a large set seems nearer than a small
    one of the same kind; the unbiased one is 0 on average for two samples of one kind, and those that chance puts below
    0 are all as near as can be told. The kernel is exp(-d² / 2w²), w the median distance within both sets together.
    """

    needs = Needs(gives=("features",), labels=False)
    claims = ("symmetric", "row_order", "rotation", "scale", "translation", "grows_with_shift")
    cites = "arXiv:0805.2368"

    rows: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require_one(self.rows - 1, "rows less one", "MMD(rows=…)", 999)

    def __call__(self, source: Sample, target: Sample) -> float:
        require_rows(len(source), len(target), 2, "mmd")
        a, b = on_one_scale(*(s.features[some(len(s), self.rows, self.seed)] for s in (source, target)))
        n, both = len(a), np.concatenate([a, b])
        distances = squared_distances(both, both)
        pairs = distances[np.triu_indices(len(both), 1)]
        width = float(np.median(pairs)) or float(pairs.mean())  # more than half may be copies of one row
        if width == 0:
            return 0.0
        kernel = np.exp(-distances / (2 * width))
        within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel[:n, :n], kernel[n:, n:])]
        return max(float(within[0] + within[1] - 2 * kernel[:n, n:].mean()), 0.0)
