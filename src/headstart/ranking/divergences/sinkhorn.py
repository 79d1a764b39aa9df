"""Sinkhorn divergence: what it costs to carry one sample to the other, less what it costs to stay.

Feydy et al., "Interpolating between Optimal Transport and MMD using Sinkhorn Divergences", AISTATS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Needs, Sample
from headstart.numerics.transport import debiased
from headstart.numerics.two_samples import on_one_scale, require_one, require_rows, some, squared_distances


@dataclass(frozen=True, kw_only=True, slots=True)
class Sinkhorn:
    """Debiased entropic transport of the features, at the squared distance.

    Shapes: features (N, D) and (M, D), at most `rows` of each, drawn with `seed`; a few (rows, rows) float64.
    Returns: a squared distance, in units of the variance of both sets together.
    Errors: `Unfit` for no rows on a side.

    Near the squared 2-Wasserstein distance for a small blur, and the squared distance of the means for a large one.
    Exact transport between two samples of one kind is far from 0 in many dimensions, and so is this with a blur of 0.1,
    as is often used: the subtraction takes off what rows have to go to others of their own set, and with little blur
    they stay where they are. With a blur of half the mean cost, small sets can be compared. The value is that of the
    dual, entropy included, as in the paper; some libraries report the cost of the plan alone, which can be below 0
    after the subtraction.
    """

    needs = Needs(gives=("features",), labels=False)
    claims = ("symmetric", "row_order", "rotation", "scale", "translation", "grows_with_shift")
    cites = "arXiv:1810.08278"

    # weight of the entropy, where the variance of both sets together is 1
    blur: float = 1.0
    rows: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        require_one(self.blur, "blur", "Sinkhorn(blur=…)", 1.0)
        require_one(self.rows, "rows", "Sinkhorn(rows=…)", 500)

    def __call__(self, source: Sample, target: Sample) -> float:
        require_rows(len(source), len(target), 1, "sinkhorn")
        sides = on_one_scale(*(s.features[some(len(s), self.rows, self.seed)] for s in (source, target)))
        return debiased(lambda i, j: squared_distances(sides[i], sides[j]), self.blur)
