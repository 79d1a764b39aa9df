"""Histograms of gradient directions beside pixels, with logistic regression.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.numerics.artifacts import Table
from headstart.numerics.linear_fit import STRENGTHS, fit_linear
from headstart.numerics.steps import apply, centred, features
from headstart.numerics.steps_image import hog, pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class HogLogistic:
    """Gradient histograms and small pixels, then logistic or ridge regression with its strength chosen inside the fold.

    Shapes: images (N, side, side); (side / cell − 1)² blocks × 36 and the pixels at `pixels_side`; float32.
    Returns: a `Table`: `pixels`, `hog`, `centred`, and a linear step.
    Errors: `Unfit` when fewer than 2 × 2 cells fit, or a strength is not positive.

    The strongest system here without a network for shapes and digits; it sees no colour beyond the small pixels.
    """

    needs = Needs(tasks=("single_label", "multi_label", "regression"), modalities=("image",))
    claims = ("learns_separable", "chance_when_permuted", "numbers_in_their_unit")
    cites = "doi:10.1109/CVPR.2005.177"

    side: int = 32
    cell: int = 4
    pixels_side: int = 16
    strengths: tuple[float, ...] = (0.001, 0.01, *STRENGTHS[:2])  # C of the logistic model, one of which is chosen

    def __post_init__(self) -> None:
        sizes = min(self.cell, self.pixels_side) >= 2 and self.side >= 2 * self.cell
        if not sizes or not self.strengths or min(self.strengths) <= 0:
            raise Unfit(
                f"side {self.side} holds at least two cells of {self.cell}, and strengths {self.strengths} are above 0",
                where="HogLogistic(side=…, cell=…, strengths=…)",
                fix="use 32 and 4, and leave strengths out",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:  # noqa: ARG002  # the shape of its kind
        read = (pixels(view.train, self.pixels_side), hog(self.side, cell=self.cell))
        x = features(read, view.train)
        middle = centred(x)
        x = features([middle], view.train, x)
        fit = fit_linear(x, view.train.labels, view.task, view.classes, view.train.ids, strengths=self.strengths)
        table = Table((*read, middle, *fit.steps))
        return Fitted(table, apply(table, view.valid), facts=fit.facts)
