"""Pools: what estimators said of the sources of one target, and what came of each; brought to features by which
targets can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.core import Experience

from .records import standard

Array = np.ndarray[Any, Any]
KNOWN = 0.5  # share of the past targets that a proxy must have been asked on
HISTORY, BEHIND, ROOM = "history", "behind", "room"


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Pool:
    """S sources on one target. NaN where something is unknown.

    sources: what each is called, the same on all targets. proxies: (S,) by name, higher is better. base: (S,) a figure
    that is known of each before any training, such as that of its probe, in the target's metric with higher better.
    values: (S,) what came of training it, in the same units.
    """

    target: str
    sources: tuple[str, ...]
    proxies: Mapping[str, Array] = field(default_factory=dict)
    base: Array | None = None
    values: Array | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Read:
    """Features of past pairs and of the new target's sources (S, d), with their names, and what the values start from.

    start: (S,) to be added to what is learned: the base where pools have one, else 0.
    """

    past: Experience
    new: Array
    start: Array
    names: tuple[str, ...]


def read(past: Sequence[Pool], new: Pool) -> Read:
    """Pairs of past targets and sources with a value, beside the new target's sources.

    Each proxy counts in standard deviations within its target, times the deviation of the bases there where pools have
    bases: what it is worth is then in the metric's units. With bases, what is learned is the gain over them, and two
    more features are how far a source lies behind the best base (`behind`), and that base with its sign turned
    (`room`). `history` is the mean of what a source did on the other past targets, in deviations, drawn to 0 the fewer
    these are. Unknown features are 0, which is the mean.
    """
    based = new.base is not None and all(one.base is not None for one in past)
    names = tuple(
        name
        for name in new.proxies
        if np.mean([name in one.proxies for one in past]) >= KNOWN and np.isfinite(new.proxies[name]).any()
    )
    rows, values, numbers = [], [], []
    for number, one in enumerate(past):
        assert one.values is not None
        start = one.base if based and one.base is not None else np.zeros(len(one.sources))
        gained = one.values - start
        tried = np.isfinite(gained)
        rows.append(_features(one, names, _history(past, one), based=based)[tried])
        values.append(gained[tried])
        numbers.append(np.full(int(tried.sum()), number))
    columns = (*names, HISTORY, BEHIND, ROOM) if based else (*names, HISTORY)
    return Read(
        Experience(np.concatenate(rows), np.concatenate(values), np.concatenate(numbers)),
        _features(new, names, _history(past, new), based=based),
        new.base if based and new.base is not None else np.zeros(len(new.sources)),
        columns,
    )


def _features(pool: Pool, names: Sequence[str], history: Array, *, based: bool) -> Array:
    """(S, d), finite."""
    unit, more = 1.0, []
    if based and pool.base is not None and np.isfinite(pool.base).any():
        unit = float(np.nanstd(pool.base))
        more = [np.nanmax(pool.base) - pool.base, np.full(len(pool.sources), -np.nanmax(pool.base))]
    empty = np.full(len(pool.sources), np.nan)
    told = [unit * standard(pool.proxies.get(name, empty)) for name in names]
    return np.asarray(np.nan_to_num(np.stack([*told, unit * history, *more], axis=1)))


def _history(past: Sequence[Pool], new: Pool) -> Array:
    """(S,) mean standardised value of each source on the past targets other than this one, times n / (n + 1)."""
    total, count = dict.fromkeys(new.sources, 0.0), dict.fromkeys(new.sources, 0)
    for one in past:
        if one.target == new.target or one.values is None:
            continue
        for name, value in zip(one.sources, standard(one.values), strict=True):
            if name in total and np.isfinite(value):
                total[name] += float(value)
                count[name] += 1
    return np.array([total[name] / (count[name] + 1) for name in new.sources])
