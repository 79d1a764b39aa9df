"""What a fusion must do, and what it may claim. Laws draw targets with a few sources each, and hold for any seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from headstart.core import Expecting, Experience

Array = np.ndarray[Any, Any]


def draw(
    seed: int, targets: int = 12, sources: int = 8, width: int = 4, noise: float = 0.5, told: float = 1.0
) -> Experience:
    """Sources whose worth the first two features tell, up to noise and a level of each target; the others say nothing.

    Seeds that differ draw other targets of one world.
    """
    chance = np.random.default_rng(seed)
    features = chance.standard_normal((targets * sources, width))
    numbers = np.repeat(np.arange(targets), sources)
    level = 0.5 * chance.standard_normal(targets)[numbers]
    values = told * features[:, :2].sum(axis=1) + level + noise * chance.standard_normal(len(numbers))
    return Experience(features, values, numbers)


def well_formed(values: Array, rows: int) -> None:
    assert values.shape == (rows,), f"{values.shape} for {rows} rows"
    assert np.isfinite(values).all(), f"{values}"


def finite(method: Expecting, seed: int) -> None:
    """Few targets, targets of one source, features that never vary, more features than pairs, any unit."""
    chance = np.random.default_rng(seed)
    for targets, sources, width in ((12, 8, 4), (3, 1, 2), (2, 2, 1), (1, 1, 3), (3, 2, 20)):
        past = draw(seed, targets, sources, width=max(width, 2))
        new = chance.standard_normal((5, past.features.shape[1]))
        for unit in (1e-6, 1.0, 1e6):
            well_formed(method(replace(past, features=unit * past.features))(unit * new), 5)
        flat = replace(past, features=np.full_like(past.features, 0.1))
        well_formed(method(flat)(new), 5)
        well_formed(method(replace(past, values=unit * past.values))(new), 5)


def monotone(method: Expecting, seed: int) -> None:
    """Of a higher feature never less is expected."""
    for told in (1.0, 0.0, -1.0):
        learned = method(draw(seed, told=told))
        new = np.random.default_rng(seed).standard_normal((20, 4))
        for column in range(4):
            more = new.copy()
            more[:, column] += 1.0
            assert (learned(more) >= learned(new) - 1e-9).all(), f"less for more of feature {column}"


def repeatable(method: Expecting, seed: int) -> None:
    past, new = draw(seed), draw(seed + 1).features
    assert np.array_equal(method(past)(new), method(past)(new)), "another call, other values"


def constant(method: Expecting, seed: int) -> None:
    """Where the same came of everything, the same is expected."""
    past = draw(seed)
    assert np.allclose(method(replace(past, values=np.full_like(past.values, 0.7)))(past.features), 0.7)


def row_order(method: Expecting, seed: int) -> None:
    past, new = draw(seed), draw(seed + 1).features
    order = np.random.default_rng(seed).permutation(len(past.values))
    turned = Experience(past.features[order], past.values[order], 100 - past.targets[order])
    assert np.allclose(method(past)(new), method(turned)(new), atol=1e-6)


def shift(method: Expecting, seed: int) -> None:
    past, new = draw(seed), draw(seed + 1).features
    assert np.allclose(method(past)(new) + 3.0, method(replace(past, values=past.values + 3.0))(new), atol=1e-6)


def unit(method: Expecting, seed: int) -> None:
    """What is counted in percent is expected in percent, and the units of features do not matter."""
    past, new = draw(seed), draw(seed + 1).features
    by = np.array([1e-3, 1.0, 10.0, 1e3])
    other = method(replace(past, features=by * past.features, values=100 * past.values))(by * new)
    assert np.allclose(100 * method(past)(new), other, rtol=1e-5, atol=1e-5)


def learns(method: Expecting, seed: int) -> None:
    """On targets that it has not seen it is off by less than the mean of the past is."""
    past, new = draw(seed, targets=20), draw(seed + 1, targets=20)
    off = np.square(method(past)(new.features) - new.values).mean()
    naive = np.square(past.values.mean() - new.values).mean()
    assert off < 0.8 * naive, f"{off}, and the mean alone {naive}"


def shrinks(method: Expecting, seed: int) -> None:
    """Where features say nothing, it is hardly worse than the mean of the past."""
    off, naive = 0.0, 0.0
    for at in range(5):
        past, new = draw(seed + 2 * at, told=0.0), draw(seed + 2 * at + 1, told=0.0)
        off += float(np.square(method(past)(new.features) - new.values).mean())
        naive += float(np.square(past.values.mean() - new.values).mean())
    assert off < 1.1 * naive, f"{off}, and the mean alone {naive}"


ALWAYS = [finite, monotone, repeatable, constant]
CLAIMS = {law.__name__: law for law in (row_order, shift, unit, learns, shrinks)}
