"""PACTran: a bound on the error of a linear head on new rows, from those it was fitted on.

Ding et al., "PACTran: PAC-Bayesian Metrics for Estimating the Transferability of Pretrained Models to Classification
Tasks", ECCV 2022 (its Gaussian form).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.moments import Array
from headstart.numerics.several_labels import label_by_label
from headstart.numerics.similarity import centred
from headstart.numerics.softmax import fit_softmax


@dataclass(frozen=True, kw_only=True, slots=True)
class PACTran:
    """PAC-Bayes bound of a softmax head with Gaussian weights: its loss, its distance from the prior, its precision.

    Shapes: features (N, D), turned to their k <= min(N - 1, D) principal axes (N, k) float64, by a singular value
    decomposition; one fit for each prior, O(N·k·C) a step.
    Returns: minus the bound in nats a row, about -log classes for features that tell nothing; no per-row losses.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` for priors that are not above 0. One class alone gives 0.

    With prior N(0, p) for each weight the bound is 1/N of: the log loss and |W|² / 2p at their least, and half the sum
    over weights of log(1 + p × curvature), what it costs to state a weight as exactly as the rows tell it; and log of
    the number of priors, since the best is taken. Weights cost on the principal axes, each class and axis by its own
    curvature. The published code takes one curvature for all, sums it over rows where the loss is a mean, counts biases
    in the sum and not in the number of weights, and divides a free factor by the width alone. Features are centred and
    brought to a mean squared length of 1, so that p is the variance of a row's logits under the prior.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels", "jackknife",
    )  # fmt: skip
    cites = "arXiv:2203.05126"

    # variances of the weights, which are the variances of a row's logits
    priors: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)

    def __post_init__(self) -> None:
        if not self.priors or min(self.priors) <= 0:
            raise Unfit(
                f"priors {self.priors} are not all above 0",
                where="PACTran(priors=…)",
                fix="give at least one above 0, such as 100",
            )

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        f = centred(view.features)
        _, codes = np.unique(view.labels, return_inverse=True)
        rows = len(f)
        if not codes.any():
            return Score(0.0)
        turned, sizes, _ = np.linalg.svd(f, full_matrices=False)
        kept = sizes > max(f.shape) * np.finfo(np.float64).eps * sizes.max(initial=0.0)
        at = turned[:, kept] * sizes[kept] * np.sqrt(rows) / np.linalg.norm(sizes[kept])
        bounds = [self._bound(at, codes, prior) for prior in self.priors]
        return Score(-(min(bounds) + float(np.log(len(bounds)))) / rows)

    def _bound(self, x: Array, codes: Array, prior: float) -> float:
        """Nats over all rows."""
        many = int(codes.max()) + 1
        weight, bias = fit_softmax(x, codes, many, prior)
        told = softmax(x @ weight.T + bias, axis=1)
        loss = -np.log(np.maximum(told[np.arange(len(x)), codes], 1e-300)).sum()
        curvature = np.square(x).T @ (told * (1 - told))
        return float(loss + np.square(weight).sum() / (2 * prior) + 0.5 * np.log1p(prior * curvature).sum())
