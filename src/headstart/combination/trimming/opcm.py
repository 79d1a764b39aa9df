"""OPCM: models join one after the other, each with what lies across what is there already.

Tang, Yang, Shen, Luo, Hu, Du and Tao, "Merging Models on the Fly Without Retraining: A Sequential Approach to Scalable
Continual Model Merging", NeurIPS 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, Survey, TensorContext, Unfit
from headstart.numerics.changes import Combine
from headstart.numerics.singular import is_matrix, rank_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Opcm:
    """Add changes in the order of the models, each without its part along the main directions of the sum so far.

    Shapes: base and every tuned tensor (…), equal; float32; whole tensors: one SVD a matrix and model after the first,
    in each of two passes.
    Returns: base + the sum, as long over the whole model as a change is on average.
    Errors: `Unfit` when energy is outside [0, 1].

    From each matrix's change goes what maps main input directions of the sum to its main output directions, and any
    direction to its own. The published loop rescales after every model, which no projection sees: one factor in the end
    is the same. It projects the weights of linear layers alone; here all matrices, embeddings among them. Directions
    that are rounding only stay out of it. Other tensors are summed. The order matters: the first model stays whole.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, whole_tensors=True, copies=8)
    claims = ("one_model", "sign_symmetry")
    cites = "arXiv:2501.09522"

    energy: float = 0.5  # of the sum's singular values, that its main directions hold

    def __post_init__(self) -> None:
        if not 0 <= self.energy <= 1:
            raise Unfit(f"energy {self.energy} is no share", where="Opcm(energy=…)", fix="use 0.5")

    @property
    def trim(self) -> Literal["model"]:
        return "model"

    def __call__(self, survey: Survey) -> Combine:
        def size(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            del context
            return _square(self._sum(base, tuned))

        squares = survey.sums([size, *(_size_of(model) for model in range(survey.models))])
        lengths = squares**0.5
        factor = float(lengths[1:].mean() / lengths[0]) if lengths[0] else 1.0

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            del context
            return base + factor * self._sum(base, tuned)

        return combine

    def _sum(self, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        total = tuned[0] - base
        for one in tuned[1:]:
            change = one - base
            total = total + (self._across(change, total) if is_matrix(total) else change)
        return total

    def _across(self, change: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        """Without its part along the sum's main directions, and along each direction's own."""
        left, values, right = torch.linalg.svd(total, full_matrices=False)
        rank = rank_of(values, total.shape)
        if not rank:
            return change
        left, values, right = left[:, :rank], values[:rank].double(), right[:rank]
        main = int((values.cumsum(0) / values.sum() <= self.energy).sum())
        part = left.T @ change @ right.T
        rest = part.clone()
        rest.diagonal().zero_()
        rest[:main, :main] = 0
        along: torch.Tensor = left @ (part - rest) @ right
        return change - along


def _size_of(model: int) -> Combine:
    def size(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        return _square(tuned[model] - base)

    return size


def _square(change: torch.Tensor) -> torch.Tensor:
    return (change.double() ** 2).sum()
