"""Gradient boosting of trees that never fall in a feature.

Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics 2001; scikit-learn's
histogram form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Expectation, Experience, Needs
from headstart.numerics.conformal import by_target

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Boosting:
    """Boosted trees under monotone constraints: sees what depends on two features together.

    rounds: trees. rate: of learning. leaf: pairs of target and source in a leaf at least.

    Shapes: features (n, d); time O(rounds · n · d).
    Returns: an `Expectation`; beyond what was seen it stays where it was.
    Errors: none.

    Wants hundreds of pairs; below that `ridge` says as much and is steadier. Every target counts alike.
    """

    needs = Needs(labels=False)
    claims = ("shift", "learns")
    cites = "doi:10.1214/aos/1013203451"

    rounds: int = 60
    rate: float = 0.1
    leaf: int = 10

    def __call__(self, past: Experience) -> Expectation:
        from sklearn.ensemble import HistGradientBoostingRegressor

        share = by_target(past)
        level = float(share @ past.values)
        trees = HistGradientBoostingRegressor(
            max_iter=self.rounds,
            learning_rate=self.rate,
            min_samples_leaf=self.leaf,
            monotonic_cst=[1] * past.features.shape[1],
            early_stopping=False,
            random_state=0,
        )
        trees.fit(past.features, past.values - level, sample_weight=share * len(share))
        return lambda features: np.asarray(level + trees.predict(features), dtype=np.float64)
