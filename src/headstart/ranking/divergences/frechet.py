"""Fréchet distance of two samples: the 2-Wasserstein distance of the Gaussians with their moments.

Dowson and Landau, "The Fréchet distance between multivariate normal distributions", Journal of Multivariate Analysis
1982; of embeddings: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Needs, Sample
from headstart.numerics.transport import Gaussian, squared_bures_wasserstein
from headstart.numerics.two_samples import on_one_scale, require_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Frechet:
    """Squared Fréchet distance of the features: how far the means are, and how differently the features spread.

    Shapes: features (N, D) and (M, D), all rows; time O((N + M)·D²) and a singular value decomposition of at most
    (D, D).
    Returns: a squared distance, in units of the variance of both sets together; at most 4.
    Errors: `Unfit` for no rows on a side.

    Covariances are over N, and enter by their roots: with fewer rows than dimensions, or features that never vary,
    nothing has to be inverted or made positive, where published code adds to the diagonal and drops imaginary parts.
    Few rows in many dimensions seem farther than they are: compare sources of like numbers of rows.
    """

    needs = Needs(gives=("features",), labels=False)
    claims = ("symmetric", "row_order", "rotation", "scale", "translation", "grows_with_shift")
    cites = "arXiv:1706.08500"

    def __call__(self, source: Sample, target: Sample) -> float:
        require_rows(len(source), len(target), 1, "frechet")
        a, b = on_one_scale(source.features, target.features)
        return squared_bures_wasserstein(Gaussian.of(a), Gaussian.of(b))
