"""What a person should know about the rows to train on: duplicates, conflicts, label variants, leaks."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.core import Rows, Task
from headstart.numerics.hashing import content_text

LEAK_AUC = 0.99  # of one feature alone
LEAK_CORRELATION = 0.999  # of one feature with a number to predict, by rank
LEAST_ROWS = 20  # below which a feature may determine the label by chance
SHOWN = 5  # examples


def variants_of(classes: Sequence[str]) -> list[list[str]]:
    """Class names that differ in case, white space, hyphens or underscores alone.

    >>> variants_of(["Refund ", "other", "refund"])
    [['Refund ', 'refund']]
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        alike[re.sub(r"[\s_-]+", "", content_text(name)) if not _number(name) else name.strip()].append(name)
    return [names for names in alike.values() if len(names) > 1]


def _number(name: str) -> bool:
    return bool(re.fullmatch(r"\s*[-+]?[\d.]+\s*", name))


def duplicates_of(rows: Rows, unlabelled: Rows, test_content: Sequence[str]) -> dict[str, int]:
    """Counts of rows whose normalised input stood in a row before, by side; the sides share none."""

    def repeated(content: Sequence[str]) -> int:
        return len(content) - len(set(content))

    counts = Counter(rows.content)
    return {
        "labelled_rows": repeated(rows.content),
        "labelled_contents": sum(n > 1 for n in counts.values()),
        "unlabelled_rows": repeated(unlabelled.content),
        "test_rows": repeated(test_content),
    }


def conflicts_of(rows: Rows, task: Task) -> dict[str, Any]:
    """Equal inputs with different labels, and the accuracy that no system can pass because of them."""
    assert rows.labels is not None
    held: dict[str, list[int]] = defaultdict(list)
    for row, content in enumerate(rows.content):
        held[content].append(row)
    names = [_shown(label, task) for label in rows.labels]
    mixed = [at for at in held.values() if len(at) > 1 and len({names[r] for r in at}) > 1]
    lost = sum(len(at) - max(Counter(names[r] for r in at).values()) for at in mixed)
    examples = [
        {"input": shown_input(rows.inputs, at[0]), "labels": sorted({names[r] for r in at})} for at in mixed[:SHOWN]
    ]
    ceiling = None if task.type == "regression" or not len(rows) else 1 - lost / len(rows)
    return {"contents": len(mixed), "rows": sum(map(len, mixed)), "ceiling_accuracy": ceiling, "examples": examples}


def _shown(label: Any, task: Task) -> str:
    if task.type == "single_label":
        return task.classes[int(label)]
    if task.type == "regression":
        return f"{float(label):g}"
    if task.type == "multi_label":
        return ", ".join(name for name, on in zip(task.classes, label, strict=True) if on)
    return " ".join(label)


def shown_input(inputs: pa.Table, row: int) -> str:
    """A row as a short line of text."""
    held = inputs.slice(row, 1).to_pylist()[0]
    if "image" in held:
        return str(held["image"]["path"] or "an image in the table")
    if "tokens" in held:
        return " ".join(held["tokens"])[:120]
    if set(held) <= {"text", "text_pair"}:
        return " / ".join(str(v) for v in held.values())[:120]
    return ", ".join(f"{name}={value}" for name, value in held.items())[:120]


def leaks_of(rows: Rows, task: Task) -> list[dict[str, Any]]:
    """Features that tell the label by themselves, as far as the rows to train on show."""
    assert rows.labels is not None
    if len(rows) < LEAST_ROWS or task.type not in ("single_label", "regression"):
        return []
    found = []
    for name in rows.inputs.column_names:
        column = rows.inputs[name]
        if pa.types.is_floating(column.type):
            why = _number_leak(np.asarray(column.to_numpy(), dtype=np.float64), rows.labels, task)
        else:
            why = _category_leak(column.to_pylist(), rows.labels, task)
        if why:
            sentence = f"column `{name}` may leak the label: {why}; leave it out if it is not known beforehand"
            found.append({"column": name, "sentence": sentence})
    return found


def _ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Ranks from 1, ties sharing their mean."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[at])


def _number_leak(values: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], task: Task) -> str | None:
    held = np.isfinite(values)
    if held.sum() < LEAST_ROWS or len(np.unique(values[held])) < 2:
        return None
    ranks, y = _ranks(values[held]), labels[held]
    if task.type == "regression":
        both = np.corrcoef(ranks, _ranks(y))[0, 1] if len(np.unique(y)) > 1 else 0.0
        return f"its rank correlation with the label is {both:.4f}" if abs(both) > LEAK_CORRELATION else None
    classes = np.unique(y)
    if len(classes) == 2:
        first = y == classes[0]
        n, m = int(first.sum()), int((~first).sum())
        auc = (ranks[first].sum() - n * (n + 1) / 2) / (n * m)
        return f"alone it has an AUC of {max(auc, 1 - auc):.3f}" if max(auc, 1 - auc) > LEAK_AUC else None
    order = np.argsort(values[held], kind="stable")
    runs = int(np.count_nonzero(np.diff(y[order]))) + 1
    separate = runs == len(classes) > 2 and _pure(values[held].tolist(), y.tolist())
    return "it determines the label exactly" if separate else None


def _category_leak(values: Sequence[Any], labels: np.ndarray[Any, Any], task: Task) -> str | None:
    rows = [(v, y) for v, y in zip(values, labels.tolist(), strict=True) if v is not None]
    if len(rows) < LEAST_ROWS or len({y for _, y in rows}) < 2:
        return None
    distinct = len({v for v, _ in rows})
    if distinct > len(rows) / 2 or (task.type == "regression" and distinct < LEAST_ROWS):
        return None
    pure = _pure([v for v, _ in rows], [y for _, y in rows])
    return "it determines the label exactly" if pure else None


def _pure(values: Sequence[Any], labels: Sequence[Any]) -> bool:
    return len(set(zip(values, labels, strict=True))) == len(set(values))
