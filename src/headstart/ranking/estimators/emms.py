"""EMMS: how well a linear map of the features predicts a mixture of several embeddings of the labels.

Meng et al., "Foundation Model is Efficient Multimodal Multitask Model Selector", NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.held_out import explained
from headstart.numerics.moments import Array, targets_of
from headstart.numerics.ranks import normal_scores
from headstart.numerics.simplex import best_mixture
from headstart.numerics.spectrum import Spectrum, fold_spectra


@dataclass(frozen=True, kw_only=True, slots=True)
class EMMS:
    """R² on held-out folds of ridge regression to the mixture of label embeddings that the features fit best.

    Shapes: features (N, D), reference (N, C), K embeddings (N, C); cost and memory are those of `ridge_probe`, with K·C
    columns of targets in place of C.
    Returns: 1 - squared error / squared error of the training rows' mean, both of the mixture; 0 or less for noise;
    losses (N,) squared error, NaN for rows in no fold.
    Errors: `Unfit` when no row is in a fold.

    The paper embeds the names of the classes, by large models of text. A view has no names, so these embeddings are of
    what the target tells: columns of 0 and 1; the same with each column over the root of its share, so that a rare
    class weighs as much as a common one; and what a system without transfer says of rows of each class on average, so
    that classes it confuses are near. Of values: the value, and its place among all as on a normal curve. Each is
    centred and of unit variance, or the one that varies least would always be best. The paper's error is of the rows
    that were fitted, without a penalty: 0 for any features with as many dimensions as rows. Released code alternates
    once between fit and weights, and cuts weights without bounds back to the simplex; here both go down to the least
    error. Where classes are balanced and never confused, all embeddings are one, and it is near to `ridge_probe`.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"), reference=True)
    claims = (
        "row_order", "class_names", "rotation", "scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2308.06262"

    # penalties as multiples of the mean squared length of a training row; where rows are fewer than dimensions, far
    # smaller ones all fit to the last digit, and which of them is chosen would be rounding
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 10.0, 1e3)
    # of the weights, at most
    iterations: int = 1000

    def __post_init__(self) -> None:
        if not self.penalties or min(self.penalties) <= 0 or self.iterations < 1:
            raise Unfit(
                f"penalties {self.penalties}, iterations {self.iterations}",
                where="EMMS(penalties=…, iterations=…)",
                fix="give penalties above 0, such as 0.1, and at least one iteration",
            )

    def __call__(self, view: View) -> Score:
        embedded = self._embedded(view)
        rows, many, columns = embedded.shape
        flat = embedded.reshape(rows, many * columns)
        losses, naive = np.full(rows, np.nan), np.full(rows, np.nan)
        for train, valid, spectrum, along in fold_spectra(view.features, flat, many * columns, view.folds):
            penalties = np.array(self.penalties) * spectrum.level
            penalty = spectrum.best(penalties, view.features, flat, train)
            mean = flat[train].mean(axis=0)
            weights = self._weights((flat[train] - mean).reshape(-1, many, columns), spectrum, penalty)
            told = (along @ spectrum.coefficients(penalty)).reshape(-1, many, columns)
            right = np.einsum("nkc,k->nc", (flat[valid] - mean).reshape(-1, many, columns), weights)
            losses[valid] = np.square(right - np.einsum("nkc,k->nc", told, weights)).sum(axis=1)
            naive[valid] = np.square(right).sum(axis=1)
        return explained(losses, naive)

    def _embedded(self, view: View) -> Array:
        """(N, K, C) centred and of unit variance; what does not vary is left out, but for the first."""
        plain = targets_of(view.labels, view.classes)
        made = [plain]
        if view.task == "regression":
            made.append(normal_scores(plain[:, 0])[:, None])
        else:
            told = np.asarray(view.reference, dtype=np.float64)
            known = np.isfinite(told).all(axis=1)
            made.append(plain / np.sqrt(np.maximum(plain.mean(axis=0), 1 / len(plain))))
            made.append(plain @ np.linalg.lstsq(plain[known], told[known], rcond=None)[0])
        centred = [one - one.mean(axis=0) for one in made]
        sizes = [float(np.sqrt(np.square(one).sum(axis=1).mean())) for one in centred]
        least = [1e-9 * float(np.abs(one).max(initial=0.0)) for one in made]  # a deviation that may be rounding
        kept = [one / size for one, size, low in zip(centred, sizes, least, strict=True) if size > low]
        return np.stack(kept or [np.zeros_like(plain)], axis=1)

    def _weights(self, targets: Array, spectrum: Spectrum, penalty: float) -> Array:
        """(K,) of the mixture whose fit leaves the least error on the training rows, the penalty included."""
        many = targets.shape[1]
        along = spectrum.along.reshape(-1, many, targets.shape[2])
        share = spectrum.values / (spectrum.values + penalty)
        energy = np.einsum("nkc,nlc->kl", targets, targets)
        return best_mixture(energy, np.einsum("jkc,jlc,j->kl", along, along, share), self.iterations)
