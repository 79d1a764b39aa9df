"""Estimators in moments form against their brute-force versions, on inputs that real tables and encoders have.

Fewer rows than dimensions, as many, and more; 2 to 40 classes of unequal size, one with a single row; columns that are
constant or stand twice; and units from 1e-6 to 1e6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from headstart.ranking.estimators.cdnv import CDNV
from headstart.ranking.estimators.cka import CKA
from headstart.ranking.estimators.clusterability import Clusterability
from headstart.ranking.estimators.dds import DDS
from headstart.ranking.estimators.gbc import GBC
from headstart.ranking.estimators.h_score import HScore
from headstart.ranking.estimators.ncti import NCTI
from headstart.ranking.estimators.pactran import PACTran
from headstart.ranking.estimators.ped import PED
from headstart.ranking.estimators.rsa import RSA
from headstart.ranking.estimators.shrunk_h_score import ShrunkHScore
from headstart.testing.ranking_estimators import score
from ranking import test_gbc, test_h_score, test_logme, test_shrunk_h_score

Array = np.ndarray[Any, Any]


@st.composite
def hard(draw: Any, most_width: float = 2.0) -> tuple[Array, Array, int]:
    """Features, labels and the number of classes; rows × most_width dimensions at most."""
    chance = np.random.default_rng(draw(st.integers(0, 2**20)))
    classes = draw(st.sampled_from([2, 3, 7, 40]))
    rows = draw(st.integers(2 * classes + 12, 2 * classes + 50))
    width = max(2, int(rows * draw(st.sampled_from([w for w in (0.1, 0.5, 1.0, 2.0) if w <= most_width]))))
    shares = chance.dirichlet(np.full(classes, 0.7))
    labels = chance.choice(classes, rows, p=shares)
    labels[: 2 * (classes - 1)] = np.repeat(np.arange(1, classes), 2)
    labels[2 * (classes - 1) :][labels[2 * (classes - 1) :] == classes - 1] = 0
    labels[0] = 0 if classes > 2 else labels[0]  # class 1 keeps one of its two rows, and what was drawn
    features = chance.standard_normal((classes, width))[labels] + chance.standard_normal((rows, width))
    if draw(st.booleans()):
        features[:, width // 2] = features[:, 0]
        features[:, -1] = 3.0
    return features * 10.0 ** draw(st.integers(-6, 6)), labels, classes


CASES: dict[str, tuple[Any, Callable[[Array, Array], float]]] = {
    "gbc": (GBC(), lambda f, y: test_gbc.direct(varying(f), y, True)),
    "gbc, diagonal": (GBC(covariance="diagonal"), lambda f, y: test_gbc.direct(varying(f), y, False)),
    "cdnv": (CDNV(), lambda f, y: pairs(f, y)),
    "shrunk_h_score": (ShrunkHScore(), lambda f, y: test_shrunk_h_score.direct(varying(f), y)),
}


def varying(f: Array) -> Array:
    """Without the columns that are constant, whose deviation in floating point need not be 0."""
    return np.asarray(f[:, f.std(0) > 1e-9 * np.abs(f).max(0)])


def pairs(f: Array, y: Array) -> float:
    parts, found = [f[y == c] for c in np.unique(y)], []
    for i, a in enumerate(parts):
        for b in parts[i + 1 :]:
            apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
            found.append(apart / (apart + a.var(0).sum() + b.var(0).sum()))
    return float(np.mean(found))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=40)
@given(case=hard())
def test_equals_brute_force(name: str, case: tuple[Array, Array, int]) -> None:
    (f, y, classes), (method, direct) = case, CASES[name]
    assume(classes <= 7 or not name.startswith("gbc"))  # 1,560 pairs by full determinants
    assert score(method, f, y, classes) == pytest.approx(direct(f, y), rel=1e-8, abs=1e-10)


@settings(max_examples=40)
@given(case=hard(most_width=0.5))
def test_the_h_score_equals_brute_force(case: tuple[Array, Array, int]) -> None:
    f, y, classes = case
    assert score(HScore(), f, y, classes) == pytest.approx(test_h_score.direct(f, y), rel=1e-8)


@pytest.mark.parametrize(
    "method", [CKA(), Clusterability(draws=2), DDS(), NCTI(), PACTran(priors=(10.0,)), PED(), RSA()]
)
@settings(max_examples=15)
@given(case=hard())
def test_a_score_is_finite_and_of_no_unit(method: Any, case: tuple[Array, Array, int]) -> None:
    f, y, classes = case
    found = score(method, f, y, classes)
    assert np.isfinite(found)
    assert score(method, f * 2.0**40, y, classes) == pytest.approx(found, rel=1e-7, abs=1e-9)
    assert np.isfinite(score(method, f.astype(np.float32), y, classes))


def highest_evidence(f: Array, y: Array) -> float:
    """The largest evidence over the ratio of weight to noise precision, the noise precision in closed form for each."""
    turn = test_logme.without_the_constant(len(f))
    f = turn @ f
    n, d = f.shape
    f = f * np.sqrt(n / (f**2).sum())
    gram, found = f.T @ f, []
    for c in np.unique(y):
        t = turn @ (y == c)

        def minus(log_ratio: float, t: Array = t) -> float:
            ratio = np.exp(log_ratio)
            m = np.linalg.solve(gram + ratio * np.eye(d), f.T @ t)
            error = ((t - f @ m) ** 2).sum() + ratio * m @ m
            determinant = np.linalg.slogdet(gram / ratio + np.eye(d))[1]
            return float(determinant + n * np.log(2 * np.pi * np.e * error / n)) / (2 * n)

        grid = np.linspace(-16, 16, 65)
        best = grid[np.argmin([minus(x) for x in grid])]
        found.append(minimize_scalar(minus, bounds=(best - 0.5, best + 0.5), method="bounded", options={"xatol": 1e-9}))
    return -float(np.mean([one.fun for one in found]))


@settings(max_examples=15)
@given(case=hard(most_width=0.5))
def test_logme_is_the_highest_evidence(case: tuple[Array, Array, int]) -> None:
    f, y, classes = case
    y = np.where(np.arange(len(y)) % 4 == 0, (y + 1) % classes, y)  # a fit without errors has no finite evidence
    # where labels are noise the maximum lies at an endless precision, and a fixed point comes near it slowly
    assert score(test_logme.TIGHT, f, y, classes) == pytest.approx(highest_evidence(varying(f), y), abs=2e-5)
