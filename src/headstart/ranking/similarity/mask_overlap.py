"""Mask overlap: whether two tasks, each learned from the same encoder, change the same weights.

Panigrahi, Saunshi, Zhao and Arora, "Task-Specific Skill Localization in Fine-tuned Language Models", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import numpy as np

from headstart.core import FitView, Needs, Steps, TaskSample, Unfit
from headstart.execution.fit import Recipe, train
from headstart.numerics.masks import overlap
from headstart.numerics.row_gradients import Array, matrices, task_head
from headstart.numerics.two_samples import require_one


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskOverlap:
    """Overlap of the weights that a short fine-tune on each task changes most, beyond what chance gives.

    Shapes: features (N, D) and labels (N,) of at most `rows` rows, drawn with `seed`; `steps` steps of AdamW on
    `batch_rows` rows each, all weights; an embedding numbers a `share` of the weights of each matrix.
    Returns: 0 for masks as alike as random ones, 1 for the same mask, below 0 for masks that avoid each other.
    Errors: `Unfit` for rows of a single class, label set or value, or a share outside (0, 1).

    A mask holds `share` of each matrix, those that moved farthest, and none that did not move: the paper takes a
    share of all weights, and optimises it from there. Within a matrix, chance is known exactly; over all weights,
    two masks would look alike for lying in the same layers, as they do for any task. `numerics.masks.overlap` also
    gives Jaccard's index and the deviations from chance. Each task starts from the same encoder, with a weak linear
    probe for a head: one that has solved the task leaves gradients near 0, and AdamW makes steps of full length of
    what noise they have.
    """

    needs = Needs(gives=("features", "gradients"), tasks=("single_label", "multi_label", "regression"))
    claims = ("symmetric", "class_names", "halves_nearer", "sees_labels")
    cites = "arXiv:2302.06600"

    share: float = 0.1
    rows: int = 256
    steps: int = 30
    batch_rows: int = 16
    learning_rate: float = 1e-3
    # inverse of the L2 penalty of the first head, C as in scikit-learn; a weak head leaves the encoder much to learn
    strength: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        for name, default in (
            ("rows", 256), ("steps", 30), ("batch_rows", 16), ("learning_rate", 1e-3), ("strength", 0.01),
        ):  # fmt: skip
            require_one(getattr(self, name), name, f"MaskOverlap({name}=…)", default)
        if not 0 < self.share < 1:
            raise Unfit(
                f"share is {self.share}, and must lie between 0 and 1",
                where="MaskOverlap(share=…)",
                fix="use 0.1, the default",
            )

    def embed(self, sample: TaskSample) -> dict[str, Array]:
        at, labels, head = task_head(sample, "mask_overlap", self.rows, self.seed, self.strength)
        encoder = sample.encoder
        weights = matrices(encoder)
        encoder.module.requires_grad_(False)
        for w in weights.values():
            w.requires_grad_(True)
        before = [w.detach().clone() for w in weights.values()]
        inputs = sample.inputs.take(at)
        fold = SimpleNamespace(
            task=sample.task,
            classes=0 if sample.task == "regression" else len(head.bias),
            seed=self.seed,
            train=SimpleNamespace(ids=[str(i) for i in at], inputs=inputs, labels=labels, features=sample.features[at]),
            valid=SimpleNamespace(inputs=inputs.slice(0, 0)),
        )  # what `train` reads of a fold, and no more
        recipe = Recipe(learning_rate=self.learning_rate, layer_decay=1.0, weight_decay=0.0, batch_rows=self.batch_rows)
        train(encoder, cast(FitView, fold), lambda *_: head, recipe, None, Steps(horizon=self.steps))  # see above
        sizes: list[int] = []
        kept: list[Array] = []
        for old, new in zip(before, weights.values(), strict=True):
            moved = (new.detach() - old).abs().double().cpu().numpy().ravel()
            # a matrix of which nothing learns, as that of a token the task does not show, would be alike for all tasks
            count = min(max(1, round(self.share * len(moved))), np.count_nonzero(moved))
            kept.append(np.sort(np.argsort(-moved, kind="stable")[:count]) + sum(sizes))
            sizes.append(len(moved))
        return {"kept": np.concatenate(kept), "sizes": np.array(sizes)}

    def __call__(self, source: Mapping[str, Array], target: Mapping[str, Array]) -> float:
        return overlap(source["kept"], target["kept"], source["sizes"]).beyond_chance
