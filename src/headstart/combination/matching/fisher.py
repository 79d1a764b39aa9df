"""Fisher merging: each entry is a mean, weighted by how much each model's predictions hang on it.

Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, Passes, Seen, TensorContext, Unfit
from headstart.numerics.matching import by_entries


@dataclass(frozen=True, kw_only=True, slots=True)
class Fisher:
    """Average models entry by entry, each by the diagonal of its Fisher information on its own task.

    Shapes: all tensors (…), equal; float32 in, float32 out; squares of the same shape; peak about 8 copies of a tensor.
    Returns: sum of (squares + floor) * model over the sum of (squares + floor).
    Errors: `Unfit` for a floor that is not above 0.

    The Fisher information is the expectation over what the model itself predicts, row by row. Public code squares the
    gradient of a batch's sum instead, which is another number. A tensor without passes, such as one that is frozen, is
    the mean.
    """

    needs = Needs(gives=("weights", "gradients"), labels=False, whole_tensors=True, copies=8)
    claims = ("source_order", "agreement", "one_model", "equal_passes_give_the_mean", "unseen_models_say_nothing")
    cites = "arXiv:2111.09832"

    # added to every square, so that entries on which nothing hangs are averaged
    floor: float = 1e-6

    def __post_init__(self) -> None:
        if not self.floor > 0:
            raise Unfit(f"a floor of {self.floor} is not above 0", where="Fisher(floor=…)", fix="use 1e-6")

    @property
    def asks(self) -> tuple[Seen, ...]:
        return ("squares",)

    def __call__(
        self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor], passes: Sequence[Passes]
    ) -> torch.Tensor:
        del context, base
        seen = [p.squares for p in passes]
        care = [
            torch.full_like(t, self.floor) if s is None else s + self.floor for s, t in zip(seen, tuned, strict=True)
        ]
        return by_entries(tuned, care)
