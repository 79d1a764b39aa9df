"""LogME against the Gaussian density that it is the closed form of, by determinants of D x D and N x N matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from headstart.ranking.estimators.logme import LogME
from headstart.testing.ranking_estimators import draw, score, seen

Array = np.ndarray[Any, Any]
TIGHT = LogME(iterations=5000, tolerance=1e-13)


def without_the_constant(rows: int) -> Array:
    """(N - 1, N): turns rows into those directions that know nothing of a common constant."""
    return np.linalg.qr(np.eye(rows) - 1 / rows)[0][:, : rows - 1].T


def direct(f: Array, y: Array) -> float:
    """The published fixed point, one class at a time, in D x D matrices, with every determinant in full."""
    turn = without_the_constant(len(f))
    f = turn @ f
    n, d = f.shape
    f = f * np.sqrt(n / (f**2).sum())
    values = []
    for c in np.unique(y):
        t = turn @ (y == c)
        alpha = beta = 1.0
        for _ in range(2000):
            a = alpha * np.eye(d) + beta * f.T @ f
            m = beta * np.linalg.solve(a, f.T @ t)
            gamma = d - alpha * np.trace(np.linalg.inv(a))
            before = alpha / beta
            alpha, beta = gamma / (m @ m), (n - gamma) / ((t - f @ m) ** 2).sum()
            if abs(alpha / beta - before) < 1e-11 * before:
                break
        a = alpha * np.eye(d) + beta * f.T @ f
        m = beta * np.linalg.solve(a, f.T @ t)
        values.append(
            d / 2 * np.log(alpha) + n / 2 * np.log(beta) - 0.5 * np.linalg.slogdet(a)[1]
            - beta / 2 * ((t - f @ m) ** 2).sum() - alpha / 2 * m @ m - n / 2 * np.log(2 * np.pi)
        )  # fmt: skip
    return float(np.mean(values) / n)


def with_wrong_labels(seed: int) -> tuple[Array, Array]:
    """Some wrong labels, so that the best noise is not zero, where the published updates divide 0 by 0."""
    f, y = draw(seed, 30, 60, 3, apart=0.8)
    return f, np.where(np.arange(30) % 5 == 0, (y + 1) % 3, y)


def with_dead_columns(seed: int) -> tuple[Array, Array]:
    f, y = draw(seed, 60, 6, apart=0.6)
    return np.hstack([f, f[:, :2], np.zeros((60, 3))]), y


@pytest.mark.parametrize(
    ("f", "y"),
    [draw(0, 120, 20, 4, apart=0.3), with_wrong_labels(1), with_dead_columns(2)],
    ids=["N > D", "N < D", "duplicated and dead columns"],
)
def test_equals_the_direct_determinant(f: Array, y: Array) -> None:
    assert score(TIGHT, f, y, int(y.max()) + 1) == pytest.approx(direct(f, y), rel=1e-8)


@pytest.mark.parametrize("width", [5, 45])
def test_is_the_marginal_density_at_its_highest(width: int) -> None:
    """For a value: no other alpha and beta give the values, less a constant, a higher Gaussian density."""
    f, _ = draw(3, 40, width)
    t = f[:, 0] + np.random.default_rng(0).standard_normal(40)
    turn = without_the_constant(40)
    g, u = turn @ f, turn @ t / t.std()

    def surprise(logs: Array) -> float:
        cover = np.eye(39) * np.exp(logs[0]) + g @ g.T * np.exp(logs[1])
        return -float(multivariate_normal(np.zeros(39), cover).logpdf(u)) / 39

    best = min(
        minimize(surprise, [noise, signal], method="Nelder-Mead", options={"fatol": 1e-9, "xatol": 1e-5}).fun
        for noise in (-2.0, 0.0)
        for signal in (-4.0, -1.0)
    )
    assert score(TIGHT, f, t, 0, task="regression") == pytest.approx(-best, abs=1e-6)


def test_the_defaults_are_near_the_fixed_point() -> None:
    f, y = draw(4, 100, 16, apart=0.4)
    assert score(LogME(), f, y) == pytest.approx(score(TIGHT, f, y), abs=1e-5)  # stops at 1e-6 of the ratio


def test_width_alone_is_worth_nothing() -> None:
    """Noise of 64 to 2,048 dimensions scores alike, and below 32 dimensions that know the class, for N = 120."""
    chance = np.random.default_rng(0)
    y = np.arange(120) % 4
    signal = 0.5 * chance.standard_normal((4, 32))[y] + chance.standard_normal((120, 32))
    noise = [score(LogME(), chance.standard_normal((120, d)), y, 4) for d in (64, 256, 1024, 2048)]
    assert max(noise) - min(noise) < 0.03  # -0.72 was measured for all
    assert score(LogME(), signal, y, 4) > max(noise) + 0.1


def test_wide_noise_gains_nothing_from_few_rows() -> None:
    """With N in place of N - 1, 30 rows of noise in 2,048 dimensions score -0.2, and in 32 dimensions -0.57."""
    chance, y = np.random.default_rng(1), np.arange(30) % 4
    narrow, wide = (score(LogME(), chance.standard_normal((30, d)), y, 4) for d in (32, 2048))
    assert abs(narrow - wide) < 0.03


def test_the_unit_of_values_is_worth_nothing() -> None:
    f, _ = draw(5)
    t = f[:, 0] + np.sin(np.arange(60))
    want = score(LogME(), f, t, 0, task="regression")
    assert score(LogME(), f, 1e3 * t + 7, 0, task="regression") == pytest.approx(want, rel=1e-9)


def test_has_no_losses() -> None:
    f, y = draw(6)
    assert LogME()(seen(LogME(), f, y)).losses is None


@pytest.mark.parametrize("apart", [0.0, 100.0])
def test_stays_finite_where_labels_are_all_noise_or_none(apart: float) -> None:
    f, y = draw(7, 30, 50, 3, apart=apart)
    assert np.isfinite(score(LogME(), f, y))
    assert np.isfinite(score(LogME(), np.eye(3)[y], y))
