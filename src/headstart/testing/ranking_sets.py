"""What a method for sets must do, and what it may claim. Laws draw few sources on few rows, and look at all sets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from headstart.core import Gathering, Needs, SetFunction, TaskType, Undeclared, Unfit
from headstart.execution.candidates import asked_of
from headstart.numerics.moments import Moments, targets_of

Array = np.ndarray[Any, Any]
SOURCES = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenCandidate:
    """A candidate of plain arrays, which lets a method touch only what its needs declare."""

    needs: Needs
    known: Array
    folds: Array
    classes: int
    given: Array
    said: Array
    scored: Array
    task: TaskType = "single_label"
    rows_of_its_own: tuple[Array, Array] | None = None

    def _check(self, declared: bool, name: str) -> None:
        if not declared:
            raise Undeclared(f"touches {name} undeclared", where="needs", fix=f"declare {name} in its needs")

    @property
    def labels(self) -> Array:
        self._check(self.needs.labels, "labels")
        return self.known

    @property
    def features(self) -> Array:
        self._check("features" in asked_of(self.needs), "features")
        return self.given

    @property
    def moments(self) -> Moments:
        self._check("features" in asked_of(self.needs), "moments")
        return Moments.of(self.given, self.known, self.classes)

    @property
    def predictions(self) -> Array:
        self._check("predictions" in asked_of(self.needs), "predictions")
        return self.said

    @property
    def table(self) -> Array:
        self._check(self.needs.probe, "table")
        return self.scored

    @property
    def own(self) -> tuple[Array, Array] | None:
        self._check(self.needs.own_rows, "own")
        return self.rows_of_its_own


def draw(
    method: Gathering, seed: int, *, rows: int = 40, width: int = 6, task: TaskType = "single_label"
) -> list[SeenCandidate]:
    """Sources of falling quality, each with a space, classes and errors of its own; two have rows of their own.

    Words are seen as rows of one class, with folds that keep three of them together; most are of the first class.
    """
    chance = np.random.default_rng(seed)
    known: Array = np.arange(rows) % 3
    if task == "multi_label":
        known = (chance.random((rows, 3)) < 0.4).astype(np.int8)
    elif task == "regression":
        known = chance.standard_normal(rows)
    elif task == "tagging":
        known, task = np.where(chance.random(rows) < 0.6, 0, known), "single_label"
    classes = 0 if task == "regression" else 3
    truth, folds = targets_of(known, classes), np.arange(rows) // 3 % 5
    found = []
    for at in range(SOURCES):
        features = (3 - at / 2) * truth @ chance.standard_normal((truth.shape[1], width))
        features = features + chance.standard_normal((rows, width))
        said = _softmax(features @ chance.standard_normal((width, 2 + at)))
        told = truth + (0.3 + 0.2 * at) * chance.standard_normal(truth.shape)
        table = told if task == "regression" else _softmax(told) if task == "single_label" else 1 / (1 + np.exp(-told))
        own = (features[::2] + 0.1 * at, known[::2]) if at < 2 else None
        found.append(
            SeenCandidate(
                needs=method.needs, known=known, folds=folds, classes=classes, given=features, said=said,
                scored=table, task=task, rows_of_its_own=own,
            )
        )  # fmt: skip
    return found


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def subsets(size: int = SOURCES) -> list[tuple[int, ...]]:
    """All sets, the smaller ones first."""
    return [s for n in range(size + 1) for s in combinations(range(size), n)]


def values(function: SetFunction, sets: Sequence[Sequence[int]]) -> Array:
    return np.array([function(s) for s in sets])


def close(one: Array, other: Array) -> None:
    assert np.allclose(one, other, rtol=1e-7, atol=1e-9), f"{one} is not {other}"


def finite(method: Gathering, seed: int) -> None:
    """For every task it declares: few rows, more dimensions than rows, constant features, float32, any unit.

    A class has one row, which no fold scores. A refusal with a reason will do.
    """
    tasks: tuple[TaskType, ...] = ("single_label", "multi_label", "regression", "tagging")
    for rows, width in ((40, 6), (9, 30), (4, 1)):
        for task in (t for t in tasks if t in method.needs.tasks):
            drawn = draw(method, seed, rows=rows, width=width, task=task)
            if task == "single_label":
                once = np.where(np.arange(rows) == 0, 2, drawn[0].known % 2)
                drawn = [replace(c, known=once, folds=np.where(once == 2, -1, c.folds)) for c in drawn]
                for c in drawn:
                    c.scored[0] = np.nan
            for unit in (np.float32(1), 1e-6, 1e6, 0.0):
                with suppress(Unfit):
                    function = method([replace(c, given=(c.given * unit).astype(np.float32)) for c in drawn])
                    found = [function(s) for s in subsets()]
                    assert all(isinstance(v, float) for v in found), "a value is no float"
                    assert np.isfinite(found).all(), f"values are {found}"


def none_are_worth_nothing(method: Gathering, seed: int) -> None:
    assert method(draw(method, seed))(()) == 0
    assert method([])(()) == 0


def order_of_members(method: Gathering, seed: int) -> None:
    function = method(draw(method, seed))
    close(values(function, subsets()), values(function, [s[::-1] for s in subsets()]))


def repeatable(method: Gathering, seed: int) -> None:
    """The same candidates give the same bits, and are as they were."""
    drawn, kept = draw(method, seed), draw(method, seed)
    first, again = (values(method(drawn), subsets()) for _ in range(2))
    assert np.array_equal(first, again), "another call, other values"
    for a, b in zip(drawn, kept, strict=True):
        same = (a.known, b.known), (a.given, b.given), (a.said, b.said), (a.scored, b.scored)
        assert all(np.array_equal(x, y) for x, y in same), "changes its input"


def submodular(method: Gathering, seed: int) -> None:
    """Over all sets A within B and members not in B: joining A gains at least what joining B does."""
    function = method(draw(method, seed))
    of = {s: function(s) for s in subsets()}
    for large in of:
        for small in (s for s in of if set(s) <= set(large)):
            for new in set(range(SOURCES)) - set(large):
                gains = [of[tuple(sorted((*s, new)))] - of[s] for s in (small, large)]
                assert gains[0] >= gains[1] - 1e-9, f"{new} gains {gains[1]} with {large}, and {gains[0]} with {small}"


def monotone(method: Gathering, seed: int) -> None:
    function = method(draw(method, seed))
    of = {s: function(s) for s in subsets()}
    for s in of:
        for new in set(range(SOURCES)) - set(s):
            assert of[tuple(sorted((*s, new)))] >= of[s] - 1e-9, f"{new} makes {s} worse"


def candidate_order(method: Gathering, seed: int) -> None:
    drawn = draw(method, seed)
    turned = method(drawn[::-1])
    last = SOURCES - 1
    close(values(method(drawn), subsets()), np.array([turned([last - i for i in s]) for s in subsets()]))


def class_names(method: Gathering, seed: int) -> None:
    drawn = draw(method, seed)
    renamed = [replace(c, known=(c.known + 1) % 3, scored=np.roll(c.scored, 1, axis=1)) for c in drawn]
    close(values(method(drawn), subsets()), values(method(renamed), subsets()))


def duplicate_adds_nothing(method: Gathering, seed: int) -> None:
    """A copy of a source gains nothing beside it, so it is never chosen second."""
    drawn = draw(method, seed)
    function = method([*drawn, *drawn])
    for i in range(SOURCES):
        gain = function((i, SOURCES + i)) - function((i,))
        assert gain <= 1e-9, f"a copy of {i} gains {gain}"


def single_is_rank(method: Gathering, seed: int) -> None:
    """What a source is worth on its own does not depend on who else is there, so sets of one are a ranking."""
    drawn = draw(method, seed)
    function = method(drawn)
    close(values(function, [(i,) for i in range(SOURCES)]), np.array([method([c])((0,)) for c in drawn]))


ALWAYS = [finite, none_are_worth_nothing, order_of_members, repeatable]
CLAIMS = {
    law.__name__: law
    for law in (submodular, monotone, candidate_order, class_names, duplicate_adds_nothing, single_is_rank)
}
