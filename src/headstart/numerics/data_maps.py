"""Data maps: mean and deviation, over epochs, of the probability of each row's true class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from scipy.special import softmax

from headstart.core import Unfit

from .linear import standard

Array = np.ndarray[Any, Any]


class Running:
    """Mean and deviation of what comes one array after another, in one pass (Welford, 1962).

    >>> r = Running()
    >>> for x in (1.0, 3.0): r.add(np.array([x]))
    >>> r.mean.tolist(), r.deviation.tolist()
    ([2.0], [1.0])
    """

    def __init__(self) -> None:
        self.visits, self.mean, self._squares = 0, np.zeros(()), np.zeros(())

    def add(self, values: Array) -> None:
        self.visits += 1
        gap = values - self.mean
        self.mean = self.mean + gap / self.visits
        self._squares = self._squares + gap * (values - self.mean)

    @property
    def deviation(self) -> Array:
        """Of the visits themselves, so that one visit has 0."""
        return np.asarray(np.sqrt(self._squares / self.visits))


def data_map(features: Array, labels: Array, epochs: int) -> tuple[Array, Array]:
    """Mean and deviation (rows,) of the true class's probability over the epochs of a linear head's training.

    labels: numbers without gaps. The head starts at 0 on standardised features; an epoch is a step against the gradient
    of the mean log loss, of a length that cannot overshoot: twice the inverse of the largest variance, with the bias.
    Each is noted after its step.
    """
    centre, scale = standard(features)
    z = (np.asarray(features, dtype=np.float64) - centre) / scale
    z = np.concatenate([z, np.ones((len(z), 1))], axis=1)
    truth = np.eye(int(labels.max()) + 1)[labels]
    step = 2 / float(np.linalg.norm(z, 2) ** 2 / len(z))  # the curvature is at most half the largest variance
    weight, seen = np.zeros((z.shape[1], truth.shape[1])), Running()
    for _ in range(epochs):
        weight -= step * z.T @ (softmax(z @ weight, axis=1) - truth) / len(z)
        seen.add((softmax(z @ weight, axis=1) * truth).sum(axis=1))
    return seen.mean, seen.deviation


def on_shared(maps: Sequence[Mapping[str, Array]], least: int = 10) -> list[Array]:
    """Of each map the means and deviations (2, shared rows) of the inputs that all have, in one order.

    Of an input that a map has twice, the first. Raises `Unfit` where fewer than `least` are shared.
    """
    shared = reduce(np.intersect1d, (m["content"] for m in maps))
    if len(shared) < least:
        raise Unfit(
            f"{len(shared)} inputs are shared by the tasks, and their data maps are compared on {least} at least",
            where="data maps",
            fix="use `covariance_alignment` or `task2vec`, which compare tasks of other inputs",
        )
    found = []
    for one in maps:
        names, first = np.unique(one["content"], return_index=True)
        at = first[np.searchsorted(names, shared)]
        found.append(np.stack([one["mean"][at], one["spread"][at]]))
    return found


def grouped(maps: Sequence[Mapping[str, Array]], groups: int, seed: int) -> tuple[int, ...]:
    """The number of each task's group by K-means over the maps, numbered in the order of their first task."""
    from sklearn.cluster import KMeans

    if not 1 <= groups <= len(maps):
        raise Unfit(
            f"{groups} groups of {len(maps)} tasks",
            where="group(groups=…)",
            fix="ask for 1 group or more, and no more than there are tasks",
        )
    flat = np.stack([m.ravel() for m in on_shared(maps)])
    found = KMeans(groups, n_init=10, random_state=seed).fit(flat).labels_
    numbers: dict[int, int] = {}
    return tuple(numbers.setdefault(int(g), len(numbers)) for g in found)
