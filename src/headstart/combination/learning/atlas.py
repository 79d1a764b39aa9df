"""aTLAS: every tensor of every change has a coefficient of its own, learned from a few labelled rows.

Zhang, Albert, Rodriguez-Opazo, van den Hengel and Abbasnejad, "Knowledge Composition using Task Vectors with Learned
Anisotropic Scaling", NeurIPS 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any
from zlib import crc32

import numpy as np
import torch

from headstart.core import Learned, MergeView, Needs, Steps, Unfit
from headstart.numerics.learning import Descent, draws, gradient, loss, slopes

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Atlas:
    """Learn shares of the models, one a tensor, by the loss on labelled rows; the base is where it begins.

    Shapes: tensors T, models M, parts P, shares (T, M, P); one model is alive, with gradients of its size; changes are
    read one by one; with parts, a byte for each entry more, and in the end a number for each entry of each change.
    Returns: the shares; without a step, zeros: the base.
    Errors: `Unfit` for settings out of range.

    Made for a target that none of the models was tuned for: with T times M numbers to learn it takes few rows. With
    parts, the entries of a matrix are dealt at random to so many parts with a share each, for targets with more rows.
    Public code leaves out tensors that are no matrices then; here each of them keeps one share.
    """

    needs = Needs(gives=("weights", "gradients"), same_base=True)
    claims = ("source_order", "scale_zero", "objective_falls", "finds_the_task")
    cites = "arXiv:2407.02880"

    epochs: int = 10
    batch: int = 32  # rows of each task
    least_steps: int = 100  # where ten epochs of few rows are fewer
    learning_rate: float = 0.1
    weight_decay: float = 0.1
    parts: int = 1  # of each matrix, up to 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1 or self.least_steps < 0:
            raise Unfit(
                f"epochs={self.epochs}, batch={self.batch}, least_steps={self.least_steps} cannot be",
                where="Atlas(…)",
                fix="use epochs and least_steps from 0, batch from 1",
            )
        if not 1 <= self.parts <= 256:
            raise Unfit(f"{self.parts} parts cannot be", where="Atlas(parts=…)", fix="use 1 to 256")

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        rows = max(view.rows(t) for t in range(len(view.tasks)))
        horizon = max(self.least_steps, self.epochs * ceil(rows / self.batch))
        horizon = horizon if steps.horizon is None else steps.horizon
        adam = partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=self.weight_decay)
        places = {n: self._dealt(n, view.base(n).shape) for n in view.tensors}
        descent = Descent(np.zeros((len(view.tensors), len(view.models), self.parts)), adam)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(descent.optimiser, max(1, horizon))
        batches = [draws(view.rows(t), self.batch, self.seed + t) for t in range(len(view.tasks))]
        curve = []
        for step in range(horizon):
            chosen = [next(b) for b in batches]
            value, slope = gradient(
                view, self._weights(view, descent.values, places), chosen,
                lambda t, logits: loss(logits, view.labels(t, chosen[t]), view.link(t)),  # noqa: B023  # used at once
            )  # fmt: skip
            descent.step(self._slopes(view, slope, places), longest=1.0)
            falling.step()
            curve.append((step, value))
        return self._learned(view, descent.values, places, tuple(curve))

    def _dealt(self, name: str, shape: Sequence[int]) -> Array:
        """Of each entry the number of its part; by the seed and the tensor's name alone."""
        if len(shape) < 2 or self.parts == 1:
            return np.zeros((1,) * len(shape), np.uint8)
        return np.random.default_rng([self.seed, crc32(name.encode())]).integers(self.parts, size=shape, dtype=np.uint8)

    def _weights(self, view: MergeView, values: Array, places: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        if self.parts == 1:
            return view.shared(values[..., 0])
        out = {}
        for shares, name in zip(values.astype(np.float32), view.tensors, strict=True):
            out[name] = view.base(name).clone()
            for share, change in zip(shares, view.changes(name), strict=True):
                out[name] += torch.from_numpy(share[places[name]]) * change
        return out

    def _slopes(self, view: MergeView, slope: Mapping[str, torch.Tensor], places: Mapping[str, Array]) -> Array:
        if self.parts == 1:
            return slopes(view, slope)[..., None]
        out = np.zeros((len(view.tensors), len(view.models), self.parts))
        for i, name in enumerate(view.tensors):
            flat = np.broadcast_to(places[name], slope[name].shape).ravel()
            for m, change in enumerate(view.changes(name)):
                out[i, m] = np.bincount(flat, (slope[name] * change).numpy().ravel(), self.parts)
        return out

    def _learned(
        self, view: MergeView, values: Array, places: Mapping[str, Array], curve: tuple[tuple[int, float], ...]
    ) -> Learned:
        if self.parts == 1:
            return Learned(values[..., 0], curve=curve)
        found = zip(values.astype(np.float32), view.tensors, strict=True)
        gates = {n: np.stack([share[places[n]] for share in shares]) for shares, n in found}
        return Learned(np.ones(values.shape[:2]), gates, curve=curve)
