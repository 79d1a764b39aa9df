"""PCB-Merging: let parameters compete, within a task and between tasks.

Du et al., "Parameter Competition Balancing for Model Merging", NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from headstart.core import Needs, Survey, TensorContext
from headstart.numerics.changes import Combine, SizeOf
from headstart.numerics.portions import fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Pcb:
    """Weigh every change by how large it is in its task and how well it goes with the others; keep the best few.

    Shapes: base and every tuned tensor (…), equal; float32; tiles, after four passes over all of them.
    Returns: base + scale * the mean of the changes, weighted by their scores above the `density` best of each model.
    Errors: `Unfit` when density or clip is no fraction.

    The score is exp(K n²) tanh(change · sum of changes), n the size of the change between the smallest and the largest
    of its model, both without the `clip` most extreme. Scores below 0 count as 0: where fewer than `density` are
    above, the published code keeps some that are below. That tanh sees plain products, so that small changes compete
    less.
    """

    needs = Needs(gives=("weights",), labels=False, same_base=True, copies=30)
    claims = ("source_order", "agreement", "scale_zero", "sign_symmetry")
    cites = "arXiv:2410.02396"

    density: float = 0.1
    clip: float = 0.0001
    scale: float = 1.2
    trim: Literal["model", "tensor"] = "model"

    def __post_init__(self) -> None:
        fraction(self.density, "density")
        fraction(self.clip, "clip", zero=True)

    def __call__(self, survey: Survey) -> Combine:
        models, entries = range(survey.models), survey.entries
        sizes = [SizeOf(k) for k in models]
        low, high = int(entries * self.clip), max(0, int(entries * (1 - self.clip) - 1))
        ends = survey.ranked([*sizes, *sizes], [low] * len(models) + [high] * len(models)).reshape(2, -1)
        scores = [_score_of(k, *ends[:, k].tolist()) for k in models]
        border = min(entries - 1, int(entries * (1 - self.density)))
        found = survey.ranked([*scores, *scores], [border] * len(models) + [entries - 1] * len(models)).reshape(2, -1)

        def combine(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
            total, weights = torch.zeros_like(base), torch.zeros_like(base)
            for k in models:
                change = tuned[k] - base
                clipped = change.sign() * change.abs().clamp(*ends[:, k].tolist())
                weight = _between(scores[k](context, base, tuned), *found[:, k].tolist())
                total += clipped * weight
                weights += weight
            return base + self.scale * total / weights.clamp_min(1e-12)

        return combine


def _score_of(model: int, low: float, high: float) -> Combine:
    def score(context: TensorContext, base: torch.Tensor, tuned: Sequence[torch.Tensor]) -> torch.Tensor:
        del context
        change = tuned[model] - base
        together = torch.stack([one - base for one in tuned]).sum(dim=0)
        within = _between(change.abs(), low, high).square().mul(len(tuned)).exp()
        return (within * torch.tanh(change * together)).clamp_min(0)

    return score


def _between(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """0 at low and below, 1 at high and above."""
    return (values.clamp(low, high) - low) / (high - low) if high > low else torch.zeros_like(values)
