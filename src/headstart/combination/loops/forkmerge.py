"""ForkMerge: the target learns alone and with each auxiliary task, and the branches are merged by what helps it.

Jiang, Chen, Pan, Wang and Long, "ForkMerge: Mitigating Negative Transfer in Auxiliary-Task Learning", NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.core import Looped, MergeView, Needs, Steps, Unfit
from headstart.numerics.loops import Tuner, alone, check, lengths, mean, plain

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class ForkMerge:
    """Fork the body into the target alone and the target with each other task, and merge the branches that help it.

    Shapes: N weights of the body, tasks K of which the first is the target; float32; all K branches, their mean and the
    best body so far are alive, and while a branch is tuned its gradient, with Adam two more of N.
    Returns: the merge, of all rounds, that does best on rows of the target held back; heads stay as they are.
    Errors: `Unfit` for settings out of range and tasks of fewer than 8 rows.

    The best branch has the coefficient 1; each next one 0, .2, … or 1 times the mean of those before it, whichever is
    best, of equals the least; together they sum to one. So a merge is never worse on the rows held back than its best
    branch. These rows choose often: verify on others. The paper's code ranks many auxiliaries by a first epoch and
    forks few branches of several; here each has a branch of its own. In a branch every entry of a copy of the body is
    trained, in memory. With `start="models"` the models are the branches of the first round.
    """

    needs = Needs(gives=("weights", "gradients"), same_base=True)
    claims = ("never_worse_by_what_it_measures", "no_worse_than_any_branch", "equal_bodies_stay")
    cites = "arXiv:2301.12618"

    start: str = "models"
    rounds: int = 5
    # of each branch in a round; None is one pass over the target's rows
    steps: int | None = None
    batch: int = 32  # rows of each task in a step; 0 is all
    learning_rate: float = 2e-5
    optimiser: str = "adam"  # or sgd; it begins anew with every branch
    auxiliary: float = 1.0  # weight of an auxiliary task's loss beside the target's
    held: float = 0.3  # fraction of the rows that nothing is tuned on
    seed: int = 0

    def __post_init__(self) -> None:
        check(
            "ForkMerge(…)", rounds=self.rounds, steps=self.steps, batch=self.batch, optimiser=self.optimiser,
            learning_rate=self.learning_rate, held=self.held,
        )  # fmt: skip
        if not self.auxiliary > 0:
            raise Unfit(
                f"a weight of {self.auxiliary} leaves the auxiliary tasks out",
                where="ForkMerge(auxiliary=…)",
                fix="use 1",
            )

    def __call__(self, view: MergeView, body: Weights, steps: Steps) -> Looped:
        tuner = Tuner(
            view, optimiser=self.optimiser, learning_rate=self.learning_rate, batch=self.batch, seed=self.seed,
            held=self.held,
        )  # fmt: skip
        first = self.start == "models" and self.rounds > 0
        rounds, (each,) = lengths(steps.horizon, self.rounds - first, [self.steps or tuner.epoch(0)])
        best, highest = body, tuner.score(body, 0)
        curve, told = [(0, -highest)], []
        for number in range(first + rounds):
            if first and number == 0:
                branches: Mapping[str, Weights] = {name: alone(view, m) for m, name in enumerate(view.models)}
            else:
                branches = self._forked(view, tuner, body, each)
            scores = [tuner.score(b, 0) for b in branches.values()]
            body, found, parts = _merged(tuner, list(branches.values()), scores)
            if found > highest:
                best, highest = body, found
            each_branch = [
                {"branch": n, "score": plain(s), "part": p} for n, s, p in zip(branches, scores, parts, strict=True)
            ]
            told.append({"round": number + 1, "score": plain(found), "branches": each_branch})
            curve.append((number + 1, -highest))
        return Looped(best, curve=tuple(curve), facts={"steps": each, "rounds": told})

    def _forked(self, view: MergeView, tuner: Tuner, body: Weights, steps: int) -> dict[str, Weights]:
        target, *others = view.tasks
        found: dict[str, Weights] = {target: tuner.tuned(body, {0: 1.0}, steps)}
        for number, name in enumerate(others, 1):
            found[f"{target} with {name}"] = tuner.tuned(body, {0: 1.0, number: self.auxiliary}, steps)
        return found


def _merged(tuner: Tuner, branches: Sequence[Weights], scores: Sequence[float]) -> tuple[Weights, float, list[float]]:
    """The branches with coefficients found one by one, its score, and the coefficients, which sum to one."""
    order = sorted(range(len(branches)), key=lambda i: (-scores[i], i))
    fixed, best, highest = [1.0], branches[order[0]], scores[order[0]]
    for count in range(2, len(order) + 1):
        chosen = 0.0
        for step in (0.2, 0.4, 0.6, 0.8, 1.0):  # 0 is what there is
            one = step * float(np.mean(fixed))
            merged = mean([branches[i] for i in order[:count]], [*fixed, one])
            found = tuner.score(merged, 0)
            if found > highest:
                best, highest, chosen = merged, found, one
        fixed.append(chosen)
    parts = dict(zip(order, (np.array(fixed) / sum(fixed)).tolist(), strict=True))
    return best, highest, [round(parts[i], 6) for i in range(len(branches))]
