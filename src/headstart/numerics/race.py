"""The race: sources are scored on growing numbers of rows, and those that cannot be the best leave early.

Both rules are paired: losses of two sources on the same rows are subtracted row by row. By `leavers` a source leaves
when it is `z` standard errors away from being better than the leader by a share `slack` of its loss, which was found to
work and promises nothing. By `bernstein_leavers` it leaves when a bound of Maurer and Pontil, "Empirical Bernstein
Bounds and Sample Variance Penalization", COLT 2009, says so, which keeps the best source with a stated probability.
Layers of one model leave together: while one of them runs, the others cost no passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import log
from typing import Any

import numpy as np

from .sizes import FIRST, growing

Array = np.ndarray[Any, Any]

FIRST_RUNG = FIRST  # rows; below this, and below the width, a ridge probe's early losses mislead
FEWEST = 100  # rows in common, for the difference of means to be near normal
Z = 2.5  # standard errors; this and the slack were chosen by `benchmarks/race.py`
SLACK = 0.03  # of the leader's loss; what a source would have to be better by, to be worth the passes


def rungs(rows: int, width: int, first: int = FIRST_RUNG) -> tuple[int, ...]:
    """Numbers of rows to score on, from max(first, width) on as samples grow; one rung where there are no more rows.

    >>> rungs(1000, 384), rungs(100, 32)
    ((384, 512, 768, 1000), (100,))
    """
    enough = (size for size in growing() if size >= max(first, width))
    return (*takewhile(lambda size: size < rows, enough), rows)


def leavers(
    losses: Mapping[str, Array],
    *,
    z: float = Z,
    slack: float = SLACK,
    fewest: int = FEWEST,
) -> dict[str, str]:
    """Who leaves, with the reason, by losses, 0 or more, of all sources on the same rows (NaN: a row was not scored).

    slack: share of the leader's loss by which a source must be able to be better; with 0 ties keep running. Nobody
    leaves on fewer than `fewest` rows that all have.

    >>> ahead = np.tile([0.0, 0.2], 64)
    >>> told = {"a": ahead, "b": ahead + 1, "c": ahead + 1e-3 * np.cos(np.arange(128))}
    >>> list(leavers(told)), list(leavers(told, slack=0))
    (['b', 'c'], ['b'])
    """
    table = _common(losses)
    rows = table.shape[1]
    if len(losses) < 2 or rows < max(fewest, 2):
        return {}
    means = table.mean(axis=1)
    leader = int(means.argmin())
    names, left = list(losses), {}
    for at, name in enumerate(names):
        gap = table[at] - table[leader]
        error = float(gap.std(ddof=1)) / rows**0.5
        if at != leader and gap.mean() + slack * means[leader] > z * error:
            beyond = f"from being {slack:.0%} better" if slack else "behind"
            left[name] = (
                f"loss {means[at]:.3g} a row against {means[leader]:.3g} of `{names[leader]}` on {rows} rows, "
                f"a gap of {gap.mean():.2g} ± {error:.1g} (more than {z:g} standard errors {beyond})"
            )
    return left


def bernstein_leavers(losses: Mapping[str, Array], delta: float = 0.05, tries: int = 1) -> dict[str, str]:
    """Who leaves, with the reason, by losses in [0, 1] of heads that were fitted before these rows were drawn.

    tries: how often anyone may be judged: rungs × the other sources. With probability 1 - delta, for rows drawn
    independently, the source of the smallest expected loss does not leave at any of them.

    >>> told = {"a": np.zeros(2000), "b": np.full(2000, 0.5), "c": np.full(2000, 0.001)}
    >>> list(bernstein_leavers(told))
    ['b']
    """
    table = _common(losses)
    rows = table.shape[1]
    if len(losses) < 2 or rows < 2:
        return {}
    means = table.mean(axis=1)
    leader, names, left = int(means.argmin()), list(losses), {}
    unlikely = log(2 * tries / delta)
    for at, name in enumerate(names):
        gap = table[at] - table[leader]
        radius = (2 * float(gap.var(ddof=1)) * unlikely / rows) ** 0.5 + 2 * 7 * unlikely / (3 * (rows - 1))
        if gap.mean() > radius:
            left[name] = (
                f"loss {means[at]:.3g} a row against {means[leader]:.3g} of `{names[leader]}` on {rows} rows that no "
                f"head was fitted on, a gap above the {radius:.2g} that chance can make"
            )
    return left


def _common(losses: Mapping[str, Array]) -> Array:
    """(sources, rows) of the rows that all have."""
    if not losses:
        return np.empty((0, 0))
    table = np.stack([np.asarray(one, dtype=np.float64) for one in losses.values()])
    return np.asarray(table[:, np.isfinite(table).all(axis=0)])


@dataclass(frozen=True, slots=True)
class Raced:
    """kept: names that ran to the end, in the order given. left: (rows, reason) of the others. rows: that each used."""

    kept: tuple[str, ...]
    left: Mapping[str, tuple[int, str]]
    rows: Mapping[str, int]


def race(
    widths: Mapping[str, int],
    rows: int,
    losses_at: Callable[[Sequence[str], int], Mapping[str, Array]],
    leave: Callable[[Mapping[str, Array]], Mapping[str, str]] = leavers,
    first: int = FIRST_RUNG,
    models: Mapping[str, str] | None = None,
) -> Raced:
    """Runs the sources (name: width) up the rungs of `rows` rows, from the narrowest source's first rung.

    A source joins at the first rung that is not below its width, and is judged from then on.

    losses_at: (rows,) losses of these names on the first n rows of one draw order that all share. A name that it does
    not return has failed and is out, without a reason here. A single source, or a single rung, is scored on all rows.
    leave: who leaves, with the reason, by the losses of those that are judged. models: by name, the model whose passes
    it shares; without it each has passes of its own. Names of one model leave together.

    >>> race({"a": 4, "b": 4}, 256, lambda names, n: {s: np.arange(n) % 2 + (s == "b") for s in names}).rows
    {'a': 256, 'b': 128}
    """
    running = list(widths)
    left: dict[str, tuple[int, str]] = {}
    scored = dict.fromkeys(widths, 0)
    for size in rungs(rows, min(widths.values(), default=0), first):
        last = size == rows
        seated = [s for s in running if last or max(first, widths[s]) <= size]
        if not last and len(_together(seated, models)) < 2:
            continue  # nobody to compare with
        losses = losses_at(seated, size)
        running = [s for s in running if s not in seated or s in losses]
        scored.update(dict.fromkeys(losses, size))
        if last:
            break
        behind = leave({s: losses[s] for s in seated if s in losses})
        gone = [s for names in _together(running, models) if all(s in behind for s in names) for s in names]
        left.update({s: (size, behind[s]) for s in gone})
        running = [s for s in running if s not in gone]
    return Raced(tuple(running), left, scored)


def _together(names: Sequence[str], models: Mapping[str, str] | None) -> list[list[str]]:
    """The names by model, in order."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(models[name] if models else name, []).append(name)
    return list(found.values())
