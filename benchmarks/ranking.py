"""Time of LogME and the shrunk H-score against float64 brute force, in one run on one thread.

    python benchmarks/ranking.py

Brute force is what the formulas say: an SVD of the centred features and one class after the other for LogME;
scikit-learn's Ledoit-Wolf covariance and a pseudo-inverse for the H-score. Ours includes the pass over float32
features. Ratios of minima; the last column is the largest relative difference of the two scores.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.covariance import LedoitWolf

from headstart.core import Ranking
from headstart.ranking.estimators.logme import LogME
from headstart.ranking.estimators.shrunk_h_score import ShrunkHScore
from headstart.testing.ranking_estimators import seen

Array = np.ndarray[Any, Any]
SHAPES = ((500, 384, 10), (500, 768, 10), (5000, 384, 10), (5000, 768, 10))
REPEATS = 3


def brute_logme(f: Array, y: Array, iterations: int = 100, tolerance: float = 1e-6) -> float:
    f = f.astype(np.float64) - f.mean(axis=0, dtype=np.float64)
    f *= np.sqrt(len(f) / np.square(f).sum())
    n = len(f) - 1
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    s = np.where(s > 1e-7 * s[0], s, 0) ** 2
    total = 0.0
    for c in range(int(y.max()) + 1):
        t = (y == c) - (y == c).mean()
        p = np.square(u.T @ t) * (s > 0)
        rest, ratio = t @ t - p.sum(), 1.0
        for _ in range(iterations):
            gamma, size = (s / (s + ratio)).sum(), (p * s / (s + ratio) ** 2).sum()
            before = ratio
            ratio = gamma / size / ((n - gamma) / (rest + (p * (ratio / (s + ratio)) ** 2).sum()))
            if abs(ratio - before) <= tolerance * before:
                break
        loss = rest + (p * ratio / (s + ratio)).sum()
        total += -0.5 * (np.log(2 * np.pi * loss / n) + 1 + np.log1p(s / ratio).sum() / n)
    return float(total / (y.max() + 1))


def brute_h(f: Array, y: Array) -> float:
    f = f.astype(np.float64)
    f = (f - f.mean(axis=0)) / f.std(axis=0)
    fitted = LedoitWolf(store_precision=False).fit(f)
    means = np.stack([f[y == c].mean(axis=0) for c in range(int(y.max()) + 1)])[y]
    inverse = np.linalg.pinv(fitted.covariance_, hermitian=True)
    return float((1 - fitted.shrinkage_) * np.trace(inverse @ (means.T @ means)) / len(f))


def ours(method: Ranking, f: Array, y: Array) -> float:
    return method(seen(method, f, y, int(y.max()) + 1)).value


def timed(call: Callable[..., float], *given: Any) -> tuple[float, float]:
    """(score, least seconds)."""
    seconds, value = [], 0.0
    for _ in range(REPEATS):
        start = perf_counter()
        value = call(*given)
        seconds.append(perf_counter() - start)
    return value, min(seconds)


def main() -> None:
    print(f"{'rows, width, classes':>22} {'score':>7} {'ours ms':>9} {'brute ms':>9} {'ratio':>6} {'difference':>11}")
    methods: list[tuple[str, Ranking, Callable[..., float]]] = [
        ("LogME", LogME(), brute_logme),
        ("H", ShrunkHScore(), brute_h),
    ]
    for rows, width, classes in SHAPES:
        chance = np.random.default_rng(0)
        y = np.arange(rows) % classes
        means = 0.2 * chance.standard_normal((classes, width))
        f = (means[y] + chance.standard_normal((rows, width))).astype(np.float32)
        for name, method, brute in methods:
            (value, fast), (want, slow) = timed(ours, method, f, y), timed(brute, f, y)
            print(
                f"{f'{rows}, {width}, {classes}':>22} {name:>7} {1e3 * fast:>9.1f} {1e3 * slow:>9.1f} "
                f"{slow / fast:>6.1f} {abs(value - want) / abs(want):>11.1e}"
            )


if __name__ == "__main__":
    main()
