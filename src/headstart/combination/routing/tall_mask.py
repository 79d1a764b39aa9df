"""TALL-masks: one change that is the sum of all, and a mask for each model of where it speaks for that model.

Wang, Dimitriadis, Ortiz-Jimenez, Fleuret and Frossard, "Localizing Task Information for Improved Model Merging and
Compression", ICML 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headstart.core import MergeView, Needs, Routed, Steps, Unfit
from headstart.numerics.delta import Dense, Form, picked
from headstart.numerics.routers import routed_by_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class TallMask:
    """Keep the sum of all changes, and for every model the places where its own are most of it.

    Shapes: a tensor of n entries as n numbers for all models, and n bits for each of the K; n * (K + 3) numbers alive.
    Returns: the base, the sum, masks of it, and a router where rows are named.
    Errors: `Unfit` for settings out of range.

    Where |own| > strictness * |sum - own|, the sum is taken. The paper chooses the strictness of each task on
    validation rows, between 0.2 and 0.6; here it is one for all.
    """

    needs = Needs(gives=("weights",), tasks=("single_label",), labels=False, same_base=True)
    claims = ("tells_tasks_apart", "source_order", "one_model")
    cites = "arXiv:2405.07813"

    strictness: float = 0.4
    steps: int = 300  # of the router
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.strictness < 0:
            raise Unfit(
                f"strictness={self.strictness}, steps={self.steps} cannot be",
                where="TallMask(…)",
                fix="use both from 0; the paper's strictness is 0.2 to 0.6",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Routed:
        common: dict[str, Form] = {}
        experts: list[dict[str, Form]] = [{} for _ in view.models]
        for name in view.tensors:
            changes = view.changes(name)
            total = torch.stack(list(changes)).sum(dim=0)
            if not bool(total.any()):
                continue
            common[name] = Dense(total)
            for expert, change in zip(experts, changes, strict=True):
                expert[name] = picked(change.abs() > self.strictness * (total - change).abs())
        return routed_by_rows(view, experts, common, steps=self.steps, horizon=steps.horizon, seed=self.seed)
