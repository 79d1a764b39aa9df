"""Uniform soup: the mean of fine-tunes.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, TensorContext


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformSoup:
    """The plain mean of the fine-tunes; the base does not enter.

    Shapes: every tuned tensor (…), equal; float32 in and out; peak two extra copies of one tensor.
    Returns: the mean.
    Errors: none of its own.

    For fine-tunes of one base that differ in seed or settings: they lie in one basin. Means of models from different
    starts fall far below either.
    """

    needs = Needs(gives=("weights",), labels=False)
    claims = ("source_order", "agreement", "copies", "one_model", "sign_symmetry", "base_is_left_out")
    cites = "arXiv:2203.05482"

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        total = torch.zeros_like(base)
        for one in tuned:
            total += one
        return total / len(tuned)
