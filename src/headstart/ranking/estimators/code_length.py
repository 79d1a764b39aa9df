"""Code length: how many nats the labels cost when they are told in turn, each by a probe on those before.

Voita and Titov, "Information-Theoretic Probing with Minimum Description Length", EMNLP 2020 (the online code).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.artifacts import Link
from headstart.numerics.linear import chosen, standard


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeLength:
    """Online code length of the labels: it counts how well a probe does and how few rows it needs for that.

    Shapes: features (N, D), one float64 copy; one regularised logistic fit for each block, on all rows before it.
    Returns: minus the nats a row, 0 at best and -log classes for a source that tells nothing; losses (N,), the nats of
    each row; where a row has several labels, the mean over labels, each yes or no.
    Errors: `Unfit` for fractions that do not rise in (0, 1].

    The rows are told in the order of the view, which is a stratified draw; the first block is told uniformly. Features
    are known before any label is told, so all rows say what a feature's unit is: by the first two or three alone, one
    that lies far from zero may look constant. Strengths are chosen on inner folds of the rows before. With few rows
    most of the code is the first blocks, so sources differ less than by `logistic_probe`, which trains on four fifths.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "tagging"))
    claims = (
        "scale", "feature_scale", "translation", "zero_columns", "prefers_signal", "width_safe",
        "falls_with_label_noise", "null_of_shuffled_labels",
    )  # fmt: skip
    cites = "arXiv:2003.12298"

    # of the rows, where blocks end; what follows the last is one block more
    ends: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5)
    # C as in scikit-learn, of the probe
    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)

    def __post_init__(self) -> None:
        if not all(0 < a < b <= 1 for a, b in zip(self.ends, (*self.ends[1:], 1.0), strict=True)):
            raise Unfit(
                f"ends {self.ends} do not rise between 0 and 1",
                where="CodeLength(ends=…)",
                fix="use fractions such as 0.125, 0.25 and 0.5",
            )

    def __call__(self, view: View) -> Score:
        features, labels = np.asarray(view.features, dtype=np.float64), np.asarray(view.labels)
        centre, scale = standard(features)
        features = (features - centre) / scale
        rows = len(labels)
        several = view.task == "multi_label"
        link: Link = "sigmoid" if several else "softmax"
        options = 2 if several else max(view.classes, 1)
        marks = sorted({max(1, round(end * rows)) for end in self.ends} | {rows})
        losses = np.full(rows, np.log(options))
        for start, stop in itertools.pairwise(marks):
            ids = [str(i) for i in range(start)]
            probe = chosen(features[:start], labels[:start], view.classes, ids, link, self.strengths)
            told, new = probe.head(features[start:stop]), labels[start:stop]
            told = np.where(new > 0, told, 1 - told) if several else told[np.arange(stop - start), new][:, None]
            # a share of the guess is uniform, so that no class that was not seen yet costs everything
            losses[start:stop] = -np.log((start * told + 1) / (start + options)).mean(axis=1)
        return Score(-float(losses.mean()), losses)
