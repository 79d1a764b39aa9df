"""Greedy soup: models join the average, best first, as long as it does not get worse.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from headstart.core import Learned, MergeView, Needs, Steps
from headstart.numerics.learning import score
from headstart.numerics.soups import greedy_soup


@dataclass(frozen=True, kw_only=True, slots=True)
class GreedySoup:
    """Average the models that make the average better on labelled rows.

    Shapes: models M; one model is alive; 2M - 1 passes over the rows.
    Returns: equal shares of the models that were taken, never a soup worse than the best model on these rows.
    Errors: none.

    Of equally good models the first comes first. Without a step, the best model alone.
    """

    needs = Needs(gives=("weights", "predictions"), tasks=("single_label", "multi_label", "regression"))
    claims = ("source_order", "agreement", "one_model", "shares_sum_to_one", "no_worse_than_the_best_model")
    cites = "arXiv:2203.05482"

    def __call__(self, view: MergeView, steps: Steps) -> Learned:
        models = len(view.models)
        alone = [score(view, view.shared(_equal(view, [m]))) for m in range(models)]
        curve = [(0, -max(alone))]

        def tried(soup: tuple[int, ...]) -> float:
            if len(soup) == 1:
                return alone[soup[0]]
            if steps.horizon is not None and len(curve) > steps.horizon:
                return -inf  # no more are tried
            found = score(view, view.shared(_equal(view, soup)))
            curve.append((len(curve), min(-found, curve[-1][1])))
            return found

        taken = greedy_soup(alone, tried)
        facts = {"taken": [view.models[m] for m in taken], "alone": alone}
        return Learned(_equal(view, taken), curve=tuple(curve), facts=facts)


def _equal(view: MergeView, models: Sequence[int]) -> np.ndarray[Any, Any]:
    shares = np.zeros((len(view.tensors), len(view.models)))
    shares[:, list(models)] = 1 / len(models)
    return shares
