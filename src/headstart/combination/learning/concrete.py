"""Concrete subspace: one mask on the changes of all models, under which their merge is surest.

Tang, Shen, Luo, Ding, Hu, Du and Tao, "Concrete Subspace Learning based Interference Elimination for Multi-task Model
Fusion", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Steps, Unfit
from headstart.numerics.learning import Descent, draws, entropy, gradient, slopes

SURE = 1e-6  # how near to 0 and 1 chances that are drawn may come


@dataclass(frozen=True, kw_only=True, slots=True)
class Concrete:
    """Learn a mask that all models share, on entries or on rows of matrices, by the least entropy of predictions.

    Shapes: tensors T, models M; one chance for each entry of each tensor, or for each row; one model is alive, with
    gradients of its size; per entry, four times its size more, and a number for each entry of one model in the end.
    Returns: task arithmetic, or AdaMerging's shares, of masked changes; without a step, of the changes as they are with
    final="expectation", and of a random half of them, about, with final="sample".
    Errors: `Unfit` for settings out of range, and for tasks whose predictions are numbers.

    Reads no labels. At every step a mask is drawn from relaxed chances and divided by its mean in each tensor, so that
    it takes changes from some rows to others and not away. As published, there is a chance for
    each entry, and the mask in the end is one more draw. With few rows or little time prefer per="row", which has
    far fewer numbers to draw and to learn, and final="expectation", the chances themselves, which no draw spoils;
    `merge auto`, where a merge learns for a hundred steps, tries these. Of `adamerging`, the published loop
    learns the shares anew for each mask; here masks and shares go down the same slope together.
    """

    needs = Needs(gives=("weights", "gradients"), tasks=("single_label", "multi_label"), labels=False, same_base=True)
    claims = ("source_order", "agreement", "one_model", "scale_zero")
    cites = "arXiv:2312.06173"

    per: Literal["row", "entry"] = "entry"
    inner: Literal["task_arithmetic", "adamerging"] = "task_arithmetic"
    scale: float = 0.3  # of task arithmetic, and where shares begin
    final: Literal["expectation", "sample"] = "sample"
    temperature: float = 0.5  # the lower, the nearer draws are to 0 and 1
    steps: int = 2000
    batch: int = 16  # rows of each task
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per not in ("row", "entry") or self.final not in ("expectation", "sample"):
            raise Unfit(
                f"per={self.per}, final={self.final} cannot be",
                where="Concrete(…)",
                fix="use per=row or entry, and final=expectation or sample",
            )
        if self.inner not in ("task_arithmetic", "adamerging"):
            raise Unfit(
                f"no merge `{self.inner}` is known here",
                where="Concrete(inner=…)",
                fix="use task_arithmetic or adamerging",
            )
        if not self.temperature > 0 or self.steps < 0 or self.batch < 1:
            raise Unfit(
                f"temperature={self.temperature}, steps={self.steps}, batch={self.batch} cannot be",
                where="Concrete(…)",
                fix="use a temperature above 0, steps from 0, batch from 1",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        generator = torch.Generator().manual_seed(self.seed)
        logits = [torch.zeros(self._places(view.base(n).shape), requires_grad=True) for n in view.tensors]
        descent = torch.optim.Adam(logits, lr=self.learning_rate)
        shares = Descent(
            np.full((len(view.tensors), len(view.models)), self.scale), partial(torch.optim.Adam, lr=self.learning_rate)
        )
        batches = [draws(view.rows(t), self.batch, self.seed + t) for t in range(len(view.tasks))]
        curve = []
        for step in range(self.steps if steps.horizon is None else steps.horizon):
            masks = [_even(self._drawn(x, generator)) for x in logits]
            value, slope = self._step(view, shares.values, masks, [next(b) for b in batches])
            descent.step()
            descent.zero_grad()
            if self.inner == "adamerging":
                shares.step(slopes(view, slope))
                shares.clamp(0.0, 1.0)
            curve.append((step, value))
        with torch.no_grad():
            final = [torch.sigmoid(x) if self.final == "expectation" else self._drawn(x, generator) for x in logits]
            gates = {n: _even(m)[None].numpy() for n, m in zip(view.tensors, final, strict=True)}
        return Learned(shares.values, gates, curve=tuple(curve), facts=_facts(final))

    def _places(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A number for each entry, or for all that lies behind one index of the first axis."""
        return tuple(shape) if self.per == "entry" else (*shape[:1], *[1] * (len(shape) - 1))

    def _drawn(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A draw between 0 and 1 that has a slope in the logits: nearly Bernoulli at a low temperature."""
        chances = torch.rand(logits.shape, generator=generator).clamp(SURE, 1 - SURE)
        return torch.sigmoid((logits + torch.logit(chances)) / self.temperature)

    def _step(
        self, view: MergeView, shares: np.ndarray[Any, Any], masks: Sequence[torch.Tensor], rows: Sequence[list[int]]
    ) -> tuple[float, dict[str, torch.Tensor]]:
        """The entropy and its gradients in the masked sums of changes; those in the masks go to the logits."""
        sums = {n: w - view.base(n) for n, w in view.shared(shares).items()}
        flat = {n: m.detach() for n, m in zip(view.tensors, masks, strict=True)}
        value, found = gradient(
            view, {n: view.base(n) + flat[n] * sums[n] for n in sums}, rows,
            lambda t, logits: entropy(logits, view.link(t)),
        )  # fmt: skip
        for name, mask in zip(view.tensors, masks, strict=True):
            mask.backward((found[name] * sums[name]).sum_to_size(mask.shape))  # type: ignore[no-untyped-call]
        return value, {n: g * flat[n] for n, g in found.items()}


def _even(mask: torch.Tensor) -> torch.Tensor:
    """With a mean of 1."""
    return mask / mask.mean()


def _facts(chances: Sequence[torch.Tensor]) -> dict[str, Any]:
    every = torch.cat([c.flatten() for c in chances])
    low, middle, high = (round(float(torch.quantile(every[: 1 << 24], q)), 6) for q in (0.05, 0.5, 0.95))
    return {"mask": {"lowest_twentieth": low, "median": middle, "highest_twentieth": high}}
