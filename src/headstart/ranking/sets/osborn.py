"""OSBORN: sources that are near in domain and task, and that agree with each other.

Vimal K B, Bachu et al., "Building a Winning Team: Selecting Source Model Ensembles using a Submodular Transferability
Estimation Approach", ICCV 2023; the first two terms are of Tan, Li and Huang, "OTCE", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import entropy as entropy_of

from headstart.core import Candidate, Needs, SetFunction, Unfit
from headstart.numerics.information import left_open
from headstart.numerics.moments import Array
from headstart.numerics.several_labels import one_by_one
from headstart.numerics.similarity import centred


@dataclass(frozen=True, kw_only=True, slots=True)
class OSBORN:
    """What each source tells of the labels, less its distance in domain, less how far the members disagree.

    Shapes: predictions (N, Z), of which the largest counts; with a source's own rows also features (N, D), at most
    `rows` of each side; (rows, rows) float64; time O(N log N) a pair of sources, and O(rows³) where rows are at hand.
    Returns: sum over members of task · (1 − W_T) − domain · W_D, less cohesion · W_C for each pair; every term 0 … 1.
    Several labels a row: W_T is the mean over labels, each a class of its own against the rest; those of a source's own
    rows are one name together.
    Errors: `Unfit` for a weight below 0, or when no rows are asked for.

    W_D is the cost of moving the target's rows onto the source's own, in the source's features, over the cost of a
    random match; W_T the share of the labels' entropy that the matched rows' own labels leave open. Where a source's
    own rows are not at hand, W_D is the entropy of what its head says of the target's rows, over the log of its
    classes, and W_T what the head's classes leave open: compare with care where some have rows and others none. In
    `rank`, own rows come from `--datasets`: from the data sets that are called like sources. W_C is the share of one
    member's answers that the other's leave open, the mean of both ways.

    The paper adds up raw terms, so wide features or many classes decide; its W_T is the entropy of the source's classes
    given the label, by which a source that always says the same is perfect; and it has costs alone, so that every
    member makes a set worse, and a copy, which agrees, is the cheapest second. Here a member must bring more than it
    costs, and of members that say the same of every row the worth of one counts.
    """

    needs = Needs(gives=("features", "predictions"), tasks=("single_label", "multi_label", "tagging"), own_rows=True)
    claims = ("submodular", "candidate_order", "class_names", "duplicate_adds_nothing", "single_is_rank")
    cites = "arXiv:2309.02429"

    # of each term, from 0; equal in the paper
    domain: float = 1.0
    task: float = 1.0
    cohesion: float = 1.0
    # of each side that are matched, evenly over those sorted by label, with repeats where there are fewer
    rows: int = 300

    def __post_init__(self) -> None:
        if min(self.domain, self.task, self.cohesion) < 0 or self.rows < 1:
            raise Unfit(
                f"domain {self.domain}, task {self.task}, cohesion {self.cohesion}, rows {self.rows}",
                where="OSBORN(domain=…, task=…, cohesion=…, rows=…)",
                fix="use 1, 1, 1 and 300, the defaults",
            )

    def __call__(self, candidates: Sequence[Candidate]) -> SetFunction:
        told = [np.asarray(c.predictions, dtype=np.float64) for c in candidates]
        worth = [self._worth(c, said) for c, said in zip(candidates, told, strict=True)]
        costs = np.zeros((len(told), len(told)))
        for j, other in enumerate(told):
            for i, one in enumerate(told[:j]):
                copy = one.shape == other.shape and np.array_equal(one, other)
                costs[i, j] = max(worth[i], worth[j], 0.0) if copy else self.cohesion * _disagreement(one, other)

        def value(members: Sequence[int]) -> float:
            at = sorted(members)
            return sum((worth[i] for i in at), 0.0) - float(costs[np.ix_(at, at)].sum())

        return value

    def _worth(self, candidate: Candidate, said: Array) -> float:
        """Of one source alone."""
        labels = np.asarray(candidate.labels)
        if candidate.own is None:
            unsure = entropy_of(np.maximum(said, np.finfo(np.float64).tiny), axis=1).mean()  # of no answer, the most
            away = float(unsure / np.log(said.shape[1])) if said.shape[1] > 1 else 1.0
            known, given = labels, said.argmax(axis=1)
        else:
            features, names = np.asarray(candidate.own[0]), _names(candidate.own[1])
            here, there = self._drawn(labels), self._drawn(names)
            both = centred(np.concatenate([candidate.features[here], features[there]]))
            cost = cdist(both[: self.rows], both[self.rows :], "sqeuclidean")
            of, to = linear_sum_assignment(cost)
            away = float(cost[of, to].mean() / cost.mean()) if cost.any() else 1.0
            known, given = labels[here][of], names[there][to]
        each = [
            1 - left_open(y, given) if len(np.unique(y)) > 1 else 0.0 for y, _ in one_by_one(known, candidate.classes)
        ]
        return self.task * float(np.mean(each)) - self.domain * away

    def _drawn(self, labels: Array) -> Array:
        """`rows` numbers of rows, label by label in the order in which these occur, whatever they are called."""
        _, first, of = np.unique(_names(labels), return_index=True, return_inverse=True)
        order = np.argsort(first[of], kind="stable")
        return np.asarray(order[np.arange(self.rows) * len(labels) // self.rows])


def _names(labels: Array) -> Array:
    """(rows,) one name a row, of several labels their combination."""
    given = np.asarray(labels)
    return given if given.ndim == 1 else np.unique(given, axis=0, return_inverse=True)[1].ravel()


def _disagreement(one: Array, other: Array) -> float:
    a, b = one.argmax(axis=1), other.argmax(axis=1)
    return (left_open(a, b) + left_open(b, a)) / 2
