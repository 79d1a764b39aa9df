"""Weight-ensembling mixture of experts: in each feed-forward block, an input decides how much of each model it gets.

Tang, Shen, Luo, Yin, Zhang and Tao, "Merging Multi-Task Models via Weight-Ensembling Mixture of Experts", ICML 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Refused, Routed, Steps, Unfit
from headstart.numerics.delta import Form, smaller_of
from headstart.numerics.inserts import Mixture
from headstart.numerics.learning import draws, entropy
from headstart.numerics.routers import routed


@dataclass(frozen=True, kw_only=True, slots=True)
class Wemoe:
    """Merge all by task arithmetic, and learn for each feed-forward block gates, by the least entropy of predictions.

    Shapes: of K models each block's changes, (out, in) a matrix, stay apart, or `keep` of their rank; a gate has two
    layers, width * (width + K) numbers. Alive: one model, and the K changes of all blocks.
    Returns: the merge, the changes of the blocks, their gates, and a router for the heads.
    Errors: `Unfit` for settings out of range; `Refused` for models without such blocks.

    Gates are means over the tokens of one input that count, so what else is predicted beside it changes nothing, and
    they say how much is added to what task arithmetic took: gates of zero are the merge. Reads no labels. The
    published runs learn on the rows that they test on; here the rows are those given to learn from.
    """

    needs = Needs(gives=("weights", "gradients", "features"), tasks=("single_label",), labels=False, same_base=True)
    claims = ("tells_tasks_apart", "source_order")
    cites = "arXiv:2402.00433"

    start: float = 0.3
    keep: float = 1.0  # share of a matrix' singular values, once gates are learned
    steps: int = 1000
    batch: int = 16  # rows of each task
    learning_rate: float = 1e-4
    router_steps: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or self.batch < 1 or min(self.steps, self.router_steps) < 0:
            raise Unfit(
                f"keep={self.keep}, batch={self.batch}, steps={self.steps}, router_steps={self.router_steps} cannot be",
                where="Wemoe(…)",
                fix="use keep above 0 up to 1, batch from 1, and steps from 0",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Routed:
        blocks = view.blocks()
        if not blocks:
            raise Refused(
                "no two linear layers of these models widen a vector and narrow it again",
                where="feed-forward blocks of the models",
                fix="use a method that needs none, such as `twin_merge`",
            )
        shares = np.full((len(view.tensors), len(view.models)), self.start)
        weights = view.shared(shares)
        mixtures = [self._begun(names, width, len(view.models), number) for number, (names, width) in enumerate(blocks)]
        adam = torch.optim.Adam(
            [t.requires_grad_() for m in mixtures for layer in m.layers for t in layer], lr=self.learning_rate
        )
        tasks = range(len(view.tasks))
        batches = [draws(view.rows(t), self.batch, self.seed + t) for t in tasks]
        curve = []
        for step in range(self.steps if steps.horizon is None else steps.horizon):
            adam.zero_grad()
            total = 0.0
            for task, draw in zip(tasks, batches, strict=True):
                value = entropy(view.logits(weights, task, next(draw), mixtures), view.link(task)) / len(tasks)
                value.backward()  # type: ignore[no-untyped-call]  # torch has no annotation there
                total += float(value.detach())
            adam.step()
            curve.append((step, total))
        router, _, facts = routed(
            view, weights, steps=self.router_steps if steps.horizon is None else steps.horizon, seed=self.seed
        )
        learned = Learned(shares=shares, curve=tuple(curve), facts={"router": facts})
        made = [Mixture(m.tensors, tuple((w.detach(), b.detach()) for w, b in m.layers)) for m in mixtures]
        return Routed(
            learned, self._experts(view, [n for names, _ in blocks for n in names]), router=router, mixtures=made
        )

    def _begun(self, names: Sequence[str], width: int, models: int, number: int) -> Mixture:
        """Gates that are nearly zero for every input."""
        generator = torch.Generator().manual_seed(self.seed + number)
        first, second = (0.01 * torch.randn(n, width, generator=generator) for n in (width, models))
        return Mixture(tuple(names), ((first, torch.zeros(width)), (second, torch.zeros(models))))

    def _experts(self, view: MergeView, names: Sequence[str]) -> list[dict[str, Form]]:
        experts: list[dict[str, Form]] = [{} for _ in view.models]
        for name in names:
            for expert, change in zip(experts, view.changes(name), strict=True):
                if bool(change.any()):
                    expert[name] = smaller_of(change, self.keep)
        return experts
