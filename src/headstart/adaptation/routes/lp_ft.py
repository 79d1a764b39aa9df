"""LP-FT: a linear probe first, then all weights.

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.core import Fitted, FitView, Needs, State, Steps, Unfit
from headstart.execution import fit
from headstart.numerics.artifacts import Head, Model
from headstart.numerics.linear import STRENGTHS, chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class LpFt:
    """Fit a linear probe, then train all weights from there, the lower layers more slowly.

    The head that training starts from is already right for the features, so that the first gradients do not distort
    them. The paper starts from the best probe; with fewer rows than features that one fits its rows without error and
    leaves no gradient to learn from, so here it is regularised more (`ease`). With ease 1 and no steps it is the probe.

    Shapes: AdamW in float32: about 4 copies of the weights, and the activations of 4,096 tokens.
    Returns: a `Model`: all tensors of the encoder, and the head; facts: steps, horizon, rows.
    Errors: `Unfit` when a setting is out of its range, or `state` belongs to another schedule.

    The first gradient route to try with few labels. Where the source's features say little of the task, the probe is
    a poor start and `full_finetune` catches up.
    """

    needs = Needs(gives=("features", "gradients", "weights"), tasks=("single_label", "multi_label", "regression"))
    claims = ("resumes", "learns_separable", "zero_steps_is_the_probe")
    cites = "arXiv:2202.10054"

    # of the head's neighbourhood; see layer_decay
    learning_rate: float = 1e-4
    # a layer at depth d below the head learns at learning_rate × layer_decay^d; 1 is flat, 0 trains the head alone
    layer_decay: float = 0.75
    # of matrices only
    weight_decay: float = 0.01
    # passes over the rows, where the caller gives no horizon; never fewer than 60 steps
    epochs: int = 6
    batch_rows: int = 16
    # of the probe, as in `linear_probe`
    strengths: tuple[float, ...] = STRENGTHS
    # training starts from a probe with this fraction of the best strength; 1 is the probe itself
    ease: float = 0.03

    def __post_init__(self) -> None:
        if not 0 < self.ease <= 1:
            raise Unfit(
                f"ease is {self.ease}, and must lie above 0 and not above 1",
                where="LpFt(ease=…)",
                fix="use 0.03, the default, or 1 to start from the best probe",
            )
        if not (self.learning_rate > 0 and 0 <= self.layer_decay <= 1 and self.epochs > 0 and self.batch_rows > 0):
            raise Unfit(
                f"learning_rate {self.learning_rate}, layer_decay {self.layer_decay}, epochs {self.epochs}, batch_rows "
                f"{self.batch_rows}: a rate above 0, a decay in [0, 1] and whole numbers above 0 are meant",
                where="LpFt(…)",
                fix="use the defaults: 1e-4, 0.75, 6 and 16",
            )

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:
        encoder, link = view.encoder, fit.LINKS[view.task]
        fit.unfreeze(encoder)

        def probe(features: Any, labels: Any, ids: Sequence[str]) -> Head:
            return chosen(features, labels, view.classes, ids, link, self.strengths, self.ease).head

        recipe = fit.Recipe(
            learning_rate=self.learning_rate,
            layer_decay=self.layer_decay,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch_rows=self.batch_rows,
        )
        done = fit.train(encoder, view, probe, recipe, state, steps)
        tensors = {n: t.detach().cpu().clone() for n, t in encoder.module.state_dict().items()}
        return Fitted(
            Model(tensors, done.head), done.predictions, done.state, done.curve, done.fraction, facts=done.facts
        )
