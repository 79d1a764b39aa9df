"""Energy: how far a source's own classes are from saying nothing of the target's rows.

Gholami et al., "ETran: Energy-Based Transferability Estimation", ICCV 2023; the score is of Liu et al., "Energy-based
Out-of-distribution Detection", NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart.core import Needs, Score, Unfit, View
from headstart.numerics.softmax import energies


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """Mean negative free energy of the rows under the source's own head: high where they look familiar to it.

    Shapes: predictions (N, Z), rows of probabilities; time O(N·Z).
    Returns: the mean of T log mean exp(logits / T) in nats, 0 for a source that is never sure; losses (N,), minus each
    row's.
    Errors: `Unfit` for a temperature that is not above 0.

    Reads no labels. Probabilities keep logits but for what a row's logits have in common, which the paper's log-sum-exp
    counts in full; here each row's logits are taken to have mean 0, so how loud a row is over all classes is lost, and
    how it differs between classes is not. With T = 1 it is the divergence of the uniform distribution from the row's.
    The mean over classes in place of the sum takes off what a larger number of classes adds. Released code feeds it
    features, whose unit then decides, and takes its mean over a two-hundredth of the rows. It tells how familiar the
    inputs are and nothing of the task; a source that is always too sure looks best.
    """

    needs = Needs(gives=("predictions",), tasks=("single_label", "multi_label", "regression", "tagging"), labels=False)
    claims = ("row_order", "class_names", "translation")
    cites = "arXiv:2308.02027"

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise Unfit(
                f"temperature {self.temperature} is not above 0",
                where="Energy(temperature=…)",
                fix="use 1, the default",
            )

    def __call__(self, view: View) -> Score:
        told = energies(view.predictions, self.temperature)
        return Score(float(told.mean()), -told)
