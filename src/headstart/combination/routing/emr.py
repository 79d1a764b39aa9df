"""EMR-Merging: elect one change for all models, mask it for each, rescale what is left.

Huang, Ye, Chen, He, Hu, Ouyang and Zhang, "EMR-Merging: Tuning-Free High-Performance Model Merging", NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headstart.core import MergeView, Needs, Routed, Steps, Unfit
from headstart.numerics.delta import Dense, Form, picked
from headstart.numerics.routers import routed_by_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Emr:
    """Keep one change for all models, a bit of each number for every model, and one factor a model.

    Shapes: a tensor of n entries as n numbers for all models, and n bits for each of the K; n * (K + 4) numbers alive.
    Returns: the base, the elected change, masks of it, and a router where rows are named.
    Errors: `Unfit` for settings out of range.

    The factor makes up for what the mask takes away: the sum over the tensors of the mean size of the model's changes,
    over that of what it picked. Every tensor counts alike in it, as in the published code, however small.
    """

    needs = Needs(gives=("weights",), tasks=("single_label",), labels=False, same_base=True)
    claims = ("tells_tasks_apart", "source_order", "copies", "one_model")
    cites = "arXiv:2405.17461"

    steps: int = 300  # of the router
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise Unfit(f"steps={self.steps} cannot be", where="Emr(steps=…)", fix="use steps from 0")

    def __call__(self, view: MergeView, steps: Steps) -> Routed:
        common: dict[str, Form] = {}
        masks: list[dict[str, torch.Tensor]] = [{} for _ in view.models]
        whole, left = [0.0] * len(masks), [0.0] * len(masks)
        for name in view.tensors:
            changes = view.changes(name)
            elected = self._elect(changes)
            if not bool(elected.any()):
                continue
            common[name] = Dense(elected)
            for model, change in enumerate(changes):
                masks[model][name] = change * elected > 0
                whole[model] += float(change.abs().mean())
                left[model] += float((masks[model][name] * elected).abs().mean())
        factors = [w / one if one else 1.0 for w, one in zip(whole, left, strict=True)]
        experts: list[dict[str, Form]] = [
            {name: picked(mask, factor) for name, mask in one.items()}
            for one, factor in zip(masks, factors, strict=True)
        ]
        return routed_by_rows(view, experts, common, steps=self.steps, horizon=steps.horizon, seed=self.seed)

    def _elect(self, changes: Sequence[torch.Tensor]) -> torch.Tensor:
        """The sign of the sum, and the largest size among the changes that have it."""
        stacked = torch.stack(list(changes))
        sign = stacked.sum(dim=0).sign()
        return sign * torch.where(stacked * sign > 0, stacked.abs(), 0).amax(dim=0)
