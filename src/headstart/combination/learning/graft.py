"""Grafting: the few changes of a fine-tune that hold its skill, put into the base.

Panigrahi, Saunshi, Zhao and Arora, "Task-Specific Skill Localization in Fine-tuned Language Models", ICML 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Steps, Unfit
from headstart.numerics.learning import draws, gradient, loss, mean_loss
from headstart.numerics.masks import largest, overlap

Gate = Mapping[str, torch.Tensor]  # by tensor, true where the fine-tune's entry is taken
Curve = list[tuple[int, float]]
LOOKS = 10  # times that a gate is scored on all rows while it is refined


@dataclass(frozen=True, kw_only=True, slots=True)
class Graft:
    """Put a small share of every model's changes into the base, chosen by size and then by labelled rows.

    Shapes: models M, entries N; one model is alive, with gradients of its size; N scores, M gates of N entries each.
    Returns: the base with the union of the grafts; an entry that several models keep is the mean of theirs.
    Errors: `Unfit` for settings out of range.

    Every model keeps the same share, exactly: at first its largest changes, then those with the highest scores, from
    which the slope of the loss in the gate is taken at every step. Of all gates that were looked at, the one with the
    least loss stays. The paper hides gates behind a sigmoid ten away from its middle, whose slope is so small that it
    needs a learning rate of ten millions; here the gates themselves move. A model without rows of its own keeps its
    largest changes. The paper's share is 0.0001, for fine-tunes by SGD; Adam changes all entries, and needs more.
    """

    needs = Needs(gives=("weights", "gradients"), same_base=True)
    claims = ("source_order", "agreement", "one_model", "scale_zero", "objective_falls")
    cites = "arXiv:2302.06600"

    share: float = 0.01
    steps: int = 100  # of each model
    batch: int = 32  # rows of each task
    learning_rate: float = 0.1  # how far the score of a gate moves where the slope is that of the last one kept
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.steps < 0 or self.batch < 1:
            raise Unfit(
                f"share={self.share}, steps={self.steps}, batch={self.batch} cannot be",
                where="Graft(…)",
                fix="use a share from 0 to 1, steps from 0, batch from 1",
            )

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        models = range(len(view.models))
        own = [[t for t in range(len(view.tasks)) if view.own(t) in (None, m)] for m in models]
        # steps that are given are those of all models together: each sees its own tasks alone
        given = None if steps.horizon is None else ceil(steps.horizon * len(view.tasks) / sum(map(len, own)))
        gates, curves = [], []
        for model in models:
            gate, curve = self._refined(view, model, own[model], self.steps if given is None else given)
            gates.append(gate)
            curves += [curve] if curve else []
        mean = [(points[0][0], float(np.mean([value for _, value in points]))) for points in zip(*curves, strict=True)]
        shares = np.array([[float(g[n].any()) for g in gates] for n in view.tensors])
        return Learned(shares, _union(gates), curve=tuple(mean), facts=_facts(view, gates))

    def _refined(self, view: MergeView, model: int, own: Sequence[int], horizon: int) -> tuple[Gate, Curve]:
        sizes = {n: view.changes(n)[model].abs() for n in view.tensors}
        count = round(self.share * sum(s.numel() for s in sizes.values()))
        gate = best = largest(sizes, count)
        if not own:
            return gate, []
        scores = {n: g.float() for n, g in gate.items()}
        batches = {t: draws(view.rows(t), self.batch, self.seed + t) for t in own}
        curve = [(0, mean_loss(view, _grafted(view, model, gate), own))]
        for step in range(1, horizon + 1):
            chosen = [next(batches[t]) if t in batches else [] for t in range(len(view.tasks))]
            self._move(scores, _slopes(view, model, gate, chosen), count)
            gate = largest(scores, count)
            if step % max(1, horizon // LOOKS) == 0 or step == horizon:
                value = mean_loss(view, _grafted(view, model, gate), own)
                best = gate if value < curve[-1][1] else best
                curve.append((step, min(value, curve[-1][1])))
        return best, curve

    def _move(self, scores: dict[str, torch.Tensor], slopes: Gate, count: int) -> None:
        sizes = {n: s.abs() for n, s in slopes.items()}
        kept = largest(sizes, count)
        last = min((float(sizes[n][k].min()) for n, k in kept.items() if k.any()), default=0.0)
        for name, slope in slopes.items() if last > 0 else ():
            scores[name] -= self.learning_rate * (slope / last).clamp(-1, 1)


def _grafted(view: MergeView, model: int, gate: Gate) -> dict[str, torch.Tensor]:
    return {n: view.base(n) + g * view.changes(n)[model] for n, g in gate.items()}


def _slopes(view: MergeView, model: int, gate: Gate, chosen: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Of the loss on some rows, in every gate."""
    _, found = gradient(
        view, _grafted(view, model, gate), chosen,
        lambda t, logits: loss(logits, view.labels(t, chosen[t]), view.link(t)),
    )  # fmt: skip
    return {n: g * view.changes(n)[model] for n, g in found.items()}


def _union(gates: Sequence[Gate]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """(models, …) of each tensor in which anything is kept; what several keep is shared out among them."""
    out = {}
    for name in gates[0]:
        each = torch.stack([g[name] for g in gates]).float()
        if each.any():
            out[name] = (each / each.sum(0).clamp_min(1)).numpy()
    return out


def _facts(view: MergeView, gates: Sequence[Gate]) -> dict[str, object]:
    sizes = np.array([view.base(n).numel() for n in view.tensors])
    kept = [np.flatnonzero(np.concatenate([g[n].numpy().ravel() for n in view.tensors])) for g in gates]
    jaccard = np.eye(len(gates))
    for i, j in combinations(range(len(gates)), 2):
        jaccard[i, j] = jaccard[j, i] = round(overlap(kept[i], kept[j], sizes).jaccard, 6)
    return {"kept": [len(k) / int(sizes.sum()) for k in kept], "jaccard": jaccard.tolist()}
