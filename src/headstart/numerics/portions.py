"""Settings that are one number for all models, or one for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.core import Unfit

Array = np.ndarray[Any, Any]


def each(value: float | Sequence[float], models: int, setting: str, default: float = 1.0) -> Array:
    """(models,) float64: a number for all, one for each in their order, or the default where there is none.

    >>> each((), 2, "weights").tolist(), each((0.2, 0.8), 2, "weights").tolist()
    ([1.0, 1.0], [0.2, 0.8])
    """
    if isinstance(value, int | float):
        return np.full(models, float(value))
    if not value:
        return np.full(models, default)
    if len(value) != models:
        raise Unfit(
            f"`{setting}` has {len(value)} numbers, and there are {models} models",
            where=f"`{setting}={','.join(str(v) for v in value)}`",
            fix="give one number for each model, in their order; the base is not among them",
        )
    return np.asarray(value, dtype=np.float64)


def summing_to_one(weights: Array, setting: str = "weights") -> Array:
    """
    >>> summing_to_one(np.array([1.0, 3.0])).tolist()
    [0.25, 0.75]
    """
    total = float(weights.sum())
    if abs(total) < 1e-6 * max(1.0, float(np.abs(weights).max(initial=0.0))):
        raise Unfit(
            f"the weights sum to {total:g}, so there is no average",
            where=f"`{setting}={','.join(f'{w:g}' for w in weights)}`",
            fix="choose weights with a sum, or leave them as they are with normalize=false",
        )
    return weights / total


def fraction(value: float | Sequence[float], setting: str, *, zero: bool = False) -> None:
    """Raises `Unfit` unless every number lies in (0, 1], or [0, 1] where zero makes sense."""
    for one in (value,) if isinstance(value, int | float) else value:
        if not (0 <= one <= 1 if zero else 0 < one <= 1):
            raise Unfit(
                f"{setting} is {one}, and a fraction in {'[' if zero else '('}0, 1] is meant",
                where=f"`{setting}={one}`",
                fix=f"write a fifth as {setting}=0.2",
            )
