"""Settings of mergekit's documents: one value a tensor, of numbers, gradients over layers, and filters by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.combination import recipes
from headstart.core import Unfit

from .methods import REQUIRED

Setting = recipes.Setting


def resolved(key: str, default: Any, places: Sequence[recipes.Settings], tensor: str, t: float) -> Any:
    """The first place that says something for this tensor, else the default."""
    sort: type = bool if isinstance(default, bool) else float
    for place in places:
        if key in place:
            value = evaluated(place[key], tensor, t, sort)
            if value is not None:
                return value
    if default is REQUIRED:
        raise Unfit(f"`{key}` is missing for tensor `{tensor}`", where="recipe, `parameters`", fix=f"add `{key}`")
    return default


def evaluated(setting: Setting, tensor: str, t: float, sort: type) -> Any:
    """A setting's value for a tensor at t in [0, 1] of its slice's layers; None where no filter fits.

    >>> evaluated([0, 10, 0], "x", 0.25, float), evaluated([0, 10, 0], "x", 1.0, float)
    (5.0, 0.0)
    """
    if isinstance(setting, recipes.Conditional):
        setting = [setting]
    if not isinstance(setting, list):
        return _as(setting, sort)
    if not setting:
        return None
    for one in setting:
        if isinstance(one, recipes.Conditional) and (one.filter in (None, "*") or str(one.filter) in tensor):
            return evaluated(one.value, tensor, t, sort)
    if isinstance(setting[0], recipes.Conditional):
        return None
    values = [_as(v, sort) for v in setting]
    if sort is bool:
        return values[int(t * (len(values) - 1))]
    place = t * (len(values) - 1)
    left = int(place)
    right = min(len(values) - 1, left + 1)
    return (1 - (place - left)) * values[left] + (place - left) * values[right]


def _as(value: Any, sort: type) -> Any:
    """YAML reads `1e-5` as text."""
    try:
        if sort is bool:
            if isinstance(value, bool) or value in (0, 1):
                return bool(value)
            raise ValueError
        return float(value)
    except (TypeError, ValueError) as error:
        said = "true or false" if sort is bool else "a number"
        raise Unfit(f"{value!r} is not {said}", where="recipe, `parameters`", fix=f"write {said}") from error
