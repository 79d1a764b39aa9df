"""What a fine-tune changed, entry by entry, as surveys look at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from headstart.core import Survey, TensorContext

Combine = Callable[[TensorContext, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]


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


def enlargements(survey: Survey, kept: Sequence[Combine]) -> list[float]:
    """By what to multiply the changes that are kept of each model, so that their sizes sum to what all sizes summed to.

    kept: of each model, the sizes of what is kept, and 0 elsewhere. 1 where nothing is.
    """
    sums = survey.sums([*map(SizeOf, range(survey.models)), *kept]).reshape(2, -1)
    return [float(whole / part) if part > 0 else 1.0 for whole, part in sums.T]
