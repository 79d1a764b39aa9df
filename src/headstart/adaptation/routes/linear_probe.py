"""Linear probe: a regularised linear head on frozen features.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016; strength chosen as in
Kornblith, Shlens and Le, "Do Better ImageNet Models Transfer Better?", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.execution.fit import LINKS, PROGRESS
from headstart.numerics.linear import STRENGTHS, chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearProbe:
    """A linear head on the source's features, its strength chosen by inner cross-validation.

    Logistic for classes (one each, for multi-label, with one strength for all), ridge for numbers; of tagging targets
    it sees words. There are no optimiser steps: the optimum is found at once, `state` and `steps` change nothing.

    Shapes: reads features (N, D) of train and valid; float64 inside; cost about N · min(N, D) · C for each of some
    hundred passes.
    Returns: a `Head` (C, D) on raw features; facts: `strength` and the inner loss of each strength tried.
    Errors: `Unfit` when a strength is not above 0.

    The cheapest honest use of a source, and hard to beat where its features fit the task. It cannot mend features
    that lack what the task asks for.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"))
    claims = ("row_order", "learns_separable", "encoder_untouched", "weak_is_the_prior")
    cites = "arXiv:1610.01644"

    # C as in scikit-learn: small is strong regularisation; several are chosen among
    strengths: tuple[float, ...] = STRENGTHS

    def __post_init__(self) -> None:
        if not self.strengths or min(self.strengths) <= 0:
            raise Unfit(
                f"strengths are {self.strengths}, and each must be above 0",
                where="LinearProbe(strengths=…)",
                fix="give one or several positive numbers, such as 0.01, 1, 100",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:
        del state, steps
        train, labels = view.train, np.asarray(view.train.labels)
        best = chosen(
            train.features, labels, view.classes, train.ids, LINKS[view.task], self.strengths, report=PROGRESS.get()
        )
        facts = {"strength": best.strength, "inner_losses": [list(pair) for pair in best.losses]}
        return Fitted(best.head, best.head(view.valid.features), facts=facts)
