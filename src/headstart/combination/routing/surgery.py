"""Representation surgery: a merged body, and for each task a small correction of the vectors that go into its head.

Yang, Shen, Wang, Guo, Chen, Wang and Tao, "Representation Surgery for Multi-Task Model Merging", ICML 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Routed, Steps, Unfit
from headstart.numerics.inserts import Correction
from headstart.numerics.learning import draws, one_model
from headstart.numerics.routers import routed


@dataclass(frozen=True, kw_only=True, slots=True)
class Surgery:
    """Learn z - up · relu(down · z), so that a task's vectors are those that its own model would have made.

    Shapes: vectors (rows, width) once by the merge and once by each model; 2 * rank * width numbers a task are kept.
    Returns: any merge, the corrections, and a router on the mean last state of the merge.
    Errors: `Unfit` for settings out of range.

    The distance is the mean absolute difference. Reads no labels. The published runs learn on the rows that they test
    on; here the rows are those given to learn from. The body stays as it is, so vectors are computed once.
    """

    needs = Needs(gives=("weights", "features"), tasks=("single_label",), labels=False, same_base=True)
    claims = ("tells_tasks_apart", "source_order", "copies", "one_model", "scale_zero")
    cites = "arXiv:2402.02705"

    merge: str = "task_arithmetic"
    settings: tuple[tuple[str, Any], ...] = (("scale", 0.3),)  # of that merge
    rank: int = 16
    steps: int = 1000
    batch: int = 16
    learning_rate: float = 1e-3
    router_steps: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or self.batch < 1 or min(self.steps, self.router_steps) < 0:
            raise Unfit(
                f"rank={self.rank}, batch={self.batch}, steps={self.steps}, router_steps={self.router_steps} cannot be",
                where="Surgery(…)",
                fix="use rank and batch from 1, and steps from 0",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Routed:
        shared = view.made(self.merge, dict(self.settings))
        count = self.steps if steps.horizon is None else steps.horizon
        corrections: list[Correction | None] = [None] * len(view.models)
        curves, gaps = [], {}
        for task in range(len(view.tasks)):
            own = view.own(task) or 0
            merged, wanted = _features(view, shared, task), _features(view, one_model(view, own), task)
            correction, curve = self._fitted(merged, wanted, count)
            curves.append(curve)
            gaps[view.tasks[task]] = [round(_gap(x, wanted), 6) for x in (merged, correction(merged))]
            corrections[own] = correction if bool(correction.up.any()) else None
        router, _, facts = routed(
            view, shared, steps=self.router_steps if steps.horizon is None else steps.horizon, seed=self.seed
        )
        means = enumerate(np.mean(np.array(curves), axis=0).tolist())
        learned = Learned(
            method=self.merge, settings=dict(self.settings), curve=tuple(means), facts={"router": facts, "gaps": gaps}
        )
        return Routed(learned, [{} for _ in view.models], router=router, corrections=corrections)

    def _fitted(
        self, merged: torch.Tensor, wanted: torch.Tensor, steps: int
    ) -> tuple[Correction, list[float]]:  # fmt: skip
        """A correction that brings (rows, width) of the merge nearer to those of a model, and the gap at each step."""
        generator = torch.Generator().manual_seed(self.seed)
        width = merged.shape[1]
        down = (torch.randn(self.rank, width, generator=generator) * width**-0.5).requires_grad_()
        up = torch.zeros(width, self.rank, requires_grad=True)
        adam = torch.optim.Adam([down, up], lr=self.learning_rate)
        batches, curve = draws(len(merged), self.batch, self.seed), []
        for _ in range(steps):
            rows = next(batches)
            gap = (Correction(down, up)(merged[rows]) - wanted[rows]).abs().mean()
            adam.zero_grad()
            gap.backward()  # type: ignore[no-untyped-call]  # torch has no annotation there
            adam.step()
            curve.append(float(gap.detach()))
        return Correction(down.detach(), up.detach()), curve


def _features(view: MergeView, weights: Mapping[str, torch.Tensor], task: int) -> torch.Tensor:
    with torch.no_grad():
        return view.features(weights, task, range(view.rows(task))).float()


def _gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().mean())
