"""1bit-Merging: of each model only the signs of its changes, and one size a row, added for inputs of its task.

Liu, Liang, Wang, Chen, Yao, Zhang and Bing, "1bit-Merging: Dynamic Quantized Merging for Large Language Models", 2025;
the form of the changes: Liu et al., "BitDelta: Your Fine-Tune May Only Be Worth One Bit", NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch

from headstart.core import MergeView, Needs, Routed, Steps, Unfit
from headstart.numerics.delta import Dense, Form, one_bit
from headstart.numerics.routers import routed_by_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class OnebitMerge:
    """Keep a bit of every number that a model changed, and merge into the shared body what is named so.

    Shapes: a matrix (out, in) as out * in bits and out sizes; one model and one change alive.
    Returns: the base with the merged tensors, signs with sizes for each model, and a router where rows are named.
    Errors: `Unfit` for settings out of range.

    The size is the mean of the row's changes, which is nearest to them in squares; a change of 0 counts as plus.
    Vectors are kept whole. The paper merges the layers that hold less of the skill, MLPs of chat models or attention of
    those for mathematics: name them in `merged`. BitDelta's tuning of the sizes by distillation is not here.
    """

    needs = Needs(gives=("weights",), tasks=("single_label",), labels=False, same_base=True)
    claims = ("nearer_than_shared", "tells_tasks_apart", "source_order")
    cites = "arXiv:2502.10743"

    merged: tuple[str, ...] = ("*embed*",)  # tensors that all tasks share, by patterns of their names
    scale: float | None = None  # of the sum of changes of those; None is their mean
    rows: bool = True  # a size for every row; else one for a tensor
    steps: int = 300  # of the router
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 0 or not all(isinstance(p, str) and p for p in self.merged):
            raise Unfit(
                f"steps={self.steps}, merged={self.merged} cannot be",
                where="OnebitMerge(…)",
                fix="use steps from 0, and patterns such as *mlp*",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Routed:
        scale = 1 / len(view.models) if self.scale is None else self.scale
        shares = np.zeros((len(view.tensors), len(view.models)))
        experts: list[dict[str, Form]] = [{} for _ in view.models]
        for at, name in enumerate(view.tensors):
            if any(fnmatchcase(name, pattern) for pattern in self.merged):
                shares[at] = scale
                continue
            for expert, change in zip(experts, view.changes(name), strict=True):
                if bool(change.any()):
                    expert[name] = self._signs(change)
        return routed_by_rows(
            view, experts, {}, steps=self.steps, horizon=steps.horizon, seed=self.seed, shares=shares
        )  # fmt: skip

    def _signs(self, change: torch.Tensor) -> Form:
        return one_bit(change, rows=self.rows) if change.dim() > 1 else Dense(change)
