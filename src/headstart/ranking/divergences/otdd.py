"""OTDD: transport between labelled rows, where a label costs what its class's features cost to move.

Alvarez-Melis and Fusi, "Geometric Dataset Distances via Optimal Transport", NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Sample, Unfit
from headstart.numerics.moments import Array
from headstart.numerics.transport import Gaussian, debiased, squared_bures_wasserstein
from headstart.numerics.two_samples import on_one_scale, require_one, require_rows, some, squared_distances


@dataclass(frozen=True, kw_only=True, slots=True)
class OTDD:
    """Debiased entropic transport at |x - x'|² plus the squared 2-Wasserstein distance of the two rows' classes.

    Shapes: features (N, D), labels (N,), likewise M of the target; at most `rows` of each, drawn with `seed`; a few
    (rows, rows) float64, and singular values for each pair of classes, also of one set.
    Returns: a squared distance, in units of the variance of both sets together.
    Errors: `Unfit` for a set without labels, or no rows on a side.

    A class is a Gaussian with the moments of its rows, so that class names and their number do not matter; a class of
    one row is a point, where the published code drops such rows. Roots of covariances are not formed, so that classes
    with fewer rows than dimensions need no care. The blur is half the mean squared distance of two rows; with the
    published 0.1, two samples of one kind are far apart in many dimensions. Works on single-label data alone: numbers
    have no classes, and bins would make the distance depend on where they are cut.
    """

    needs = Needs(gives=("features",), tasks=("single_label",))
    claims = (
        "symmetric", "row_order", "rotation", "scale", "translation", "class_names", "sees_labels", "grows_with_shift",
    )  # fmt: skip
    cites = "arXiv:2002.02923"

    # weight of the entropy, where the variance of both sets together is 1
    blur: float = 1.0
    rows: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        require_one(self.blur, "blur", "OTDD(blur=…)", 1.0)
        require_one(self.rows, "rows", "OTDD(rows=…)", 500)

    def __call__(self, source: Sample, target: Sample) -> float:
        require_rows(len(source), len(target), 1, "otdd")
        taken = [some(len(s), self.rows, self.seed) for s in (source, target)]
        sides = on_one_scale(*(s.features[at] for s, at in zip((source, target), taken, strict=True)))
        codes, gaussians = [], []
        for sample, at, x in zip((source, target), taken, sides, strict=True):
            of = self._codes(sample, at)
            codes.append(of)
            gaussians.append([Gaussian.of(x[of == c]) for c in range(of.max() + 1)])

        def cost(i: int, j: int) -> Array:
            between = [[squared_bures_wasserstein(a, b) for b in gaussians[j]] for a in gaussians[i]]
            return np.asarray(squared_distances(sides[i], sides[j]) + np.array(between)[codes[i]][:, codes[j]])

        return debiased(cost, self.blur)

    def _codes(self, sample: Sample, at: Array) -> Array:
        """(rows,) classes numbered without gaps."""
        if sample.labels is None:
            raise Unfit("a data set without labels", where="otdd", fix="use `frechet` or `sinkhorn`, which read none")
        return np.unique(np.asarray(sample.labels)[at], return_inverse=True)[1]
