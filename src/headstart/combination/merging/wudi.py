"""WUDI: move the sum of the changes until it disturbs no task in the inputs that the task learned from.

Cheng et al., "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via Task Vectors",
ICML 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext, Unfit
from headstart.numerics.singular import is_matrix

ROUNDING = 1e-13  # of the largest number that a gradient is a difference of


@dataclass(frozen=True, kw_only=True, slots=True)
class Wudi:
    """Take of every matrix the change that interferes least, each task's inputs told by the rows of its own change.

    Shapes: base and every tuned tensor (out, in), equal; float32; whole tensors; `steps` products (out, in) x
    (in, in) in float64.
    Returns: base + scale * M, M after `steps` of Adam from the sum of the changes c on the sum of ||(M - c) c'||² /
    ||c||²; of tensors that are no matrices, scale * their mean.
    Errors: `Unfit` when steps is below 0 or the learning rate not above 0.

    The step of Adam is an absolute one: a learning rate of 1e-5 suits changes of about 1e-3 an entry, and smaller ones
    want a smaller one. It is costly: about `steps` passes of the matrix' width each.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True)
    claims = ("source_order", "sign_symmetry", "scale_zero", "one_model")
    cites = "arXiv:2503.08099"

    steps: int = 300
    learning_rate: float = 1e-5
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.learning_rate > 0:
            raise Unfit(
                f"{self.steps} steps at a learning rate of {self.learning_rate} go nowhere",
                where=f"`steps={self.steps}`, `learning_rate={self.learning_rate}`",
                fix="use 300 and 1e-5",
            )

    def holds(self, shape: Sequence[int], models: int) -> float:
        """Tensors of the shape beside the inputs: in float64 five of them and what they are held against."""
        if len(shape) != 2 or not min(shape):
            return models + 3
        across = shape[1] / shape[0]
        return max(14 + 2 * across, 8 + 4 * across)

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        if not is_matrix(base):
            return base + self.scale * torch.stack([one - base for one in tuned]).mean(dim=0)
        total = torch.zeros_like(base, dtype=torch.float64)
        wanted = torch.zeros_like(total)
        inputs = torch.zeros(base.shape[1], base.shape[1], dtype=torch.float64)
        for one in tuned:
            change = one.double() - base.double()
            length = float(change.square().sum())
            if length:
                gram = (change.T @ change).div_(length)
                total += change
                wanted += change @ gram
                inputs += gram
                del change, gram
        return base + (self.scale * self._moved(total, wanted, inputs)).to(base.dtype)

    def _moved(self, merged: torch.Tensor, wanted: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """In float64: Adam divides by the gradient's size, and rounding must not become a direction.

        Where nothing interferes the gradient is rounding alone, and Adam's steps would grow from it.
        """
        merged.grad = torch.addmm(wanted, merged, inputs, beta=-2, alpha=2)
        if float(merged.grad.abs().max()) <= ROUNDING * float(wanted.abs().max()):
            return merged
        optimiser = torch.optim.Adam([merged], lr=self.learning_rate, foreach=False)
        for _ in range(self.steps):
            torch.addmm(wanted, merged, inputs, beta=-2, alpha=2, out=merged.grad)
            optimiser.step()
        return merged
