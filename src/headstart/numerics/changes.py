"""What a fine-tune changed, entry by entry, as surveys look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import TensorContext


@dataclass(frozen=True, slots=True)
class SizeOf:
    """The size of each of one model's changes; the stream counts it without making tensors.

    >>> context = TensorContext(name="w", shape=(2,))
    >>> SizeOf(0)(context, torch.tensor([1.0, 1.0]), [torch.tensor([-1.0, 1.0])]).tolist()
    [2.0, 0.0]
    """

    model: int

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        return (tuned[self.model] - base).abs()
