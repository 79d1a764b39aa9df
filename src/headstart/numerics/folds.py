"""Which row is tested, scored, or trained on: decided by hashes, never by the order of a table.

`keys` and `groups` are names of rows, such as content hashes; rows with the same name are never parted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from headstart.core import Folds

from .hashing import unit

Array = np.ndarray[Any, Any]

TEST_FRACTION = 0.2
FOLDS = 5
REPEATS = 2
SPLIT_FROM = 2000  # labelled rows from which one validation split replaces the folds
BINS = 10  # of a number, as strata
LEAST_TRAINING_GROUPS = 2  # that a class keeps when the test is drawn


def in_test(keys: Sequence[str], seed: int = 0, fraction: float = TEST_FRACTION) -> list[bool]:
    """Whether each row belongs to the test: a property of its key alone, so it never moves as a table grows.

    >>> in_test(["a", "b"]) == [in_test(["b", "a"])[1], in_test(["b"])[0]]
    True
    """
    salt = f"headstart test {seed}"
    known = {key: unit(key, salt) < fraction for key in set(keys)}
    return [known[key] for key in keys]


def held_out(keys: Sequence[str], strata: Sequence[int] | None, seed: int = 0) -> tuple[list[bool], list[int]]:
    """Test membership, and the strata that had to keep all their rows in training.

    A stratum that would keep fewer than two training groups keeps its rows, and the groups that they are in, in
    training. strata: class of each row, or None where there are no classes.
    """
    test = in_test(keys, seed)
    if strata is None:
        return test, []
    training: dict[int, set[str]] = defaultdict(set)
    for key, stratum, tested in zip(keys, strata, test, strict=True):
        training[int(stratum)].update(() if tested else (key,))
    small = {s for s, groups in training.items() if len(groups) < LEAST_TRAINING_GROUPS}
    kept = {key for key, stratum in zip(keys, strata, strict=True) if int(stratum) in small}
    moved = {int(s) for key, s, tested in zip(keys, strata, test, strict=True) if tested and key in kept}
    return [tested and key not in kept for key, tested in zip(keys, test, strict=True)], sorted(moved & small)


def linked(*names: Sequence[Hashable]) -> list[int]:
    """Number of the group of each row, where rows that share any one name are linked, also through others.

    >>> linked(["a", "a", "b", "c"], [1, 2, 2, 3])
    [0, 0, 0, 1]
    """
    parent = list(range(len(names[0]) if names else 0))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column in names:
        first: dict[Hashable, int] = {}
        for row, name in enumerate(column):
            a, b = root(first.setdefault(name, row)), root(row)
            if a != b:
                parent[max(a, b)] = min(a, b)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(row), len(numbers)) for row in range(len(parent))]


def group_names(groups: Sequence[str] | None, content: Sequence[str]) -> tuple[str, ...]:
    """One name for each row, equal for rows that share a group or a content, also through others.

    The name is the smallest content hash of the linked rows, so it does not depend on the order of the table.

    >>> group_names(["g", "g", "h"], ["b", "a", "c"])
    ('a', 'a', 'c')
    """
    if groups is None:
        return tuple(content)
    numbers = linked(groups, content)
    smallest: dict[int, str] = {}
    for number, name in zip(numbers, content, strict=True):
        smallest[number] = min(smallest.get(number, name), name)
    return tuple(smallest[number] for number in numbers)


def strata_of(labels: Array) -> Array:
    """(rows,) int64: what folds and draws are balanced by, from labels as in `Rows.labels`.

    The class; the rarest of several labels (-1 for none); the rarest tag other than `O`; the bin of a number.

    >>> strata_of(np.array([[1, 1], [1, 0], [1, 0], [0, 0]], dtype=np.int8)).tolist()
    [1, 0, 0, -1]
    """
    if labels.ndim == 2:
        order = np.argsort(labels.sum(axis=0), kind="stable")  # rarest first
        first = np.argmax(labels[:, order] > 0, axis=1)
        return np.asarray(np.where(labels.any(axis=1), order[first], -1), dtype=np.int64)
    if labels.dtype == object:
        return _rarest_tag(labels)
    if labels.dtype.kind == "f":
        bins = max(1, min(BINS, len(labels) // FOLDS))
        inner = np.quantile(labels, np.linspace(0, 1, bins + 1)[1:-1]) if len(labels) else np.zeros(0)
        return np.searchsorted(inner, labels, side="right").astype(np.int64)
    return labels.astype(np.int64)


def _rarest_tag(labels: Array) -> Array:
    rows = [set(tags) - {"O"} for tags in labels]
    counts = Counter(tag for tags in rows for tag in tags)
    names = sorted(counts, key=lambda tag: (counts[tag], tag))
    number = {tag: i for i, tag in enumerate(names)}
    return np.array([min((number[t] for t in tags), default=-1) for tags in rows], dtype=np.int64)


def one_class(labels: Array) -> bool:
    """Whether a row has one class and nothing else: of one that stands alone nothing can be learned by others.

    >>> one_class(np.array([1, 0])), one_class(np.array([[1, 0]], dtype=np.int8)), one_class(np.array([0.5]))
    (True, False, False)
    """
    return labels.ndim == 1 and labels.dtype.kind in "iub"


def deal(strata: Sequence[int], groups: Sequence[str], k: int, salt: str, *, classes: bool = True) -> list[int]:
    """The fold of each row: groups in hash order, within their majority stratum, to the smallest fold.

    Smallest: fewest rows of that stratum, then fewest rows, then the lowest number. With `classes`, a stratum that
    lies in one group alone is never scored, and neither are the rows that share the group: their fold is -1.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_of[group].append(row)
    values = [int(s) for s in strata]
    within: dict[int, set[str]] = defaultdict(set)
    for value, group in zip(values, groups, strict=True):
        within[value].add(group)
    alone = {g for held in within.values() if classes and len(held) == 1 for g in held}
    of = [-1] * len(values)
    piles: dict[int, list[str]] = defaultdict(list)
    for group, rows in rows_of.items():
        if group not in alone:
            piles[values[rows[0]] if len(rows) == 1 else _majority([values[row] for row in rows])].append(group)
    total = [0] * k
    above = len(values) + 1  # one row of the stratum weighs more than all rows
    for stratum in sorted(piles):
        size = list(total)
        for group in sorted(piles[stratum], key=lambda name: (unit(name, salt), name)):
            fold = size.index(min(size))
            for row in rows_of[group]:
                of[row] = fold
            size[fold] += len(rows_of[group]) * (above + 1)
            total[fold] += len(rows_of[group])
    return of


def _majority(values: list[int]) -> int:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))


def folds_for(labels: Array, groups: Sequence[str], seed: int = 0, *, split: bool = True) -> Folds:
    """The one set of folds of a target: 5 folds in 2 repeats, or one validation split from 2,000 rows.

    split: whether so many rows are split; False deals folds whatever their number.
    With fewer than 5 groups to score there are as many folds as groups; `k` is 0 where nothing can be scored.
    """
    strata, classes = strata_of(labels).tolist(), one_class(labels)
    if split and len(labels) >= SPLIT_FROM:
        of = deal(strata, groups, FOLDS, f"headstart validation {seed}", classes=classes)
        if 0 in of and any(f != 0 for f in of):
            return Folds(kind="split", k=1, of=(tuple(0 if f == 0 else -1 for f in of),))
    k = scored_folds(labels, groups)
    salts = [f"headstart folds {seed} {repeat}" for repeat in range(REPEATS)]
    return Folds(kind="cv", k=k, of=tuple(tuple(deal(strata, groups, k, s, classes=classes)) for s in salts if k))


def outer_folds(labels: Array, groups: Sequence[str], seed: int = 0, k: int = FOLDS) -> list[int]:
    """The outer fold that tests each labelled row; -1 for rows that are trained on in all of them."""
    k = scored_folds(labels, groups, k)
    salt = f"headstart outer folds {seed}"
    return deal(strata_of(labels).tolist(), groups, k, salt, classes=one_class(labels)) if k else [-1] * len(groups)


def scored_folds(labels: Array, groups: Sequence[str], k: int = FOLDS) -> int:
    """How many folds can be filled, at most `k`; 0 with fewer than two groups to score."""
    once = deal(strata_of(labels).tolist(), groups, 1, "", classes=one_class(labels))
    found = len({group for group, fold in zip(groups, once, strict=True) if fold == 0})
    return min(k, found) if found > 1 else 0


def draw_order(labels: Array, ids: Sequence[str], seed: int = 0) -> list[int]:
    """Row numbers so ordered that each beginning is a stratified draw: proportional, and by hash within a stratum.

    >>> order = draw_order(np.array([0, 0, 0, 0, 1, 1]), list("abcdef"))
    >>> sorted(order), sorted(r >= 4 for r in order[:3])
    ([0, 1, 2, 3, 4, 5], [False, False, True])
    """
    salt = f"headstart draw {seed}"
    hashed = [unit(name, salt) for name in ids]
    piles: dict[int, list[int]] = defaultdict(list)
    for row, stratum in enumerate(strata_of(labels)):
        piles[int(stratum)].append(row)
    placed: list[tuple[float, float, int]] = []
    for pile in piles.values():
        pile.sort(key=lambda row: (hashed[row], ids[row]))
        placed += [((at + 0.5) / len(pile), hashed[row], row) for at, row in enumerate(pile)]
    return [row for _, _, row in sorted(placed)]
