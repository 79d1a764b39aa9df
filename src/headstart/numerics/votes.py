"""Votes of new inputs for the collections whose items are most like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.core import Unfit

Array = np.ndarray[Any, Any]
SAME = 1e-9  # cosines that differ by less are equal: the items are one and the same
LEAST_OF_A_CENTRE = 5  # rows that a centre stands for, so that it is nobody's


@dataclass(frozen=True, eq=False, slots=True)
class Votes:
    """shares: (S,) of the inputs that voted for each collection; they sum to one. nearest: (N,) cosine of each input to
    its nearest item. usual: the cosine that 19 in 20 items reach to the nearest other item of their own collection."""

    shares: Array
    nearest: Array
    usual: float

    @property
    def novel(self) -> bool:
        """Whether at least half of the inputs are farther from every item than items are from their own kind."""
        return float(np.median(self.nearest)) < self.usual


def votes(collections: Sequence[Array], inputs: Array) -> Votes:
    """Each of the inputs (N, D) votes for the collection, (I, D) each, that holds the item of the largest cosine to it.

    Of every collection as many items count as the smallest has, the first ones: a large one gets no more votes for
    being large. What all items have in common, their mean, is taken away first. Items that stand in several
    collections share their vote.

    >>> one, other = np.array([[3.0, 0.0], [2.0, 1.0]]), np.array([[-1.0, 2.0], [0.0, 3.0]])
    >>> votes([one, other], np.array([[5.0, 0.0], [4.0, 0.0], [0.0, 9.0]])).shares.round(2).tolist()
    [0.67, 0.33]
    """
    least = min((len(c) for c in collections), default=0)
    if least < 2 or not len(inputs):
        raise Unfit(
            f"{len(collections)} collections, the smallest of {least} items, and {len(inputs)} inputs",
            where="a vote",
            fix="give collections of two items at least, and one input",
        )
    items = np.stack([np.asarray(c[:least], dtype=np.float64) for c in collections])
    middle = items.reshape(-1, items.shape[-1]).mean(axis=0)
    items, asking = _units(items - middle), _units(np.asarray(inputs, dtype=np.float64) - middle)
    best = np.column_stack([(asking @ one.T).max(axis=1) for one in items])
    nearest = best.max(axis=1)
    first = best >= nearest[:, None] - SAME
    shares = (first / first.sum(axis=1, keepdims=True)).mean(axis=0)
    own = np.concatenate([(one @ one.T - 3 * np.eye(least)).max(axis=1) for one in items])
    return Votes(shares, nearest, float(np.quantile(own, 0.05)))


def centres(features: Array, most: int, seed: int = 0) -> Array:
    """(at most `most`, D) centres of k-means clusters of features (rows, D), each of five rows at least.

    A centre is a mean of several rows, so it is nobody's; rows that are alike are told all the same.

    >>> centres(np.repeat([[0.0], [4.0]], 10, axis=0), 9).ravel().round(6).tolist()
    [0.0, 4.0]
    """
    from sklearn.cluster import KMeans

    x = np.asarray(features, dtype=np.float64)
    count = min(most, len(x) // (2 * LEAST_OF_A_CENTRE), len(np.unique(x, axis=0)))
    if count < 2:
        raise Unfit(
            f"{len(x)} rows make no two clusters of {LEAST_OF_A_CENTRE} rows",
            where="centres of rows",
            fix="give more rows, or keep rows themselves",
        )
    found = KMeans(count, n_init=1, random_state=seed).fit(x)
    sizes = np.bincount(found.labels_, minlength=count)
    kept = found.cluster_centers_[sizes >= LEAST_OF_A_CENTRE]
    return np.asarray(kept[np.lexsort(kept.T[::-1])])


def _units(x: Array) -> Array:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300))
