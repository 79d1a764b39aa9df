"""Isotonic regression on the mean of the standardised features.

Barlow, Bartholomew, Bremner and Brunk, "Statistical Inference under Order Restrictions", Wiley 1972.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Expectation, Experience, Needs
from headstart.numerics.conformal import by_target

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Isotonic:
    """Steps that never fall, over the mean of the features: all count alike, and their order alone matters.

    Shapes: features (n, d); time O(n·(d + log n)).
    Returns: an `Expectation`; beyond what was seen it stays at the first and last step.
    Errors: none.

    Every target counts alike. A feature that never varied counts nothing.
    """

    needs = Needs(labels=False)
    claims = ("row_order", "shift", "unit", "learns")
    cites = "Barlow et al., Statistical Inference under Order Restrictions, 1972"

    def __call__(self, past: Experience) -> Expectation:
        from sklearn.isotonic import IsotonicRegression

        share = by_target(past)
        centre = share @ past.features
        spread = np.sqrt(share @ np.square(past.features - centre))
        varying = spread > 1e-9 * np.abs(past.features).max(axis=0, initial=0.0)

        def mean(features: Array) -> Array:
            if not varying.any():
                return np.zeros(len(features))
            return np.asarray(((features - centre)[:, varying] / spread[varying]).mean(axis=1))

        steps = IsotonicRegression(out_of_bounds="clip").fit(mean(past.features), past.values, sample_weight=share)
        return lambda features: np.asarray(steps.predict(mean(features)), dtype=np.float64)
