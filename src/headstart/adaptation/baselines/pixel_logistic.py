"""Logistic regression on pixels: what the colour of each place says by itself.

LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 1998, where the
linear classifier on pixels is the first row of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.numerics.artifacts import Table
from headstart.numerics.linear_fit import STRENGTHS, fit_linear
from headstart.numerics.steps import apply, centred, features
from headstart.numerics.steps_image import pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelLogistic:
    """Pixels of small images, then logistic or ridge regression with its strength chosen inside the fold.

    Shapes: images (N, side, side), one number a pixel where no training image has a colour, else three; float32.
    Returns: a `Table`: `pixels`, `centred`, and a linear step.
    Errors: `Unfit` for a side below 4 or a strength that is not positive.

    Misleads where things move about in the picture; `hog_logistic` bears that better.
    """

    needs = Needs(tasks=("single_label", "multi_label", "regression"), modalities=("image",))
    claims = ("learns_separable", "chance_when_permuted", "numbers_in_their_unit")
    cites = "doi:10.1109/5.726791"

    side: int = 16
    strengths: tuple[float, ...] = (0.001, 0.01, *STRENGTHS[:2])  # C of the logistic model, one of which is chosen

    def __post_init__(self) -> None:
        if self.side < 4 or not self.strengths or min(self.strengths) <= 0:
            raise Unfit(
                f"side {self.side} is at least 4, and strengths {self.strengths} are above 0",
                where="PixelLogistic(side=…, strengths=…)",
                fix="use 16, or 32 for larger pictures, and leave strengths out",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:  # noqa: ARG002  # the shape of its kind
        read = pixels(view.train, self.side)
        x = features([read], view.train)
        middle = centred(x)
        x = features([middle], view.train, x)
        fit = fit_linear(x, view.train.labels, view.task, view.classes, view.train.ids, strengths=self.strengths)
        table = Table((read, middle, *fit.steps))
        return Fitted(table, apply(table, view.valid), facts=fit.facts)
