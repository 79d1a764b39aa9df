"""What a fusion must do, and what it may claim."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.core import METRICS, Fusing
from headstart.numerics import metrics

Array = np.ndarray[Any, Any]


def draw(seed: int, metric: str = "macro_f1", members: int = 4, rows: int = 40) -> tuple[list[Array], Array]:
    """Tables of members of growing noise, and the labels, of a task that the metric measures."""
    g = np.random.default_rng(seed)
    task = METRICS[metric].tasks[-1]
    labels: Array = np.arange(rows) % 3
    if task == "regression":
        labels = g.normal(size=rows)
        return [labels[:, None] + (1 + m) * g.normal(size=(rows, 1)) for m in range(members)], labels
    if task == "multi_label":
        labels = (g.random((rows, 3)) < 0.4).astype(np.int8)
        return [np.clip(labels * 0.4 + 0.6 * g.random((rows, 3)), 0, 1) for _ in range(members)], labels
    logits = [2 * np.eye(3)[labels] + (1 + m) * g.normal(size=(rows, 3)) for m in range(members)]
    return [np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in logits], labels


def blend(method: Fusing, tables: list[Array], labels: Array, metric: str) -> Array:
    return np.asarray(np.tensordot(method(tables, labels, metric), np.stack(tables), axes=1))


def weights_sum_to_one(method: Fusing, seed: int) -> None:
    for metric in METRICS:
        if metric == "span_f1":  # of tags, which have no table to blend
            continue
        tables, labels = draw(seed, metric)
        kept = [t.copy() for t in tables]
        weights = method(tables, labels, metric)
        assert weights.shape == (4,)
        assert np.isfinite(weights).all()
        assert abs(weights.sum() - 1) < 1e-9
        assert all(np.array_equal(a, b) for a, b in zip(tables, kept, strict=True)), "changes its input"


def repeatable(method: Fusing, seed: int) -> None:
    assert np.array_equal(method(*draw(seed), "macro_f1"), method(*draw(seed), "macro_f1"))


def one_member_alone(method: Fusing, seed: int) -> None:
    tables, labels = draw(seed, members=1)
    assert np.allclose(method(tables, labels, "macro_f1"), [1.0])


def never_below_the_best(method: Fusing, seed: int) -> None:
    """On the rows that it saw, the blend is at least as good as each member."""
    for metric in ("macro_f1", "accuracy", "log_loss", "auroc", "rmse", "spearman"):
        tables, labels = draw(seed, metric)
        sign = METRICS[metric].sign
        members = [sign * metrics.value(metric, labels, t) for t in tables]
        assert sign * metrics.value(metric, labels, blend(method, tables, labels, metric)) >= max(members) - 1e-9


def copies(method: Fusing, seed: int) -> None:
    """A copy of a member changes nothing in the blend."""
    tables, labels = draw(seed)
    for m in range(len(tables)):
        again = blend(method, [*tables, tables[m].copy()], labels, "macro_f1")
        assert np.allclose(again, blend(method, tables, labels, "macro_f1"))


def member_order(method: Fusing, seed: int) -> None:
    tables, labels = draw(seed, "log_loss")
    assert np.allclose(method(tables, labels, "log_loss")[::-1], method(tables[::-1], labels, "log_loss"))


def row_order(method: Fusing, seed: int) -> None:
    tables, labels = draw(seed, "log_loss")
    order = np.random.default_rng(seed).permutation(len(labels))
    again = method([t[order] for t in tables], labels[order], "log_loss")
    assert np.allclose(again, method(tables, labels, "log_loss"))


ALWAYS = [weights_sum_to_one, repeatable, one_member_alone]
CLAIMS = {law.__name__: law for law in (never_below_the_best, copies, member_order, row_order)}
