"""Bank prior: settings that the best trials of the nearest past targets had.

Cao, You, Liu and Leskovec, "AutoTransfer: AutoML with Knowledge Transfer", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Known, Needs, PastTrials, Unfit
from headstart.numerics.records import novel

Array = np.ndarray[Any, Any]
CLOSEST = 1e-2  # distance below which two targets are not told apart: 1 / distance has no bound


@dataclass(frozen=True, kw_only=True, slots=True)
class BankPrior:
    """Frequency of each value among the best trials of the nearest targets, weighed by 1 / distance.

    weight(v) = (1 - explore) · sum over t of w(t) · frequency of v in t's best trials + explore / number of values;
    w(t) is proportional to 1 / (1 - similarity). Where the new target is novel, or no similarity is known, all past
    targets count, and alike. A setting that the best trials do not have gets equal weights.

    Shapes: T past targets, similarities (T,); cost as the number of trials.
    Returns: for each setting one weight a value of its space; each is at least explore / number of values.
    Errors: `Unfit` when nearest or best is below 1, or explore or novelty lies outside its range.

    The published code sorts trials by their test figures; here they have none but validation figures. It also gives no
    weight to a value that the best trials lack, so that no search ever comes to it, and divides by a distance of 0.
    """

    needs = Needs(labels=False)
    claims = ("target_order", "trial_order", "scale", "same_task")
    cites = "arXiv:2303.07669"

    nearest: int = 3
    best: int = 16
    # share of the weight that all values get alike, 0 to 1
    explore: float = 0.1
    # share of past targets that lie nearer to their nearest than a novel target does to its own
    novelty: float = 0.95

    def __post_init__(self) -> None:
        if self.nearest < 1 or self.best < 1 or not (0 <= self.explore <= 1 and 0 < self.novelty <= 1):
            raise Unfit(
                f"nearest {self.nearest}, best {self.best}, explore {self.explore} or novelty {self.novelty} cannot be",
                where="BankPrior(nearest=…, best=…, explore=…, novelty=…)",
                fix="use 3, 16, 0.1 and 0.95, the defaults",
            )

    def __call__(self, past: PastTrials, space: Mapping[str, Sequence[Any]], target: Known) -> dict[str, Array]:
        weights = self._weights(len(past.targets), target)
        advised = {}
        for name, values in space.items():
            mixed, total = np.zeros(len(values)), 0.0
            for weight, trials in zip(weights, past.trials, strict=True):
                counts = self._counts(trials, name, values)
                if weight > 0 and counts.sum() > 0:
                    mixed, total = mixed + weight * counts / counts.sum(), total + weight
            even = np.full(len(values), 1 / len(values))
            advised[name] = (1 - self.explore) * (mixed / total if total > 0 else even) + self.explore * even
        return advised

    def _weights(self, count: int, target: Known) -> Array:
        """(T,) of past targets, 0 for those that are not among the nearest."""
        near = np.full(count, np.nan) if target.similarities is None else np.asarray(target.similarities, dtype=float)
        if not np.isfinite(near).any() or novel(near, target.between, self.novelty):
            return np.ones(count)
        distance = np.where(np.isfinite(near), np.maximum(1 - near, CLOSEST), np.inf)
        kept = np.argsort(distance, kind="stable")[: self.nearest]
        weights = np.zeros(count)
        weights[kept] = 1 / distance[kept]
        return weights

    def _counts(self, trials: Sequence[tuple[Mapping[str, Any], float]], name: str, values: Sequence[Any]) -> Array:
        """How often each value stands among the best trials."""
        ranked = sorted(trials, key=lambda trial: -trial[1])[: self.best]
        held = [settings[name] for settings, _ in ranked if name in settings]
        return np.array([sum(value == one for one in held) for value in values], dtype=np.float64)
