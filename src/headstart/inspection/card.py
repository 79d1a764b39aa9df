"""The target card: what is in the table, and what its test can show. Labels of test rows are never in it."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from headstart.core import Target
from headstart.numerics.folds import FOLDS

from .findings import conflicts_of, duplicates_of

EXPECTED = 0.8  # accuracy that the smallest difference is worked out at
SHARED = 0.5  # correlation of two systems' errors that it assumes
EXPLAINED = 0.75  # of the variance of a number
Z = 1.96
LEVELS = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)


def card_of(target: Target) -> dict[str, Any]:
    """JSON values about a target; the test is counted and never opened."""
    task, rows = target.task, target.labelled
    counts = _class_counts(target)
    least = [n for n in counts if n]
    return {
        "name": target.name,
        "task": {"type": task.type, "pair": task.pair, "classes": len(task.classes)},
        "modality": target.modality,
        "metric": {"name": target.metric.name, "higher_is_better": target.metric.higher_is_better},
        "rows": len(rows) + len(target.unlabelled) + len(target.seal),
        "labelled": len(rows),
        "unlabelled": len(target.unlabelled),
        "test": len(target.seal),
        "left_out": target.facts.get("rows_left_out", 0),
        "unreadable": target.facts.get("unreadable", {}),
        "classes": [{"name": name, "rows": n} for name, n in zip(task.classes, counts, strict=True)],
        "imbalance": max(least) / min(least) if least else None,
        "values": _values(target) if task.type == "regression" else None,
        "columns": _columns(target),
        "lengths": _lengths(target),
        "sizes": target.facts.get("train_sizes"),
        "duplicates": duplicates_of(rows, target.unlabelled, target.seal.content),
        "conflicting_labels": conflicts_of(rows, task),
        "label_variants": target.facts.get("label_variants", []),
        "leaks": target.facts.get("leaks", []),
        "smallest_difference": smallest_difference(target),
        "protocol": _protocol(target),
        "fingerprint": target.fingerprint,
        "notes": list(target.notes),
    }


def _class_counts(target: Target) -> list[int]:
    labels, task = target.labelled.labels, target.task
    assert labels is not None
    if task.type == "regression":
        return []
    if task.type == "single_label":
        return [int(n) for n in np.bincount(labels, minlength=len(task.classes))]
    if task.type == "multi_label":
        return [int(n) for n in labels.sum(axis=0)]
    number = dict.fromkeys(task.classes, 0)
    for tags in labels:
        for tag in tags:
            number[tag] += 1
    return list(number.values())


def _values(target: Target) -> dict[str, float]:
    labels = np.asarray(target.labelled.labels, dtype=np.float64)
    return {"mean": float(labels.mean()), "sd": float(labels.std()), "low": float(labels.min()),
            "high": float(labels.max())}  # fmt: skip


def _columns(target: Target) -> dict[str, Any]:
    columns = target.columns
    return {
        "label": columns.label,
        "text": list(columns.text),
        "pair": list(columns.pair) if columns.pair else None,
        "image": columns.image,
        "features": [{"name": name, "kind": kind} for name, kind in columns.features],
        "group": columns.group,
        "time": columns.time,
        "unused": target.facts.get("unused_columns", []),
    }


def _lengths(target: Target) -> dict[str, Any] | None:
    if target.modality != "text":
        return None
    table = target.labelled.inputs
    if "tokens" in table.column_names:
        counts = [len(tokens) for tokens in table["tokens"].to_pylist()]
        return {"unit": "tokens", "quantiles": _quantiles(counts)}
    counts = [0] * len(target.labelled)
    for name in table.column_names:
        counts = [n + len(text) for n, text in zip(counts, table[name].to_pylist(), strict=True)]
    return {"unit": "characters", "quantiles": _quantiles(counts)}


def _quantiles(values: list[int]) -> dict[str, int]:
    found = np.quantile(values, LEVELS) if values else np.zeros(len(LEVELS))
    return {f"{level:g}": round(float(value)) for level, value in zip(LEVELS, found, strict=True)}


def smallest_difference(target: Target) -> dict[str, Any]:
    """Half the width of a paired 95 % interval: the gain that the test can just tell from none.

    Counts groups, as the bootstrap draws these. For labels: 1.96 √(2 p (1 - p) (1 - ρ) / n) at p = 0.8 and ρ = 0.5.
    For numbers, as a fraction of the label's standard deviation s: the RMSE of a system that explains 3/4 of the
    variance is s/2, and two such with errors of correlation ρ differ by 1.96 · s/2 · √((1 - ρ²) / n).
    In outer cross-validation, times √(1 + 1/(k - 1)).
    """
    outer = target.protocol == "outer_cv"
    n = len(set(target.labelled.groups if outer else target.seal.groups))
    if target.task.type == "regression":
        unit = "of the label's standard deviation"
        formula, value = "1.96 · 0.5 · √((1 - 0.5²)/n)", Z * sqrt(1 - EXPLAINED) * sqrt((1 - SHARED**2) / n)
    else:
        unit = "of the metric, which goes from 0 to 1"
        formula, value = "1.96 √(2 · 0.8 · 0.2 · 0.5/n)", Z * sqrt(2 * EXPECTED * (1 - EXPECTED) * (1 - SHARED) / n)
    if outer:
        value *= sqrt(1 + 1 / (FOLDS - 1))
        formula += f" · √(1 + 1/{FOLDS - 1})"
    return {"value": value, "unit": unit, "groups": n, "formula": formula}


def _protocol(target: Target) -> dict[str, Any]:
    n, tested = len(target.labelled), len(target.seal)
    sealed = "sealed until the one verdict"
    sentences = {
        "outer_cv": (
            f"{n} labelled rows are too few for a test of their own: in each of {FOLDS} outer folds all choices are "
            "made anew without the rows that it tests, so the verdict is about the procedure, "
            "and the model returned is fitted on all labelled rows"
        ),
        "holdout": f"{tested} rows, a fifth by a hash of their content or group, are the test, {sealed}; "
        f"all choices are made on the other {n}",
        "user_test": f"the {tested} rows of the test given are {sealed}; all choices are made on the other {n}",
        "time": f"the latest {tested} rows are the test, {sealed}; all choices are made on the {n} before them",
    }
    folds = target.folds
    if folds.kind == "split":
        inner = f"; choices are scored on one validation split of {len(folds.sides(0, 0)[1])} rows"
    else:
        inner = f"; choices are scored in {folds.k} folds, {folds.repeats} times over"
    shown = {"kind": folds.kind, "k": folds.k, "repeats": folds.repeats}
    return {"name": target.protocol, "sentence": sentences[target.protocol] + inner, "folds": shown}
