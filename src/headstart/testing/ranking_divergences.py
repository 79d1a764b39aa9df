"""What a divergence must do, and what it may claim. Laws draw two data sets, one moved, and hold for any seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from headstart.core import Diverging, Needs, TaskType, Undeclared, Unfit

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenSample:
    """A data set of plain arrays, which lets a method touch only what its needs declare."""

    needs: Needs
    given: Array
    known: Array | None
    said: Sequence[str]
    task: TaskType = "single_label"
    classes: int = 3

    def __len__(self) -> int:
        return len(self.given)

    @property
    def texts(self) -> Sequence[str]:
        if self.needs.modalities != ("text",):
            raise Undeclared("touches texts undeclared", where="needs", fix='declare modalities=("text",)')
        return self.said

    @property
    def features(self) -> Array:
        if "features" not in self.needs.gives:
            raise Undeclared("touches features undeclared", where="needs", fix='declare gives=("features",)')
        return self.given

    @property
    def labels(self) -> Array | None:
        if not self.needs.labels:
            raise Undeclared("touches labels undeclared", where="needs", fix="declare labels=True")
        return self.known


def draw(
    method: Diverging, seed: int, rows: int = 60, width: int = 5, moved: float = 0.0, among: int = 0
) -> SeenSample:
    """Gaussian classes whose rows lie `moved` deviations away, and texts whose words are other ones by as much.

    Seeds that differ by `among` alone are other rows of the same classes.
    """
    chance, classes = np.random.default_rng((seed, among, 1)), np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    features = 1.5 * classes.standard_normal((3, width))[labels] + chance.standard_normal((rows, width))
    away = classes.standard_normal(width)
    words = np.rint(3 * chance.standard_normal((rows, 8)) + 3 * moved).astype(int)
    return SeenSample(
        needs=method.needs,
        given=features + moved * away / np.linalg.norm(away),
        known=labels,
        said=[" ".join(f"w{w}" for w in row).replace("-", "m") for row in words],
    )


def take(sample: SeenSample, rows: Array) -> SeenSample:
    known = None if sample.known is None else sample.known[rows]
    return replace(sample, given=sample.given[rows], known=known, said=[sample.said[i] for i in rows])


def close(a: float, b: float) -> None:
    assert abs(a - b) <= 1e-5 * (1 + abs(a)), f"{a} is not {b}"


def well_formed(value: float) -> None:
    assert isinstance(value, float), f"a {type(value).__name__}"
    assert np.isfinite(value), f"{value}"
    assert value >= 0, f"{value} is below 0"


def finite(method: Diverging, seed: int) -> None:
    """Few rows, unequal sets, more dimensions than rows, features that never vary, float32, any unit, thin classes."""
    for rows, other, width in ((40, 25, 5), (4, 9, 20), (2, 2, 1), (30, 2, 3)):
        a, b = draw(method, seed, rows, width), draw(method, seed, other, width, 1.0, among=1)
        for x, y in (
            (a.given.astype(np.float32), b.given.astype(np.float32)),
            (1e-6 * a.given, 1e-6 * b.given),
            (1e6 * a.given, 1e6 * b.given),
            (1e4 + a.given, 1e4 + b.given),
            (np.zeros_like(a.given), np.zeros_like(b.given)),
            (np.full_like(a.given, 0.1), np.full_like(b.given, 0.1)),
        ):
            well_formed(method(replace(a, given=x), replace(b, given=y)))
        thin = np.where(np.arange(rows) == 1, 7, 0)  # numbers with gaps, and a class of one row
        well_formed(method(replace(a, known=thin), b))
        well_formed(method(replace(a, said=[""] * rows), b))
        well_formed(method(replace(a, said=[""] * rows), replace(b, said=[""] * other)))


def identity(method: Diverging, seed: int) -> None:
    """Nothing lies between a data set and itself."""
    for rows, width in ((60, 5), (6, 20), (2, 1)):
        a = draw(method, seed, rows, width)
        assert method(a, a) <= 1e-9, f"{method(a, a)} from itself"
        assert method(replace(a, given=np.ones_like(a.given)), replace(a, given=np.ones_like(a.given))) <= 1e-9


def survives_one_row(method: Diverging, seed: int) -> None:
    """One row on a side is an answer, or a refusal with a reason."""
    a, b = draw(method, seed, 1), draw(method, seed, 20, among=1)
    for pair in ((a, b), (b, a), (a, a)):
        try:
            value = method(*pair)
        except Unfit:
            continue
        well_formed(value)


def repeatable(method: Diverging, seed: int) -> None:
    """The same rows give the same bits, and are as they were."""
    a, b = draw(method, seed), draw(method, seed, 45, moved=1.0, among=1)
    kept = a.given.copy(), b.given.copy()
    assert method(a, b) == method(a, b), "another call, another distance"
    assert np.array_equal(a.given, kept[0]), "changes its input"
    assert np.array_equal(b.given, kept[1]), "changes its input"


def symmetric(method: Diverging, seed: int) -> None:
    a, b = draw(method, seed), draw(method, seed, 45, moved=1.0, among=1)
    close(method(a, b), method(b, a))


def row_order(method: Diverging, seed: int) -> None:
    a, b = draw(method, seed), draw(method, seed, 45, moved=1.0, among=1)
    order = np.random.default_rng(seed).permutation(60)
    close(method(a, b), method(take(a, order), b))
    close(method(b, a), method(b, take(a, order)))


def changed(method: Diverging, seed: int, change: Any, width: int = 5) -> None:
    for rows in (60, 12):
        a, b = draw(method, seed, rows, width), draw(method, seed, 45, width, 1.0, among=1)
        close(method(a, b), method(replace(a, given=change(a.given)), replace(b, given=change(b.given))))


def rotation(method: Diverging, seed: int) -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((16, 16)))
    changed(method, seed, lambda x: x @ turn, 16)


def scale(method: Diverging, seed: int) -> None:
    for factor in (1e-6, 1e6):
        changed(method, seed, lambda x, by=factor: by * x)


def translation(method: Diverging, seed: int) -> None:
    changed(method, seed, lambda x: x + 100.0)


def class_names(method: Diverging, seed: int) -> None:
    """Either set may number its classes as it likes."""
    a, b = draw(method, seed), draw(method, seed, 45, moved=1.0, among=1)
    assert a.known is not None
    close(method(a, b), method(replace(a, known=(a.known + 1) % 3), b))
    close(method(b, a), method(b, replace(a, known=5 - a.known)))


def sees_labels(method: Diverging, seed: int) -> None:
    """The same features with the labels shuffled are another task."""
    a, b = draw(method, seed), draw(method, seed, among=1)
    assert a.known is not None
    shuffled = replace(a, known=np.random.default_rng(seed).permutation(a.known))
    assert method(a, b) < method(shuffled, b), "labels shuffled, and no farther"


def grows_with_shift(method: Diverging, seed: int) -> None:
    """The farther a set is moved, the farther it is, as long as the two overlap."""
    b = draw(method, seed, 120)
    found = [method(draw(method, seed, 120, moved=m, among=1), b) for m in (0.0, 1.0, 2.0, 4.0)]
    assert all(x < y for x, y in pairwise(found)), f"moved by 0, 1, 2 and 4: {found}"


ALWAYS = [finite, identity, survives_one_row, repeatable]
CLAIMS = {
    law.__name__: law
    for law in (
        symmetric, row_order, rotation, scale, translation, class_names, sees_labels, grows_with_shift,
    )
}  # fmt: skip
