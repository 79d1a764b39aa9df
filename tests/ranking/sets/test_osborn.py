"""OSBORN's terms against a linear programme for the transport and loops for the entropies, and in limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from headstart.core import Unfit
from headstart.ranking.estimators.nce import NCE
from headstart.ranking.sets import choose
from headstart.ranking.sets.osborn import OSBORN
from headstart.testing.ranking_estimators import score
from headstart.testing.ranking_sets import SeenCandidate, draw

Array = np.ndarray[Any, Any]


def transported(f: Array, g: Array) -> tuple[float, Array]:
    """Least cost of moving rows of f onto rows of g, equal masses, and the coupling, by a linear programme."""
    cost = np.array([[float(((a - b) ** 2).sum()) for b in g] for a in f])
    n, m = cost.shape
    away = np.kron(np.eye(n), np.ones((1, m)))
    here = np.kron(np.ones((1, n)), np.eye(m))
    masses = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    found = linprog(cost.ravel(), A_eq=np.vstack([away, here]), b_eq=masses)
    return float(found.fun) / float(cost.mean()), found.x.reshape(n, m)


def joint_of(y: Array, z: Array, masses: Array) -> Array:
    """(labels, source classes) masses; masses (rows of y, rows of z)."""
    ys, zs = sorted(set(y.tolist())), sorted(set(z.tolist()))
    return np.array([[masses[np.ix_(y == a, z == b)].sum() for b in zs] for a in ys])


def remaining(joint: Array) -> float:
    """H(label | source class) over H(label)."""
    left = sum(-p * log(p / joint[:, b].sum()) for (_, b), p in np.ndenumerate(joint) if p > 1e-15)
    whole = sum(-p * log(p) for p in joint.sum(axis=1) if p > 1e-15)
    return float(left / whole) if whole else 0.0


def direct(drawn: list[SeenCandidate], members: tuple[int, ...], weights: tuple[float, float, float]) -> float:
    domain, task, cohesion = weights
    total = 0.0
    for i in members:
        c = drawn[i]
        if c.rows_of_its_own is None:
            away = float(np.mean([sum(-p * log(p) for p in row) for row in c.said])) / log(c.said.shape[1])
            table = joint_of(c.known, c.said.argmax(axis=1), np.eye(len(c.known)) / len(c.known))
        else:
            away, coupling = transported(c.given, c.rows_of_its_own[0])
            table = joint_of(c.known, c.rows_of_its_own[1], coupling)
        total += task * (1 - remaining(table)) - domain * away
    for i, j in combinations(members, 2):
        a, b = drawn[i].said.argmax(axis=1), drawn[j].said.argmax(axis=1)
        same = np.eye(len(a)) / len(a)
        total -= cohesion * (remaining(joint_of(a, b, same)) + remaining(joint_of(b, a, same))) / 2
    return total


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 0.1), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("seed", range(2))
def test_equals_brute_force(seed: int, weights: tuple[float, float, float]) -> None:
    domain, task, cohesion = weights
    method = OSBORN(domain=domain, task=task, cohesion=cohesion, rows=80)  # 40 rows twice, 20 four times: exact
    drawn = draw(method, seed)
    value = method(drawn)
    for s in [(), (0,), (1,), (2, 3), (0, 1, 4), (1, 2, 3)]:
        assert value(s) == pytest.approx(direct(drawn, s, weights), abs=1e-6)


def test_several_labels_are_the_mean_over_them() -> None:
    """Each label alone by the sums above; those of a source's own rows are one name, by hand."""
    method = OSBORN(rows=80)
    drawn = draw(method, 0, task="multi_label")
    combined = [replace(c, rows_of_its_own=(c.rows_of_its_own[0], np.array([4 * a + 2 * b + d for a, b, d in
                c.rows_of_its_own[1].tolist()]))) if c.rows_of_its_own else c for c in drawn]  # fmt: skip
    value, named = method(drawn), method(combined)
    for s in [(), (0,), (1,), (2, 3), (0, 1, 4)]:
        alone = [
            direct([replace(c, known=c.known[:, label]) for c in combined], s, (1.0, 1.0, 1.0)) for label in range(3)
        ]
        assert value(s) == pytest.approx(np.mean(alone), abs=1e-6)
        assert value(s) == named(s)
    hot = np.column_stack([drawn[0].known, np.ones(40, dtype=np.int8)])
    more = [replace(c, known=hot, classes=4) for c in drawn]
    assert method(more)((2, 3)) == pytest.approx(value((2, 3))), "a label on every row says nothing"


def test_domain_and_task_are_those_of_the_published_otce() -> None:
    """What `compute_coupling` and `compute_CE` of tanyang1231/OTCE_Transferability_CVPR21 d844b87 printed.

    OSBORN's own code could not be had. OTCE's terms are not divided by what chance would make of them, as ours are.
    """
    chance = np.random.default_rng(7)
    own, here = chance.standard_normal((60, 3)), chance.standard_normal((60, 3)) * [1, 2, 0.5] + [1.5, 0, 0]
    names, labels = np.arange(60) % 2, np.arange(60) % 3
    own[names == 1] += [0, 1, 0]
    here[labels == 2] -= [0, 0, 2]
    cost, left = 5.878844063978876, 1.0885615395869754
    one = replace(draw(OSBORN(), 0)[0], given=here, known=labels, rows_of_its_own=(own, names))
    random = float(((here[:, None] - own[None]) ** 2).sum(axis=2).mean())
    assert OSBORN(task=0.0, rows=60)([one])([0]) == pytest.approx(-cost / random, rel=1e-9)
    assert OSBORN(domain=0.0, rows=60)([one])([0]) == pytest.approx(1 - left / log(3), rel=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_without_rows_of_its_own_and_weights_it_is_nce(seed: int) -> None:
    method = OSBORN(domain=0.0)
    drawn = [replace(c, rows_of_its_own=None) for c in draw(method, seed)]
    value = method(drawn)
    for i, c in enumerate(drawn):
        shares = np.bincount(c.known) / len(c.known)
        whole = float(-(shares * np.log(shares)).sum())
        nce = score(NCE(), np.log(c.said), c.known)
        assert value([i]) == pytest.approx(1 + nce / whole, abs=1e-9)


def test_a_source_that_learned_these_rows_is_at_no_distance() -> None:
    method = OSBORN(task=0.0)
    one, other = draw(method, 0)[:2]
    near = replace(one, rows_of_its_own=(one.given, one.known))
    far = replace(one, rows_of_its_own=(one.given + 50, one.known))
    value = method([near, far])
    assert value([0]) == pytest.approx(0, abs=1e-12)
    assert value([1]) < -0.9
    still = replace(other, given=np.ones((40, 6)), rows_of_its_own=(np.ones((9, 6)), np.arange(9) % 3))
    assert method([still])([0]) == -1, "features that never vary show no nearness"


def test_a_source_that_always_says_the_same_is_worth_nothing() -> None:
    """In the paper's direction of the entropy it would have no task difference at all."""
    sure = np.tile([1.0, 0.0], (40, 1))
    one = replace(draw(OSBORN(), 0)[2], said=sure)
    assert OSBORN()([one])([0]) == pytest.approx(0, abs=1e-12)


def test_a_head_that_says_nothing_of_any_class_is_as_unsure_as_can_be() -> None:
    one = replace(draw(OSBORN(), 0)[2], said=np.zeros((40, 5)))
    assert OSBORN(task=0.0)([one])([0]) == pytest.approx(-1)


def test_labels_of_one_class_leave_nothing_to_tell() -> None:
    one = draw(OSBORN(domain=0.0), 0)[2]
    assert OSBORN(domain=0.0)([replace(one, known=np.zeros(40, dtype=int))])([0]) == 0


def test_a_copy_stays_out_and_one_who_says_the_same_of_classes_by_other_names_agrees() -> None:
    method = OSBORN(domain=0.0)
    drawn = draw(method, 1)
    again = [drawn[0], replace(drawn[0], said=drawn[0].said.copy())]
    assert choose(again, 2, method).members == (0,)
    assert choose(again, 2, method, least=2).members == (0, 1), "as many as asked for"
    turned = replace(drawn[0], said=drawn[0].said[:, ::-1])
    value = method([drawn[0], turned])
    assert value([0, 1]) == pytest.approx(2 * value([0]), abs=1e-12)


def test_a_weight_below_zero_is_refused() -> None:
    with pytest.raises(Unfit, match="cohesion -1"):
        OSBORN(cohesion=-1.0)
