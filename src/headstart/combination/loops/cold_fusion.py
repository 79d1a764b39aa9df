"""ColD Fusion: contributors tune the shared body on their own, and what they give back is averaged.

Don-Yehiya, Venezian, Raffel, Slonim, Katz and Choshen, "ColD Fusion: Collaborative Descent for Distributed Multitask
Finetuning", ACL 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.core import Looped, MergeView, Needs, Steps, Unfit
from headstart.numerics.loops import Tuner, alone, check, explained, gained, lengths, mean, plain

Probe = list[np.ndarray[Any, Any]]
Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class ColdFusion:
    """Average what contributors made of the body, but for those with whom a linear probe does worse.

    Shapes: N weights of the body, tasks K; float32; the body, what the contributors of a round gave, and a mean are
    alive, and while one tunes, its gradient, with Adam two more of N; a contribution costs its steps and two passes
    over all rows, with the (D, D) moments of the features, D wide.
    Returns: the body after the last round; heads stay as they are.
    Errors: `Unfit` for settings out of range and tasks of fewer than 8 rows.

    A ridge probe, fitted on features of the other rows and scored on those held back, judges bodies by R², on average
    over the tasks. Contributions enter the mean from the best to the worst, all of them as long as it is not worse, by
    more than `slack` standard errors, than the best of these means; so what spoils the body is left out. A mean that is
    at all worse than the body does not replace it. The paper averages whatever comes. A contributor trains every entry
    of a copy of the body, in memory. With `start="models"` the models are the contributors of the first round.
    """

    needs = Needs(gives=("weights", "gradients", "features"), same_base=True)
    claims = ("never_worse_by_what_it_measures", "equal_bodies_stay")
    cites = "arXiv:2212.01378"

    start: str = "models"
    rounds: int = 5
    contributors: int = 8  # drawn for each round
    # of each contributor in a round; None is one pass over its rows
    steps: int | None = None
    batch: int = 32  # rows of a step; 0 is all
    learning_rate: float = 2e-5
    optimiser: str = "adam"  # or sgd; it begins anew with every contribution
    # how many standard errors worse than that of the best mean the probe of a mean of more may be
    slack: float = 1.0
    held: float = 0.3  # fraction of the rows of each task that only the probe is scored on
    seed: int = 0

    def __post_init__(self) -> None:
        check(
            "ColdFusion(…)", rounds=self.rounds, steps=self.steps, batch=self.batch, optimiser=self.optimiser,
            learning_rate=self.learning_rate, held=self.held,
        )  # fmt: skip
        if self.contributors < 1 or self.slack < 0:
            raise Unfit(
                f"contributors={self.contributors}, slack={self.slack} cannot be",
                where="ColdFusion(…)",
                fix="use contributors from 1, and a slack from 0",
            )

    def __call__(self, view: MergeView, body: Weights, steps: Steps) -> Looped:
        tuner = Tuner(
            view, optimiser=self.optimiser, learning_rate=self.learning_rate, batch=self.batch, seed=self.seed,
            held=self.held,
        )  # fmt: skip
        first, rng = self.start == "models" and self.rounds > 0, np.random.default_rng(self.seed)
        own = [self.steps or tuner.epoch(t) for t in range(len(view.tasks))]
        rounds, each = lengths(steps.horizon, self.rounds - first, own)
        known = tuner.probe(body)
        curve, told = [(0, -explained(known))], []
        for number in range(first + rounds):
            models = first and number == 0
            names = view.models if models else view.tasks
            chosen = self._drawn(rng, len(names))
            given = [alone(view, i) if models else tuner.tuned(body, {i: 1.0}, each[i]) for i in chosen]
            probes = [tuner.probe(one) for one in given]
            taken, found = self._taken(tuner, known, given, probes)
            if taken:
                body, known = mean([given[i] for i in taken]), found
            accounts = [
                {"of": names[one], "taken": i in taken, "probe": plain(explained(probes[i]))}
                for i, one in enumerate(chosen)
            ]
            told.append({"round": number + 1, "contributions": accounts})
            curve.append((number + 1, -explained(known)))
        return Looped(body, curve=tuple(curve), facts={"steps": each, "rounds": told})

    def _taken(
        self, tuner: Tuner, known: Probe, given: Sequence[Weights], probes: Sequence[Probe]
    ) -> tuple[list[int], Probe]:
        """Which contributions are averaged, none where no mean is as good as the body, and the probe of the mean."""
        order = sorted(range(len(given)), key=lambda i: (-explained(probes[i]), i))
        order = [i for i in order if np.isfinite(explained(probes[i]))]
        means = [probes[i] for i in order[:1]]
        means += [tuner.probe(mean([given[i] for i in order[:count]])) for count in range(2, len(order) + 1)]
        fit = [m for m in means if explained(m) >= explained(known)]
        if not fit:
            return [], known
        best = max(fit, key=explained)
        for count in range(len(means), 0, -1):
            gain, error = gained(best, means[count - 1])
            if explained(means[count - 1]) >= explained(known) and gain >= -self.slack * error:
                return order[:count], means[count - 1]
        raise AssertionError("the best mean is as good as itself")

    def _drawn(self, rng: np.random.Generator, count: int) -> list[int]:
        return sorted(rng.choice(count, min(self.contributors, count), replace=False).tolist())
