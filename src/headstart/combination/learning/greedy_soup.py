"""Greedy soup: models join the average, best first, as long as it does not get worse.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Learned, MergeView, Needs, Steps
from headstart.numerics.learning import score


@dataclass(frozen=True, kw_only=True, slots=True)
class GreedySoup:
    """Average the models that make the average better on labelled rows.

    Shapes: models M; one model is alive; 2M - 1 passes over the rows.
    Returns: equal shares of the models that were taken, never a soup worse than the best model on these rows.
    Errors: none.

    Of equally good models the first comes first. Without a step, the best model alone.
    """

    needs = Needs(gives=("weights", "predictions"))
    claims = ("shares_sum_to_one", "no_worse_than_the_best_model")
    cites = "arXiv:2203.05482"

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        models = len(view.models)
        alone = [score(view, view.shared(_equal(view, [m]))) for m in range(models)]
        order = sorted(range(models), key=lambda m: (-alone[m], m))
        taken, best = order[:1], alone[order[0]]
        curve = [(0, -best)]
        for step, one in enumerate(order[1 : None if steps.horizon is None else 1 + steps.horizon], 1):
            found = score(view, view.shared(_equal(view, [*taken, one])))
            if found >= best:
                taken, best = [*taken, one], found
            curve.append((step, -best))
        facts = {"taken": [view.models[m] for m in taken], "alone": alone}
        return Learned(_equal(view, taken), curve=tuple(curve), facts=facts)


def _equal(view: MergeView, models: Sequence[int]) -> np.ndarray[Any, Any]:
    shares = np.zeros((len(view.tensors), len(view.models)))
    shares[:, list(models)] = 1 / len(models)
    return shares
