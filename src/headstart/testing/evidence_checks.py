"""What a check on tables of predictions must do, and what it may claim."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from headstart.core import Checking, Finding

Array = np.ndarray[Any, Any]


def draw(seed: int, rows: int = 40, classes: int = 3) -> tuple[Array, Array, Array, list[str]]:
    """Two tables of predictions, labels of every class, and groups of one or two rows."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % classes)
    tables = []
    for strength in (2.0, 1.0):
        logits = rng.normal(size=(rows, classes))
        logits[np.arange(rows), labels] += strength
        e = np.exp(logits)
        tables.append(e / e.sum(axis=1, keepdims=True))
    return tables[0], tables[1], labels, [f"g{i // 2 if i < rows // 2 else i}" for i in range(rows)]


def numbers(found: Any) -> list[float]:
    """Every number of a finding's figures, in order."""
    if isinstance(found, dict):
        return [n for v in found.values() for n in numbers(v)]
    if isinstance(found, list):
        return [n for v in found for n in numbers(v)]
    return [] if isinstance(found, str) or found is None else [float(found)]


def same(a: Finding, b: Finding) -> None:
    x, y = numbers(a.figures), numbers(b.figures)
    assert len(x) == len(y), "a finding changes its figures"
    np.testing.assert_allclose(x, y, atol=1e-9)


def says_something(method: Checking, seed: int) -> None:
    """A name, one sentence, and figures that are JSON values."""
    found = method(*draw(seed), "accuracy")
    assert found.name
    assert found.sentence
    assert "\n" not in found.sentence
    assert json.loads(json.dumps(dict(found.figures), allow_nan=False)) == dict(found.figures)


def repeatable(method: Checking, seed: int) -> None:
    a, b, labels, groups = draw(seed)
    kept = a.copy(), b.copy(), labels.copy()
    same(method(a, b, labels, groups, "accuracy"), method(a, b, labels, groups, "accuracy"))
    for now, before in zip((a, b, labels), kept, strict=True):
        assert np.array_equal(now, before), "changes its input"


def finite_at_the_edges(method: Checking, seed: int) -> None:
    """One row, one group, one class, all ties, all right."""
    sure = np.eye(3)
    one = np.array([seed % 3])
    cases = [
        (sure[one], sure[one], one, ["a"]),
        (np.full((6, 3), 1 / 3), np.full((6, 3), 1 / 3), np.arange(6) % 3, ["a"] * 6),
        (sure[np.arange(6) % 3], sure[np.arange(6) % 3], np.arange(6) % 3, list("abcdef")),
        (sure[[1] * 4], sure[[0] * 4], np.zeros(4, dtype=np.int64), list("abcd")),
    ]
    for case in cases:
        assert np.isfinite(numbers(method(*case, "macro_f1").figures)).all()


def equal_systems_show_nothing(method: Checking, seed: int) -> None:
    """No check finds a difference between a system and itself."""
    a, _, labels, groups = draw(seed)
    figures = method(a, a.copy(), labels, groups, "accuracy").figures
    assert figures.get("verdict", "no-evidence") == "no-evidence"
    assert figures.get("p", 1.0) == 1.0


def row_order(method: Checking, seed: int) -> None:
    a, b, labels, groups = draw(seed)
    to = np.random.default_rng(seed).permutation(len(labels))
    there = method(a[to], b[to], labels[to], [groups[i] for i in to], "macro_f1")
    same(method(a, b, labels, groups, "macro_f1"), there)


def class_names(method: Checking, seed: int) -> None:
    """Classes in another order: the same finding, but for what chance draws (an interval's ends)."""
    a, b, labels, groups = draw(seed)
    to = np.array([2, 0, 1])
    back = np.argsort(to)
    here, there = (
        method(a, b, labels, groups, "macro_f1"),
        method(a[:, back], b[:, back], to[labels], groups, "macro_f1"),
    )
    leave = ("low", "high", "verdict")
    mine, theirs = ({k: v for k, v in f.figures.items() if k not in leave} for f in (here, there))
    np.testing.assert_allclose(numbers(mine), numbers(theirs), atol=1e-9)


def swapping_negates(method: Checking, seed: int) -> None:
    a, b, labels, groups = draw(seed)
    here, there = (method(*pair, labels, groups, "macro_f1").figures for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(
        [here[k] for k in ("value", "low", "high")], [-there[k] for k in ("value", "high", "low")]
    )
    other = {"helps": "hurts", "hurts": "helps", "no-evidence": "no-evidence"}
    assert here["verdict"] == other[there["verdict"]]


def a_clear_gain_is_found(method: Checking, seed: int) -> None:
    _, _, labels, groups = draw(seed, rows=60)
    figures = method(np.eye(3)[labels], np.eye(3)[(labels + 1) % 3], labels, groups, "accuracy").figures
    assert figures.get("verdict", "helps") == "helps"
    assert figures.get("p", 0.0) < 0.01


ALWAYS = [says_something, repeatable, finite_at_the_edges, equal_systems_show_nothing]
CLAIMS = {law.__name__: law for law in (row_order, class_names, swapping_negates, a_clear_gain_is_found)}
