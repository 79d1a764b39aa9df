"""PACTran: its terms from scipy's optimum on raw features, the evidence by quadrature, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from headstart.core import Unfit
from headstart.ranking.estimators.pactran import PACTran
from headstart.testing.ranking_estimators import draw, score

Array = np.ndarray[Any, Any]


def unit(f: Array) -> Array:
    f = f - f.mean(0)
    return np.asarray(f / np.sqrt(np.square(f).sum() / len(f)))


def direct(f: Array, y: Array, prior: float) -> float:
    """The bound in nats a row, fitted on the features as they are, its curvature then turned to their axes."""
    f, many = unit(f), int(y.max()) + 1
    rows, width = f.shape

    def loss(flat: Array) -> tuple[float, Array]:
        w, b = flat[many:].reshape(width, many), flat[:many]
        told = log_softmax(f @ w + b, axis=1)
        gap = np.exp(told) - np.eye(many)[y]
        value = -told[np.arange(rows), y].sum() + np.square(w).sum() / (2 * prior)
        return float(value), np.concatenate([gap.sum(0), (f.T @ gap + w / prior).ravel()])

    best = minimize(
        loss, np.zeros(many * (width + 1)), jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 9999}
    )
    p = np.exp(log_softmax(f @ best.x[many:].reshape(width, many) + best.x[:many], axis=1))
    axes = np.linalg.eigh(f.T @ f)[1]
    cost = 0.0
    for c in range(many):
        hessian = f.T @ (f * (p[:, c] * (1 - p[:, c]))[:, None])
        cost += 0.5 * np.log(1 + prior * np.diag(axes.T @ hessian @ axes)).sum()
    return float(best.fun + cost) / rows


@pytest.mark.parametrize("prior", [1.0, 100.0])
@pytest.mark.parametrize(("rows", "width"), [(60, 4), (20, 30)])
def test_equals_its_terms_written_out(rows: int, width: int, prior: float) -> None:
    f, y = draw(0, rows, width, 3, apart=0.5)
    assert score(PACTran(priors=(prior,)), 7 * f + 3, y) == pytest.approx(-direct(f, y, prior), abs=1e-4)


def test_of_several_priors_the_best_is_taken_and_paid_for() -> None:
    f, y = draw(1, 60, 4, 3, apart=0.5)
    alone = [score(PACTran(priors=(p,)), f, y) for p in (1.0, 10.0, 100.0)]
    assert score(PACTran(priors=(1.0, 10.0, 100.0)), f, y) == pytest.approx(max(alone) - np.log(3) / 60)


def test_the_bound_is_above_the_evidence() -> None:
    """Two weights, their prior integrated over on a grid, at the bias that is best.

    The curvature of two classes is h (1, -1; -1, 1), whose determinant is 1 + 2 p h and not the (1 + p h)² of its
    diagonal: what the bound is too high by.
    """
    f, y = draw(2, 40, 1, 2, apart=0.8)
    x, sign, prior = unit(f)[:, 0], np.where(y == 0, 1.0, -1.0), 4.0
    grid = np.linspace(-9, 9, 181)
    gaps = (grid[:, None] - grid)[:, :, None] * x * sign
    weights = np.exp(-(grid[:, None] ** 2 + grid**2) / (2 * prior)) / (2 * np.pi * prior)
    logs = [-np.logaddexp(0, bias * sign - gaps).sum(axis=2) for bias in np.linspace(-1, 1, 21)]
    evidence = max(np.log((weights * np.exp(log)).sum() * 0.01) for log in logs)
    found = 40 * score(PACTran(priors=(prior,)), f, y, 2)
    assert found < evidence

    def loss(at: Array) -> float:
        return float(np.logaddexp(0, sign * (at[1] - at[0] * x)).sum() + at[0] ** 2 / (4 * prior))

    told = minimize(loss, np.zeros(2)).x
    p = 1 / (1 + np.exp(-told[0] * x + told[1]))
    h = (x * x * p * (1 - p)).sum()
    assert evidence - found == pytest.approx(np.log(1 + prior * h) - 0.5 * np.log(1 + 2 * prior * h), abs=0.1)


def test_limits() -> None:
    f, y = draw(3, 90, 5, 3, apart=4.0)
    assert score(PACTran(priors=(1e-9,)), f, y) == pytest.approx(-np.log(3), abs=1e-6), "weights that cannot move"
    assert score(PACTran(), np.zeros((90, 5)), y) == pytest.approx(-np.log(3) - np.log(4) / 90)
    noise = np.random.default_rng(0).standard_normal((90, 900))
    assert score(PACTran(), noise, y) < -np.log(3) < score(PACTran(), f, y)
    assert score(PACTran(), f, np.zeros(90, dtype=np.int64), 1) == 0.0
    with pytest.raises(Unfit, match="not all above 0"):
        PACTran(priors=())
