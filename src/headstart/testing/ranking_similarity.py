"""What a similarity of tasks must do, and what it may claim; and the smallest task to try one on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import Needs, Resembling, TaskType, Undeclared, Unfit
from headstart.execution import fit

from .adaptation_routes import TinyEncoder

Array = np.ndarray[Any, Any]
COLUMNS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenTask:
    """A task in memory, which lets a method touch only what its needs declare; the encoder is a fresh copy."""

    needs: Needs
    given: Array
    known: Array | None
    names: Sequence[str]
    shown: Array
    source: TinyEncoder
    task: TaskType = "single_label"
    classes: int = 3
    held: Array | None = None

    def __len__(self) -> int:
        return len(self.given)

    @property
    def texts(self) -> Sequence[str]:
        raise Undeclared("touches texts undeclared", where="needs", fix='declare modalities=("text",)')

    @property
    def features(self) -> Array:
        if "features" not in self.needs.gives:
            raise Undeclared("touches features undeclared", where="needs", fix='declare gives=("features",)')
        return fit.features(self.source, self.inputs) if self.held is None else self.held

    @property
    def labels(self) -> Array | None:
        if not self.needs.labels:
            raise Undeclared("touches labels undeclared", where="needs", fix="declare labels=True")
        return self.known

    @property
    def inputs(self) -> pa.Table:
        return table(self.given)

    @property
    def content(self) -> Sequence[str]:
        return self.names

    @property
    def probe(self) -> pa.Table:
        return table(self.shown)

    @cached_property
    def encoder(self) -> TinyEncoder:
        if "gradients" not in self.needs.gives:
            raise Undeclared("touches the encoder undeclared", where="needs", fix='declare gives=("gradients",)')
        return copy.deepcopy(self.source)


def table(rows: Array) -> pa.Table:
    return pa.table({f"c{i}": rows[:, i] for i in range(COLUMNS)})


def draw(method: Resembling, seed: int, rows: int = 30, *, among: int = 0, rule: int = 0) -> SeenTask:
    """Rows in three classes by a rule that looks at two of six columns; another rule looks at two others.

    Seeds that differ by `among` alone are other rows of the same task. Different rules share no column.
    """
    chance = np.random.default_rng((seed, among, rule))
    labels = np.arange(rows) % 3
    given = 0.3 * chance.standard_normal((rows, COLUMNS))
    angle = 2 * np.pi * labels / 3
    given[:, 2 * rule : 2 * rule + 2] += 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return SeenTask(
        needs=method.needs,
        given=given,
        known=labels,
        names=[f"{among} {rule} {i}" for i in range(rows)],
        shown=np.random.default_rng(seed).standard_normal((8, COLUMNS)),
        source=TinyEncoder(seed=seed % 1000),
    )


def take(sample: SeenTask, rows: Array) -> SeenTask:
    known = None if sample.known is None else sample.known[rows]
    return replace(sample, given=sample.given[rows], known=known, names=[sample.names[i] for i in rows])


def between(method: Resembling, a: SeenTask, b: SeenTask) -> float:
    return method(method.embed(replace(a)), method.embed(replace(b)))


def close(a: float, b: float, by: float = 1e-5) -> None:
    assert abs(a - b) <= by, f"{a} is not {b}"


def well_formed(value: float) -> None:
    assert isinstance(value, float), f"a {type(value).__name__}"
    assert np.isfinite(value), f"{value}"
    assert value <= 1 + 1e-9, f"{value} is above 1"


def finite(method: Resembling, seed: int) -> None:
    """Few rows, inputs that never vary, any unit, thin classes; a single class or row is an answer or a refusal."""
    plain, few = draw(method, seed), draw(method, seed, 12)
    for a in (few, *(replace(few, given=by * few.given) for by in (0.0, 1e-6, 1e6))):
        one, other = (method.embed(task) for task in (a, replace(few, given=few.given[::-1].copy())))
        well_formed(method(one, other))
        well_formed(method(other, one))
    thin = replace(plain, known=np.where(np.arange(30) == 1, 7, 0))  # numbers with gaps, and a class of one row
    well_formed(between(method, thin, plain))
    for odd in (replace(plain, known=np.zeros(30, dtype=np.int64)), take(plain, np.arange(1))):
        try:
            made = method.embed(odd)
            value = method(made, made)
        except Unfit:
            continue
        well_formed(value)


def one_for_the_same(method: Resembling, seed: int) -> None:
    a = draw(method, seed)
    close(between(method, a, a), 1.0)


def repeatable(method: Resembling, seed: int) -> None:
    """The same task gives the same bits, whatever was embedded before; its rows and the encoder are as they were."""
    a, b = draw(method, seed), draw(method, seed, rule=1)
    rows, weights = a.given.copy(), {n: t.clone() for n, t in a.source.module.state_dict().items()}
    first = method.embed(replace(a))
    method.embed(replace(b))
    second = method.embed(replace(a))
    assert all(np.array_equal(first[name], second[name]) for name in first), "another call, another embedding"
    assert np.array_equal(a.given, rows), "changes its input"
    assert all(bool((t == weights[n]).all()) for n, t in a.source.module.state_dict().items()), "changes the encoder"


def survives_a_file(method: Resembling, seed: int) -> None:
    """An embedding is arrays by name, none of Python's objects, since it is kept in a file."""
    found = method.embed(draw(method, seed))
    assert isinstance(found, dict), f"a {type(found).__name__}"
    assert found
    assert all(isinstance(one, np.ndarray) and one.dtype != object for one in found.values())


def symmetric(method: Resembling, seed: int) -> None:
    a, b = draw(method, seed), _other(method, seed)
    close(between(method, a, b), between(method, b, a), 1e-9)


def class_names(method: Resembling, seed: int) -> None:
    """Either task may number its classes as it likes."""
    a, b = draw(method, seed), _other(method, seed)
    assert a.known is not None
    close(between(method, a, b), between(method, replace(a, known=(a.known + 1) % 3), b), 1e-9)
    close(between(method, b, a), between(method, b, replace(a, known=5 - a.known)), 1e-9)


def row_order(method: Resembling, seed: int) -> None:
    a, b = draw(method, seed), _other(method, seed)
    order = np.random.default_rng(seed).permutation(30)
    close(between(method, a, b), between(method, take(a, order), b))
    close(between(method, b, a), between(method, b, take(a, order)))


def rotation(method: Resembling, seed: int) -> None:
    """Features turned alike for both tasks are as alike."""
    a, b = draw(method, seed), draw(method, seed, rule=1)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((8, 8)))
    turned = [replace(one, held=np.asarray(one.features, dtype=np.float64) @ turn) for one in (a, b)]
    close(between(method, a, b), between(method, *turned))


def scale(method: Resembling, seed: int) -> None:
    a, b = draw(method, seed), draw(method, seed, rule=1)
    for by in (1e-6, 1e6):
        close(between(method, a, b), between(method, replace(a, held=by * a.features.astype(np.float64)), b))


def halves_nearer(method: Resembling, seed: int) -> None:
    """Other rows of the same task are more alike than rows of a task that asks something else."""
    a, half, other = draw(method, seed, 96), draw(method, seed, 96, among=1), draw(method, seed, 96, rule=1)
    same, apart = between(method, a, half), between(method, a, other)
    assert same > apart, f"{same} to its other half, {apart} to another task"


def sees_labels(method: Resembling, seed: int) -> None:
    """The same rows with the labels shuffled are another task."""
    a = draw(method, seed)
    assert a.known is not None
    shuffled = replace(a, known=np.random.default_rng(seed).permutation(a.known))
    assert between(method, a, shuffled) < 1 - 1e-3, "labels shuffled, and the same task"


def only_shared_rows(method: Resembling, seed: int) -> None:
    """Rows that one task has alone are not compared; with none in common there is no answer."""
    a, b = draw(method, seed), draw(method, seed, among=1)
    try:
        between(method, a, b)
    except Unfit:
        return
    raise AssertionError("compares rows that nothing has in common")


def _other(method: Resembling, seed: int) -> SeenTask:
    """The same rows under other labels."""
    a = draw(method, seed)
    return replace(a, known=(a.given[:, 0] > a.given[:, 2]).astype(np.int64) + (a.given[:, 4] > 0))


ALWAYS = [finite, one_for_the_same, repeatable, survives_a_file]
CLAIMS = {
    law.__name__: law
    for law in (
        symmetric, class_names, row_order, rotation, scale, halves_nearer, sees_labels, only_shared_rows,
    )
}  # fmt: skip
