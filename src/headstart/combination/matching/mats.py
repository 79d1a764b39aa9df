"""MaTS: the changes of all models are matched, each in the subspace that matters to it, by conjugate gradients.

Tam, Bansal and Raffel, "Merging by Matching Models in Task Parameter Subspaces", TMLR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, Passes, Seen, TensorContext, Unfit
from headstart.numerics.matching import conjugate_gradients

OBJECTIVES: dict[str, tuple[Seen, ...]] = {
    "fisher": ("squares",), "inputs": ("inputs",), "kronecker": ("inputs", "gradients"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class MaTS:
    """Solve for the change that all models can live with, beginning at task arithmetic.

    Shapes: a linear weight (out, in), or (in, out) where it is stored so; float32 in, float32 out; solved in float64;
    peak about 14 copies of a tensor, beside (in, in) and (out, out) matrices of all models.
    Returns: base + the X that solves the sum over models of C(X - change) = 0, after at most so many steps.
    Errors: `Unfit` for an unknown objective or steps below 0.

    Few steps are what keeps it near its start where the data say little, and gradients say little of a model that is
    sure of its rows: where `steps` of 100 end below the start, 10 may not. Tensors without passes begin and end at the
    mean of the changes.
    """

    needs = Needs(
        gives=("weights", "features", "gradients"), labels=False, same_base=True, whole_tensors=True, copies=14
    )
    claims = (
        "source_order", "agreement", "one_model", "scale_zero", "equal_passes_give_the_mean",
        "unseen_models_say_nothing",
    )  # fmt: skip
    cites = "arXiv:2312.04339"

    # what C is: the diagonal Fisher information, the layer's inputs, or inputs and gradients on either side
    objective: Literal["fisher", "inputs", "kronecker"] = "kronecker"
    # where the search begins: this times the sum of the changes
    start: float = 0.3
    steps: int = 100

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise Unfit(
                f"`{self.objective}` is no objective",
                where="MaTS(objective=…)",
                fix=f"use one of: {', '.join(OBJECTIVES)}",
            )
        if self.steps < 0:
            raise Unfit(f"{self.steps} steps cannot be taken", where="MaTS(steps=…)", fix="use 100")

    @property
    def asks(self) -> tuple[Seen, ...]:
        return OBJECTIVES[self.objective]

    def __call__(
        self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor], passes: Sequence[Passes]
    ) -> torch.Tensor:
        del context
        changes = [t - base for t in tuned]
        seen = [self._metric(p) for p in passes]
        if any(not s for s in seen):
            return base + torch.stack(changes).mean(0)
        sides = [s for s in seen if s]
        wanted = _summed(sides, changes)
        begin = self.start * torch.stack(changes).sum(0)
        found = conjugate_gradients(lambda x: _summed(sides, [x] * len(sides)), wanted, begin, self.steps)
        return base + found.float()

    def _metric(self, passes: Passes) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None] | None:
        """A diagonal, and what stands left and right of the tensor as it is stored; None where anything is missing."""
        if self.objective == "fisher":
            return None if passes.squares is None else (passes.squares.double(), None, None)
        if passes.inputs is None or (self.objective == "kronecker" and passes.gradients is None):
            return None
        right = passes.inputs.double()
        left = passes.gradients.double() if self.objective == "kronecker" and passes.gradients is not None else None
        return (None, right, left) if passes.transposed else (None, left, right)


def _summed(
    sides: Sequence[tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]],
    changes: Sequence[torch.Tensor],
) -> torch.Tensor:
    """The sum of every model's metric on its change."""
    total = torch.zeros(changes[0].shape, dtype=torch.float64)
    for (diagonal, left, right), change in zip(sides, changes, strict=True):
        one = change.double()
        one = one if diagonal is None else diagonal * one
        one = one if left is None else left @ one
        total += one if right is None else one @ right
    return total
