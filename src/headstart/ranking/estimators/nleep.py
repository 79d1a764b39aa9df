"""NLEEP: LEEP through clusters of the features, for sources without classes of their own.

Li et al., "Ranking Neural Checkpoints", CVPR 2021.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.held_out import cells
from headstart.numerics.moments import Array, targets_of
from headstart.numerics.several_labels import label_by_label


@dataclass(frozen=True, kw_only=True, slots=True)
class NLEEP:
    """Labels guessed through a Gaussian mixture of the features, on held-out folds.

    Shapes: features (N, D); principal components with 80 % of the variance, then a mixture; time O(N·D·min(N, D)) and
    the mixture's. Returns: mean log-likelihood of held-out labels in nats, at most 0; losses (N,), each row's negative
    one, NaN for rows in no fold.
    Several labels a row: the mean over labels, each a class of its own against the rest.
    Errors: `Unfit` when no row is in a fold, or for a share that is not in (0, 1].

    The paper fits mixture and table on the rows it judges, which few rows know by heart; here both are fitted without
    the fold that is scored, and each cell of the table starts with one row in all, spread as the labels are. Five
    components a class, as published, but no more than a twentieth of the rows; their covariances are diagonal.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "class_names", "translation", "zero_columns", "prefers_signal", "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2011.11200"

    # of the variance, that the principal components keep
    share: float = 0.8
    # of the mixture, for each class
    components: int = 5
    # mixtures whose likelihoods are averaged
    starts: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.components < 1 or self.starts < 1:
            raise Unfit(
                f"share {self.share}, components {self.components}, starts {self.starts}",
                where="NLEEP(share=…, components=…, starts=…)",
                fix="use 0.8, 5 and 3, the defaults",
            )

    def __call__(self, view: View) -> Score:
        if view.task == "multi_label":
            return label_by_label(self, view)
        f, labels = np.asarray(view.features, dtype=np.float64), np.asarray(view.labels)
        hot = targets_of(labels, view.classes)
        losses = np.full(len(f), np.nan)
        for train, valid in cells(view.folds):
            likelihood = np.mean([self._likelihood(f, hot, train, valid, s) for s in range(self.starts)], axis=0)
            losses[valid] = -np.log(np.maximum((likelihood * hot[valid]).sum(axis=1), np.finfo(np.float64).tiny))
        return Score(-float(np.nanmean(losses)), losses)

    def _likelihood(self, f: Array, hot: Array, train: Array, valid: Array, seed: int) -> Array:
        """(valid rows, C) probabilities of each class."""
        prior = hot[train].mean(axis=0)
        spread = np.linalg.norm(f[train] - f[train].mean(axis=0), axis=0)
        alive = spread > 1e-7 * np.abs(f[train]).max(axis=0) * np.sqrt(len(train))
        many = min(self.components * int((prior > 0).sum()), max(1, len(train) // 20))
        if not alive.any():
            return np.tile(prior, (len(valid), 1))
        few = f[:, alive] / np.sqrt(np.square(spread[alive]).mean())
        pca = PCA(self.share if self.share < 1 else None, svd_solver="full").fit(few[train])
        mixture = GaussianMixture(many, covariance_type="diag", random_state=seed, reg_covar=1e-6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # where it stands after 100 steps will do
            mixture.fit(pca.transform(few[train]))
        theta = mixture.predict_proba(pca.transform(few[train]))
        table = hot[train].T @ theta + prior[:, None]
        given = table / table.sum(axis=0)
        return np.asarray(mixture.predict_proba(pca.transform(few[valid])) @ given.T)
