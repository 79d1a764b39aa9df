"""Code length: how many nats the labels cost when they are told in turn, each by a probe on those before.

Voita and Titov, "Information-Theoretic Probing with Minimum Description Length", EMNLP 2020 (the online code).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.artifacts import Link
from headstart.numerics.inner import first_seen
from headstart.numerics.linear import chosen, standard
from headstart.numerics.moments import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeLength:
    """Online code length of the labels: it counts how well a probe does and how few rows it needs for that.

    Shapes: features (N, D), one float64 copy; one regularised logistic fit for each block, on all rows before it.
    Returns: minus the nats a row, 0 at best and -log classes for a source that tells nothing; losses (N,), the nats of
    each row; where a row has several labels, the mean over labels, each yes or no. Of numbers, in units of their
    deviation, nats are of a density: about -1.42 for a source that tells nothing, and above 0 for one that errs little.
    Errors: `Unfit` for fractions that do not rise in (0, 1].

    The rows are told in the order of the view, which is a stratified draw; the first block is told uniformly. Features
    are known before any label is told, so all rows say what a feature's unit is: by the first two or three alone, one
    that lies far from zero may look constant. Strengths are chosen on inner folds of the rows before. With few rows
    most of the code is the first blocks, so sources differ less than by `logistic_probe`, which trains on four fifths.
    The paper has classes alone. Numbers are told by a Gaussian about a ridge probe, as wide as the errors on the block
    before; a source whose errors are no Gaussian, such as a few large ones, is worth less than its probe.
    """

    needs = Needs(gives=("features",), tasks=("single_label", "multi_label", "regression", "tagging"))
    claims = (
        "class_names", "scale", "feature_scale", "translation", "zero_columns", "prefers_signal", "width_safe",
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
        varies = np.isfinite(scale)  # what never varies would change the path to the optimum, and so the strength
        varies[:1] = True  # one must be left
        features = (features[:, varies] - centre[varies]) / scale[varies]
        if view.task == "regression":
            losses = self._of_numbers(features, labels)
        elif view.task == "multi_label":
            losses = self._of_classes(features, labels, view.classes, several=True)
        else:  # numbered as they come, since inner folds are dealt class by class, and names are no order
            losses = self._of_classes(features, first_seen(labels), view.classes, several=False)
        return Score(-float(losses.mean()), losses)

    def _of_classes(self, features: Array, labels: Array, classes: int, *, several: bool) -> Array:
        link: Link = "sigmoid" if several else "softmax"
        options = 2 if several else max(classes, 1)
        losses = np.full(len(labels), np.log(options))
        for start, stop in itertools.pairwise(self._marks(len(labels))):
            told = self._told(features, labels, classes, link, start, stop)
            new = labels[start:stop]
            told = np.where(new > 0, told, 1 - told) if several else told[np.arange(stop - start), new][:, None]
            # a share of the guess is uniform, so that no class that was not seen yet costs everything
            losses[start:stop] = -np.log((start * told + 1) / (start + options)).mean(axis=1)
        return losses

    def _of_numbers(self, features: Array, values: Array) -> Array:
        values = (values - values.mean()) / (values.std() or 1.0)  # the unit is told to all sources alike
        marks = self._marks(len(values))
        squared, variances = np.square(values), np.ones(len(values))
        for begin, start, stop in zip([0, *marks], marks, marks[1:], strict=False):
            told = self._told(features, values, 0, "identity", start, stop)[:, 0]
            # as if one row more had been seen, whose value is the mean and whose error that of telling nothing
            squared[start:stop] = np.square(values[start:stop] - start / (start + 1) * told)
            variances[start:stop] = (squared[begin:start].sum() + 1) / (start - begin + 1)
        return np.asarray((np.log(2 * np.pi * variances) + squared / variances) / 2)

    def _marks(self, rows: int) -> list[int]:
        return sorted({max(1, round(end * rows)) for end in self.ends} | {rows})

    def _told(self, features: Array, labels: Array, classes: int, link: Link, start: int, stop: int) -> Array:
        """What a probe on the rows before says of a block."""
        ids = [str(i) for i in range(start)]
        probe = chosen(features[:start], labels[:start], classes, ids, link, self.strengths)
        return np.asarray(probe.head(features[start:stop]))
