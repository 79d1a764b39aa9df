"""Model tinting: one merged body, and for each task its head once more, trained together with the shares of the models.

Jung, Kwon, Lee and Kim, "Tint Your Models Task-wise for Improved Multi-task Model Merging", 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Routed, Steps, Unfit
from headstart.numerics.delta import Dense, Form
from headstart.numerics.learning import Descent, draws, one_model, outputs, slopes
from headstart.numerics.routers import routed


@dataclass(frozen=True, kw_only=True, slots=True)
class Tint:
    """Learn shares of the models, and a head for each task, from what each model predicts of rows of its own task.

    Shapes: shares (tensors, models); a head a task is kept; one model is alive, with gradients of its size.
    Returns: the shares, what is added to each head, and a router on the mean last state of the merge.
    Errors: `Unfit` for settings out of range.

    A row teaches the label that its own model gives it, where the merge agrees, or is less sure of its own; where the
    merge is surer of another label, the row is left out, and a step without any row changes nothing. Reads no labels.
    The layer that each task has of its own is the head, as in the published code.
    """

    needs = Needs(gives=("weights", "gradients", "features"), tasks=("single_label",), labels=False, same_base=True)
    claims = ("tells_tasks_apart", "source_order", "copies", "one_model", "scale_zero")
    cites = "arXiv:2412.19098"

    start: float = 0.3
    steps: int = 500
    batch: int = 16  # rows of each task
    learning_rate: float = 1e-2
    router_steps: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.steps, self.router_steps) < 0:
            raise Unfit(
                f"batch={self.batch}, steps={self.steps}, router_steps={self.router_steps} cannot be",
                where="Tint(…)",
                fix="use batch from 1, and steps from 0",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Routed:
        tasks = range(len(view.tasks))
        taught = [self._taught(view, task) for task in tasks]
        heads = [{n: w.clone().requires_grad_() for n, w in view.head(task).items()} for task in tasks]
        adam = torch.optim.Adam([w for head in heads for w in head.values()], lr=self.learning_rate)
        spread = np.full((len(view.tensors), len(view.models)), self.start)
        descent = Descent(spread, partial(torch.optim.Adam, lr=self.learning_rate))
        batches = [draws(view.rows(t), self.batch, self.seed + t) for t in tasks]
        curve = []
        for step in range(self.steps if steps.horizon is None else steps.horizon):
            leaves = {n: w.requires_grad_() for n, w in view.shared(descent.values).items()}
            losses = []
            adam.zero_grad()
            for task, draw in zip(tasks, batches, strict=True):
                rows = next(draw)
                logits = view.logits({**leaves, **heads[task]}, task, rows)
                labels, sure = (told[rows] for told in taught[task])
                at = teaches(labels, sure, torch.softmax(logits.detach(), 1))
                if bool(at.any()):
                    value = torch.nn.functional.cross_entropy(logits[at], labels[at])
                    (value / len(tasks)).backward()  # type: ignore[no-untyped-call]  # torch has no annotation there
                    losses.append(float(value.detach()))
            if losses:
                adam.step()
                found = {n: w.grad if w.grad is not None else torch.zeros_like(w) for n, w in leaves.items()}
                descent.step(slopes(view, found))
                curve.append((step, float(np.mean(losses))))
        return self._kept(view, descent.values, heads, curve, steps.horizon)

    def _taught(self, view: MergeView, task: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels that a task's own model gives its rows, and how sure it is."""
        logits = outputs(view, one_model(view, view.own(task) or 0), task)
        sure, labels = torch.softmax(logits, 1).max(1)
        return labels, sure

    def _kept(
        self, view: MergeView, shares: np.ndarray[tuple[int, int], np.dtype[np.float64]],
        heads: list[dict[str, torch.Tensor]], curve: list[tuple[int, float]], horizon: int | None,
    ) -> Routed:  # fmt: skip
        experts: list[dict[str, Form]] = [{} for _ in view.models]
        for task, head in enumerate(heads):
            before = view.head(task)
            changed = {n: w.detach() - before[n] for n, w in head.items()}
            experts[view.own(task) or 0] = {n: Dense(c) for n, c in changed.items() if bool(c.any())}
        steps = self.router_steps if horizon is None else horizon
        router, _, facts = routed(view, view.shared(shares), steps=steps, seed=self.seed)
        return Routed(Learned(shares=shares, curve=tuple(curve), facts={"router": facts}), experts, router=router)


def teaches(labels: torch.Tensor, sure: torch.Tensor, merged: torch.Tensor) -> torch.Tensor:
    """(rows,) whether a row teaches. labels, sure: of its own model, (rows,); merged: (rows, classes), of the merge.

    >>> merged = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    >>> teaches(torch.tensor([0, 0, 0]), torch.tensor([0.6, 0.7, 0.5]), merged).tolist()
    [True, True, False]
    """
    chance, named = merged.max(1)
    return (named == labels) | (sure > chance)
