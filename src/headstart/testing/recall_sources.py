"""What a recall of sources must do, and what it may claim. Laws draw small tables of past transfers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.core import Guess, Known, Recalling, Unfit
from headstart.numerics.records import Records

Array = np.ndarray[Any, Any]
TARGETS, SOURCES = 10, 40


def records(values: Array, sign: int = 1) -> Records:
    """A table with these figures, one run each; half of the targets are what a source was trained on."""
    targets, sources = values.shape
    trained = np.arange(min(targets // 2, sources))
    values = values.copy()
    values[trained, trained] = np.nan  # of its own task a source has no transfer
    unknown = np.full(values.shape, np.nan)
    return Records(
        targets=tuple(f"t{i}" for i in range(targets)),
        sources=tuple(f"s{j}" for j in range(sources)),
        tasks=tuple(f"t{j}" if j < len(trained) else "" for j in range(sources)),
        values=values,
        counts=np.isfinite(values).astype(np.int64),
        spread=unknown,
        direct=unknown,
        sign=sign,
    )


def draw(seed: int, targets: int = TARGETS, sources: int = SOURCES) -> tuple[Records, Known]:
    """Figures of sources that differ in quality, each target in units of its own, a tenth of them unknown."""
    chance = np.random.default_rng(seed)
    values = chance.standard_normal(sources) + 0.7 * chance.standard_normal((targets, sources))
    values = 10 ** chance.uniform(-2, 2, (targets, 1)) * (values + chance.normal(0, 3, (targets, 1)))
    values[chance.random(values.shape) < 0.1] = np.nan
    between = np.asarray(np.corrcoef(chance.standard_normal((targets + 1, 6))))
    vectors = chance.standard_normal((sources, 8))
    return records(values), Known(between[-1, :-1], np.full(sources, np.nan), between[:-1, :-1], vectors)


def figures(known: Known) -> Array:
    """(S,) the new target's own."""
    assert known.values is not None
    return known.values


def with_figures(known: Known, seed: int) -> Known:
    """The same target after six of its sources were tried, and with nothing said of similarities."""
    chance = np.random.default_rng((seed, 1))
    own = np.full_like(figures(known), np.nan)
    tried = chance.permutation(len(own))[:6]
    own[tried] = chance.standard_normal(len(tried))
    return Known(None, own, None, known.vectors)


def moments(method: Recalling, seed: int) -> list[tuple[Records, Known]]:
    """A target before anything was tried, and after."""
    table, known = draw(seed)
    return [(table, known), (table, with_figures(known, seed))]


def close(one: Guess, other: Guess) -> None:
    np.testing.assert_allclose(one.values, other.values, rtol=1e-6, atol=1e-6)
    assert (one.errors is None) == (other.errors is None)
    if one.errors is not None and other.errors is not None:
        np.testing.assert_allclose(one.errors, other.errors, rtol=1e-6, atol=1e-6)


def well_formed(guess: Guess, table: Records, known: Known) -> None:
    tried = np.isfinite(table.values).any(axis=0)
    silent = ~tried if known.vectors is None else ~tried & ~np.isfinite(known.vectors).all(axis=1)
    assert guess.values.shape == (len(table.sources),)
    assert np.isfinite(guess.values[tried]).all(), "a source with records has no value"
    assert np.isnan(guess.values[silent]).all(), "a value for a source of which nothing is known"
    if guess.errors is not None:
        assert guess.errors.shape == guess.values.shape
        assert (np.isfinite(guess.errors) == np.isfinite(guess.values)).all(), (
            "a value without an error, or the reverse"
        )
        assert (guess.errors[tried] >= 0).all(), "an error below 0"


def finite_where_tried(method: Recalling, seed: int) -> None:
    """A value for every source with a record, none for one with nothing; float32, and hard tables, may be refused."""
    for table, known in moments(method, seed):
        values = table.values.copy()
        values[:, [3, 17]] = np.nan
        silent = replace(table, values=values)
        assert known.vectors is not None
        vectors = known.vectors.copy()
        vectors[17] = np.nan
        known = replace(known, vectors=vectors)
        well_formed(method(silent, known), silent, known)
    chance = np.random.default_rng(seed)
    single = np.full((TARGETS, SOURCES), np.nan)
    single[np.arange(TARGETS), TARGETS + np.arange(TARGETS)] = 0.5
    many = chance.random((12, SOURCES))
    thin = (chance.random((1, 1)), chance.random((1, 30)), chance.random((30, 1)))
    for values in (*thin, np.full((8, 9), 0.1), single, many.astype(np.float32), 1e-6 * many, 1e6 + many):
        table = records(values)
        own = np.full(values.shape[1], np.nan)
        own[0] = 0.5
        for known in (Known(), Known(np.zeros(len(values)), own), Known(np.full(len(values), np.nan), own)):
            with suppress(Unfit):
                well_formed(method(table, known), table, known)


def repeatable(method: Recalling, seed: int) -> None:
    """The same table gives the same bits, and is as it was."""
    for table, known in moments(method, seed):
        kept = table.values.copy()
        one, other = method(table, known), method(table, known)
        assert np.array_equal(one.values, other.values, equal_nan=True), "another call, another value"
        assert np.array_equal(table.values, kept, equal_nan=True), "changes its input"


def source_order(method: Recalling, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(SOURCES)
    for table, known in moments(method, seed):
        moved = replace(
            table,
            sources=tuple(table.sources[j] for j in order),
            tasks=tuple(table.tasks[j] for j in order),
            values=table.values[:, order],
        )
        own = figures(known)[order]
        plain = method(table, known)
        errors = None if plain.errors is None else plain.errors[order]
        vectors = None if known.vectors is None else known.vectors[order]
        close(Guess(plain.values[order], errors), method(moved, replace(known, values=own, vectors=vectors)))


def target_order(method: Recalling, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(TARGETS)
    for table, known in moments(method, seed):
        moved = replace(table, targets=tuple(table.targets[t] for t in order), values=table.values[order])
        near = None if known.similarities is None else known.similarities[order]
        between = None if known.between is None else known.between[np.ix_(order, order)]
        close(method(table, known), method(moved, replace(known, similarities=near, between=between)))


def scale(method: Recalling, seed: int) -> None:
    """Each past target, and the new one, measured in a unit of its own."""
    chance = np.random.default_rng(seed)
    units, origins = 10 ** chance.uniform(-3, 3, (TARGETS, 1)), chance.standard_normal((TARGETS, 1))
    for table, known in moments(method, seed):
        moved = replace(table, values=units * (table.values + origins))
        close(method(table, known), method(moved, replace(known, values=100 * figures(known) + 7)))


def direction(method: Recalling, seed: int) -> None:
    """A metric where lower is better, and its negative where higher is, are the same."""
    for table, known in moments(method, seed):
        moved = replace(table, values=-table.values, sign=-1)
        close(method(table, known), method(moved, replace(known, values=-figures(known))))


def finds_the_best(method: Recalling, seed: int) -> None:
    """A source that was far ahead on every past target is the first guess."""
    for table, known in moments(method, seed):
        best = seed % SOURCES
        values = np.random.default_rng(seed).standard_normal((TARGETS, SOURCES))
        values[:, best] += 20
        own = figures(known).copy()
        own[best] = np.nan
        assert np.nanargmax(method(replace(table, values=values), replace(known, values=own)).values) == best


def follows_the_near(method: Recalling, seed: int) -> None:
    """Two groups of targets, each with a best source of its own: the new target's group decides."""
    chance = np.random.default_rng(seed)
    group = np.arange(TARGETS) % 2
    values = chance.standard_normal((TARGETS, SOURCES))
    values[np.arange(TARGETS), 20 + group] += 20
    between = np.where(group[:, None] == group, 0.9, 0.0)
    for mine in (0, 1):
        guess = method(records(values), Known(np.where(group == mine, 0.9, 0.0), None, between))
        assert np.nanargmax(guess.values) == 20 + mine


def completes(method: Recalling, seed: int) -> None:
    """Figures made of two factors, a third of them known: the new target's others follow from a dozen of its own."""
    chance = np.random.default_rng(seed)
    full = chance.standard_normal((41, 2)) @ chance.standard_normal((2, 60))
    values = np.where(chance.random(full.shape) < 0.35, full, np.nan)
    own = np.where(np.arange(60) < 12, full[-1], np.nan)
    guess = method(records(values[:-1]), Known(None, own)).values
    correlation = np.corrcoef(guess[12:], full[-1, 12:])[0, 1]
    assert correlation > 0.8, f"correlates {correlation:.2f} with what is hidden"


def complements(method: Recalling, seed: int) -> None:
    """Of two groups of targets with a best source each, the first two of the list serve both; copies wait."""
    chance = np.random.default_rng(seed)
    group = (np.arange(TARGETS) >= 6).astype(int)
    values = chance.standard_normal((TARGETS, SOURCES))
    values[np.arange(TARGETS), 20 + group] += 20
    values[:, 22] = values[:, 20] - 0.01  # nearly as good as the first, where the first is good
    first, second = np.argsort(-method(records(values), Known()).values)[:2]
    assert {int(first), int(second)} == {20, 21}


def follows_the_vectors(method: Recalling, seed: int) -> None:
    """What a source is good for lies in its vector: a fifth of past figures tell those of a new target."""
    chance = np.random.default_rng(seed)
    tasks, vectors = chance.standard_normal((31, 3)), chance.standard_normal((60, 4))
    tasks /= np.linalg.norm(tasks, axis=1, keepdims=True)
    full = tasks @ np.linalg.qr(chance.standard_normal((4, 3)))[0].T @ vectors.T
    alike = tasks @ tasks.T
    past = np.where(chance.random(full[:-1].shape) < 0.2, full[:-1], np.nan)
    past[0] = full[0]  # so that every source has a record
    guess = method(records(past), Known(alike[-1, :-1], None, alike[:-1, :-1], vectors))
    correlation = np.corrcoef(guess.values, full[-1])[0, 1]
    assert correlation > 0.8, f"correlates {correlation:.2f} with what the vectors say"


ALWAYS = [finite_where_tried, repeatable]
CLAIMS = {
    law.__name__: law
    for law in (
        source_order, target_order, scale, direction, finds_the_best, follows_the_near, follows_the_vectors, completes,
        complements,
    )
}  # fmt: skip
