"""Anchor-Fisher moments: a task as the shape of the Fisher information that it gives small random networks.

Cao, You, Liu and Leskovec, "AutoTransfer: AutoML with Knowledge Transfer - An Application to Graph Neural Networks",
ICLR 2023. There the anchors are graph networks; here they are networks on features, so that any task that an encoder
can read has a place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

from headstart.core import TaskType, Unfit

from .artifacts import Head
from .linear import logistic_path, ridge_path

Array = np.ndarray[Any, Any]
Anchor = tuple[int, int, str]  # width, hidden layers, activation
ANCHORS: tuple[Anchor, ...] = tuple(product((16, 32, 64), (1, 2), ("relu", "tanh")))
EMBEDDING_VERSION = 1  # vectors of two versions lie in two spaces
LEAST_ROWS = 10
STRENGTH = 0.01  # of the linear heads; nearly all rows are then left uncertain, and have a say in the information


def fisher_moment(fisher: Array) -> float:
    """mean(f²) / mean(f)² of diagonal Fisher information: 1 where all weights matter alike, more the fewer matter.

    >>> fisher_moment(np.array([2.0, 2.0])), fisher_moment(np.array([0.0, 4.0]))
    (1.0, 2.0)
    """
    largest = float(np.max(fisher, initial=0.0))
    if largest <= 0:
        return 1.0
    scaled = np.asarray(fisher, dtype=np.float64) / largest
    return max(float(np.square(scaled).mean() / scaled.mean() ** 2), 1.0)


def anchor_fisher_moments(
    features: Array, labels: Array, classes: int, task: TaskType, *, seeds: Sequence[int] = (0, 1, 2, 3, 4)
) -> Array:
    """(12,) for each anchor the mean over seeds of the logarithm of `fisher_moment`.

    features: (rows, width) of one encoder, the same for all tasks that are compared. An anchor is a random network that
    is never trained and has one mode alone. A linear head is fitted on one half of the rows; the other half gives the
    squared gradients of the body's weights, row by row, and the halves change places. Labels are the model's own: their
    expectation is taken exactly, where the paper draws them. Time: 24 · seeds fits of a head on rows / 2.
    Raises `Unfit` for tags, below 10 rows, or for features that do not vary.

    The paper brings the vector to length 1, and learns a space in which cosines order tasks. Length 1 takes away how
    concentrated the information is, which says most of a task here; see `task_similarities` for what takes its place.
    """
    x = np.asarray(features, dtype=np.float64)
    x = x - x.mean(axis=0)
    level = float(np.sqrt(np.square(x).mean())) if x.size else 0.0
    if task == "tagging" or len(x) < LEAST_ROWS or not level > 1e-12 * np.abs(features).max(initial=0.0):
        raise Unfit(
            f"{len(x)} rows of a {task.replace('_', '-')} task, with features that vary by {level:.3g}",
            where="anchor_fisher_moments",
            fix=f"give {LEAST_ROWS} rows or more that differ, of another task than tagging",
        )
    y, found = np.asarray(labels), np.zeros(len(ANCHORS))
    if task == "regression":
        y = (y - y.mean()) / (float(y.std()) or 1.0)
    for seed in seeds:
        for at, anchor in enumerate(ANCHORS):
            fisher = _fisher(x / level, y, classes, task, anchor, np.random.default_rng((seed, at)))
            found[at] += np.log(fisher_moment(fisher)) / len(seeds)
    return found


def task_similarities(new: Array, past: Array) -> tuple[Array, Array]:
    """Similarities (T,) of a new task to past ones and (T, T) among these, 0 to 1, from their vectors (A,) and (T, A).

    exp(-d²/2), d² the mean over anchors of the squared distance in standard deviations of all T + 1 tasks.

    >>> near, between = task_similarities(np.array([1.0]), np.array([[1.0], [3.0]]))
    >>> near.round(3).tolist(), between.round(3).tolist()
    ([1.0, 0.105], [[1.0, 0.105], [0.105, 1.0]])
    """
    every = np.vstack([past, new])
    spread = every.std(axis=0)
    places = (every - every.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)
    gaps = np.square(places[:, None] - places[None]).mean(axis=2)
    alike = np.exp(-gaps / 2)
    return alike[-1, :-1], alike[:-1, :-1]


def _fisher(x: Array, y: Array, classes: int, task: TaskType, anchor: Anchor, chance: np.random.Generator) -> Array:
    """The diagonal Fisher information of all weights of one anchor's body, in one flat array."""
    width, depth, activation = anchor
    sizes, gain = [x.shape[1], *[width] * depth], np.sqrt(2.0) if activation == "relu" else 1.0
    weights = [gain * chance.standard_normal((a, b)) / np.sqrt(a) for a, b in pairwise(sizes)]
    order = chance.permutation(len(x))
    layers = [x]
    for w in weights:
        z = layers[-1] @ w
        layers.append(np.maximum(z, 0.0) if activation == "relu" else np.tanh(z))
    total = np.zeros(sum(w.size for w in weights))
    halves = order[: len(x) // 2], order[len(x) // 2 :]
    for fit, held in (halves, halves[::-1]):
        head = _head(layers[-1][fit], y[fit], classes, task)
        for share, slope in _slopes(head, layers[-1][held], task):
            found: list[Array] = []
            back = slope @ head.weight.astype(np.float64)
            for at in range(depth, 0, -1):
                out = layers[at][held]
                back = back * ((out > 0) if activation == "relu" else 1 - np.square(out))
                # a row's gradient is an outer product, so its square is one too
                found.append((np.square(layers[at - 1][held]).T @ (share[:, None] * np.square(back))).ravel())
                back = back @ weights[at - 1].T
            total += np.concatenate(found[::-1])
    return total


def _head(at: Array, y: Array, classes: int, task: TaskType) -> Head:
    if task == "regression":
        return ridge_path(at, y, [STRENGTH])[0]
    return logistic_path(at, y, classes, [STRENGTH], "sigmoid" if task == "multi_label" else "softmax")[0]


def _slopes(head: Head, at: Array, task: TaskType) -> Iterator[tuple[Array, Array]]:
    """Each label that the model may draw: its probability (rows,), and the loss's slope by the outputs (rows, K).

    For several labels a row, and for numbers, each output is drawn by itself, so squares of slopes do not mix.
    """
    told = np.asarray(head(at), dtype=np.float64)
    for k in range(told.shape[1]):
        one = np.zeros_like(told)
        if task == "single_label":
            one[:, k] = 1.0
            yield told[:, k], told - one
        else:
            one[:, k] = 1.0 if task == "regression" else np.sqrt(told[:, k] * (1 - told[:, k]))
            yield np.ones(len(told)), one
