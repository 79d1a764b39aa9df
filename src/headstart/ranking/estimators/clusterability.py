"""Clusterability: whether the features fall into groups of their own, with no label read.

Rousseeuw, "Silhouettes: a graphical aid to the interpretation and validation of cluster analysis", 1987; the groups are
those of Ward, "Hierarchical grouping to optimize an objective function", 1963.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import cut_tree, ward
from scipy.spatial.distance import pdist, squareform

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import Array
from headstart.numerics.similarity import centred


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusterability:
    """Mean silhouette of as many groups of the features as there are classes, less what rows without groups have.

    Shapes: features (N, D), at most `rows` of them; distances (rows, rows) float64; time O(draws·rows²·min(rows, D)).
    Returns: above 0 for groups, about 0 for a Gaussian cloud of any form, 0 where nothing varies; no per-row losses.
    Errors: `Unfit` for fewer rows than `least`, a `least` below 3 or above `rows`, or a negative number of draws.

    Any cloud can be cut into groups, and few directions of large variance make the cuts look good. So the mean over
    draws from one Gaussian with the same covariance is taken off. It says that there are groups and not that they are
    the classes: a source that sees languages scores high where topics are asked for. Classes half a deviation apart are
    no groups yet, and then it is as low as for noise: with 100 rows noise of few directions was ahead of such classes
    in a third of the draws, with 200 in a twentieth.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "tagging"), labels=False)
    claims = ("row_order", "class_names", "rotation", "scale", "translation", "zero_columns")
    cites = "doi:10.1016/0377-0427(87)90125-7"

    # the most rows that are grouped; of more, so many evenly over those sorted by their distance from the mean
    rows: int = 500
    # fewer rows are refused: groups that chance makes among them look as good as real ones
    least: int = 200
    # from the Gaussian
    draws: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not 3 <= self.least <= self.rows or self.draws < 0:
            raise Unfit(
                f"rows {self.rows}, least {self.least}, draws {self.draws}",
                where="Clusterability(rows=…, least=…, draws=…)",
                fix="use 500, 200 and 10, the defaults",
            )

    def __call__(self, view: View) -> Score:
        f = centred(view.features)
        if len(f) < self.least:
            raise Unfit(
                f"{len(f)} rows: among fewer than {self.least}, groups that chance makes look as good as real ones",
                where="`clusterability`",
                fix=f"use `cdnv`, which reads the labels, or label {self.least} rows",
            )
        order = np.argsort(np.square(f).sum(axis=1), kind="stable")
        f = f[order[np.linspace(0, len(f) - 1, min(self.rows, len(f))).astype(int)]]
        groups = min(max(view.classes, 2), len(f) - 1)
        turned, sizes, _ = np.linalg.svd(f - f.mean(axis=0), full_matrices=False)
        kept = sizes > max(f.shape) * np.finfo(np.float64).eps * sizes.max(initial=0.0)
        if groups < 2 or not kept.any():
            return Score(0.0)
        sizes = sizes[kept] / sizes[0]
        chance = np.random.default_rng(self.seed)
        clouds = [chance.standard_normal((len(f), len(sizes))) * sizes for _ in range(self.draws)]
        null = float(np.mean([_silhouette(c, groups) for c in clouds])) if clouds else 0.0
        return Score(_silhouette(turned[:, kept] * sizes, groups) - null)


def _silhouette(rows: Array, many: int) -> float:
    """Mean over rows of (b - a) / max(a, b): mean distance to one's own group, a, and to the nearest other one, b."""
    apart = pdist(rows)
    groups = cut_tree(ward(apart), [many])[:, 0]
    hot = np.eye(many)[groups]
    sums, counts = squareform(apart) @ hot, hot.sum(axis=0)
    own = np.arange(len(rows)), groups
    inside = sums[own] / np.maximum(counts[groups] - 1, 1)
    means = sums / counts
    means[own] = np.inf
    beside = means.min(axis=1)
    most = np.maximum(inside, beside)
    each = np.divide(beside - inside, most, out=np.zeros_like(most), where=most > 0)
    return float(np.where(counts[groups] > 1, each, 0.0).mean())
