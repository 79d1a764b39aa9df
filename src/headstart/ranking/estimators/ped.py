"""PED: classes that overlap push each other apart, as fine-tuning would, before they are told apart.

Li et al., "Exploring Model Transferability through the Lens of Potential Energy", ICCV 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.discriminant import Array, class_means, true_class
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class PED:
    """Probability of the true class on held-out rows, by a discriminant whose training classes were pushed apart.

    Shapes: features (N, D), float64 copies of a fold's training rows; distances of class means (C, C), a shrunk
    covariance on the smaller of (D, D) and (N, N) for each fold.
    Returns: mean probability of the true class, from 0 to 1; losses (N,) minus its logarithm, NaN for rows in no fold.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no row is in a fold, and for settings out of range.

    Two classes overlap by `reach` times both radii less the distance of their means, and move apart by a share of it;
    the covariance inside a class stays as it is. The paper takes units from a general set of images that each source
    saw; none is at hand, so they are from the target's own training rows. It then scores the rows it has moved by their
    labels; here rows that were not moved are scored. Classes with equal means have no direction to go, and stay, where
    the published code divides 0 by 0.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal",
        "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2308.15074"

    # of a class, in radii: the root of its summed variances
    reach: float = 0.6
    # of time; a push is half its square times the overlap
    step: float = 0.1
    steps: int = 6
    # of the first push; a push that is not larger is the end
    least: float = 0.5

    def __post_init__(self) -> None:
        if not (self.reach > 0 and self.step > 0 and self.steps > 0 and 0 <= self.least < 1):
            raise Unfit(
                f"reach {self.reach}, step {self.step}, steps {self.steps}, least {self.least}",
                where="PED(reach=…, step=…, steps=…, least=…)",
                fix="use 0.6, 0.1, 6 and 0.5, the defaults",
            )

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        return true_class(view, self._descended)

    def _descended(self, x: Array, codes: Array) -> Array:
        """The rows after the pushes; only class means move, so the pushes are found from them and the radii alone."""
        start = means = class_means(x, codes)
        radii = np.sqrt(np.bincount(codes, np.square(x - means[codes]).sum(axis=1)) / np.bincount(codes))
        first = 0.0
        for _ in range(self.steps):
            push = self._push(means, radii)
            size = float(np.abs(push).sum())
            first = first or size
            if size <= self.least * first:
                break
            means = means + push
        return np.asarray(x + (means - start)[codes])

    def _push(self, means: Array, radii: Array) -> Array:
        """(C, D) how far each class goes in one step, away from those that it overlaps with."""
        apart = cdist(means, means)
        overlap = np.maximum(self.reach * (radii + radii[:, None]) - apart, 0.0)
        far = min(0.5 * self.step**2, 1.0) * overlap
        share = np.divide(far, apart, out=np.zeros_like(far), where=apart > 0)
        return np.asarray(share.sum(axis=1)[:, None] * means - share @ means)
