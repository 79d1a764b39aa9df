"""SCE: select where models differ, weigh by energy, erase what disagrees.

Wan et al., "FuseChat: Knowledge Fusion of Chat Models", EMNLP 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import Needs, Selection, Survey, TensorContext
from headstart.numerics import scratch
from headstart.numerics.changes import Combine
from headstart.numerics.consensus import agreeing, elected, spread
from headstart.numerics.portions import fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Sce:
    """Merge the entries in which the changes vary most, each model by the share of its squared changes.

    Shapes: base and every tuned tensor (…), equal; float32; tiles, after one pass over each tensor, or with a density
    below 1 after five.
    Returns: base + scale * the mean of the selected changes that have the elected sign, weighted by energy.
    Errors: `Unfit` when density is outside (0, 1].

    density: of the entries whose changes are not all equal, how many are selected, of equal variances those that come
    first. With one model, or models that are all equal, nothing varies, and everything is kept at density 1.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True)
    claims = ("source_order", "agreement", "copies", "one_model", "scale_zero", "sign_symmetry")
    cites = "arXiv:2408.07990"
    trim = "tensor"

    density: float = 1.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        fraction(self.density, "density")

    def holds(self, shape: Sequence[int], models: int) -> float:
        """Tiles beside the inputs: all changes, their variance, what is selected, and what agrees."""
        del shape
        return 2 * models + 6

    def __call__(self, survey: Survey) -> Combine:
        chosen = self._selected(survey) if self.density < 1 else None
        energy = survey.sums([_Square(model, chosen) for model in range(survey.models)]) / survey.entries
        total = float(energy.sum())
        share = [float(one) / total for one in energy] if total > 0 else []

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            if not share:
                return base.clone()
            changes = _kept(context, base, tuned, range(len(tuned)), chosen)
            sign = elected(changes)
            for change, own in zip(changes, share, strict=True):
                change.mul_(own)
            return agreeing(changes, sign, share, "weight").mul_(self.scale).add_(base)

        return combine

    def _selected(self, survey: Survey) -> Selection:
        (varied,) = survey.sums([_varies])
        (chosen,) = survey.largest([_spread], [int(self.density * int(varied)) / survey.entries])
        return chosen


@dataclass(frozen=True, slots=True)
class _Square:
    """The squares of one model's changes where they are chosen, 0 elsewhere; float64."""

    model: int
    chosen: Selection | None

    def __call__(self, context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        (change,) = _kept(context, base, tuned, [self.model], self.chosen)
        return change.double().square_()


def _kept(
    context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor], models: Sequence[int],
    chosen: Selection | None,
) -> list[torch.Tensor]:  # fmt: skip
    """Changes of some models where they are chosen, 0 elsewhere."""
    mask = None if chosen is None else chosen(context, spread(base, tuned))
    changes = []
    for model in models:
        change = torch.from_numpy(scratch.empty(base.numel(), base.numpy().dtype)).view(base.shape)
        torch.sub(tuned[model], base, out=change)
        changes.append(change if mask is None else change.mul_(mask))
    return changes


def _spread(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
    del context
    return spread(base, tuned)


def _varies(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
    return _spread(context, base, tuned) != 0
