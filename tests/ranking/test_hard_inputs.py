"""Estimators in moments form against their brute-force versions, on inputs that real tables and encoders have.

Fewer rows than dimensions, as many, twice and 20 times as many; 2, 7 and 100 classes of unequal size, of which one may
have a single row, as many labels of which a row has several, or values; columns that are constant or stand twice; and
units from 1e-6 to 1e6. What is written here is in
float64 too, on the rows themselves and without moments: by singular values, where an estimator goes by squared ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.spatial.distance import cdist
from scipy.special import digamma, logsumexp
from sklearn.covariance import ledoit_wolf_shrinkage

from headstart.core import TaskType, Unfit
from headstart.ranking.estimators.cdnv import CDNV
from headstart.ranking.estimators.cka import CKA
from headstart.ranking.estimators.clusterability import Clusterability
from headstart.ranking.estimators.dds import DDS
from headstart.ranking.estimators.effective_rank import EffectiveRank
from headstart.ranking.estimators.gbc import GBC
from headstart.ranking.estimators.h_score import HScore
from headstart.ranking.estimators.lda import LDA
from headstart.ranking.estimators.ncti import NCTI
from headstart.ranking.estimators.neural_collapse import NeuralCollapse
from headstart.ranking.estimators.nmc import NMC
from headstart.ranking.estimators.pactran import PACTran
from headstart.ranking.estimators.ped import PED
from headstart.ranking.estimators.ridge_accuracy import RidgeAccuracy
from headstart.ranking.estimators.ridge_probe import RidgeProbe
from headstart.ranking.estimators.rsa import RSA
from headstart.ranking.estimators.shrunk_h_score import ShrunkHScore
from headstart.ranking.estimators.tmi import TMI
from headstart.ranking.estimators.transrate import TransRate
from headstart.testing.ranking_estimators import dealt, score
from ranking import test_logme, test_shrunk_h_score

Array = np.ndarray[Any, Any]
SHAPES = {"N < D": 2.0, "N = D": 1.0, "N = 2 D": 0.5, "N = 20 D": 0.05}  # dimensions a row


def hard(seed: int, classes: int, width: float, *, single: bool, spoilt: bool, power: int) -> tuple[Array, Array]:
    """Features of rows × width dimensions, and labels: of each class two rows at least.

    single: but of the last class one. spoilt: a column stands twice, and one is constant. power: of ten, their unit.
    """
    chance = np.random.default_rng(seed)
    rows = 2 * classes + int(chance.integers(30, 60))
    least = np.repeat(np.arange(classes), 2)[: -1 if single else None]
    shares = chance.dirichlet(np.full(classes - 1, 0.7))
    labels = chance.permutation(np.concatenate([least, chance.choice(classes - 1, rows - len(least), p=shares)]))
    columns = max(3, round(rows * width))
    means = chance.choice([0.1, 0.5, 1.0]) * chance.standard_normal((classes, columns))
    features = means[labels] + chance.standard_normal((rows, columns))
    if spoilt:
        features[:, 1] = features[:, 0]
        features[:, -1] = 3.0
    return features * 10.0**power, labels


def several(seed: int, labels: int, width: float, *, single: bool, spoilt: bool, power: int) -> tuple[Array, Array]:
    """As `hard`, and of each row several labels: one that every row has, one that none has, and one that stands twice.

    single: one that a single row has. spoilt, power: as for `hard`.
    """
    f, classes = hard(seed, 2, width, single=False, spoilt=spoilt, power=power)
    chance = np.random.default_rng((seed, 1))
    told = np.outer(classes - 0.5, chance.standard_normal(labels)) + chance.standard_normal((len(f), labels))
    hot = (told > chance.uniform(-1, 1.5, labels)).astype(np.int8)
    rare = np.arange(len(f)) == len(f) // 2 if single else hot[:, 0]
    return f, np.column_stack([hot, hot[:, 0], rare, np.ones(len(f)), np.zeros(len(f))]).astype(np.int8)


def valued(seed: int, width: float, *, tied: bool, spoilt: bool, power: int) -> tuple[Array, Array]:
    """As `hard`, and of each row a value in a unit of its own, away from 0. tied: of few different ones."""
    f, _ = hard(seed, 2, width, single=False, spoilt=spoilt, power=power)
    chance = np.random.default_rng((seed, 1))
    y = chance.choice([0.0, 0.3, 1.0, 10.0]) * f[:, 0] / 10.0**power + chance.standard_normal(len(f)) + 5.0
    return f, (np.round(y) if tied else y) * 10.0 ** int(chance.integers(-6, 7))


def columns_of(y: Array) -> Array:
    """Classes as columns of 0 and 1; several labels as they are, or values as the only column."""
    if y.ndim == 2:
        return y.astype(np.float64)
    return np.eye(y.max() + 1)[y] if y.dtype.kind == "i" else y[:, None]


def varying(f: Array) -> Array:
    """Without the columns that are constant, whose deviation in floating point need not be 0."""
    return np.asarray(f[:, f.std(0) > 1e-9 * np.abs(f).max(0)])


def sizes(f: Array) -> Array:
    """Singular values, less those that are rounding."""
    found = np.linalg.svd(f, compute_uv=False)
    return np.asarray(found[found > 1e-7 * found[0]])


def cdnv(f: Array, y: Array) -> float:
    parts, found = [f[y == c] for c in np.unique(y)], []
    for i, a in enumerate(parts):
        for b in parts[i + 1 :]:
            apart = np.sum((a.mean(0) - b.mean(0)) ** 2)
            found.append(apart / (apart + a.var(0).sum() + b.var(0).sum()))
    return float(np.mean(found))


def gbc(f: Array, y: Array, spherical: bool, chance: bool) -> float:
    """Pair by pair, by logarithms; `test_gbc` has it with determinants, which 9,900 pairs are too many for.

    chance: whether what few rows add to the distance of two means is kept, as published.
    """
    f, overlaps = varying(f), []
    floor, parts = 1e-4 * f.var(0).mean(), [f[y == c] for c in np.unique(y)]
    means = [p.mean(0) for p in parts]
    spreads = [np.full(f.shape[1], p.var(0).mean()) if spherical else p.var(0) for p in parts]
    noises = [np.zeros(f.shape[1])] * len(parts)
    if not chance:
        inside = sum(len(p) * s for p, s in zip(parts, spreads, strict=True)) / (len(f) - len(parts))
        noises = [inside / len(p) for p in parts]
        spreads = [s * len(p) / (len(p) - 1) if len(p) > 1 else inside for p, s in zip(parts, spreads, strict=True)]
    spreads = [np.maximum(s, floor) for s in spreads]
    for i in range(len(parts)):
        for j in range(len(parts)):
            if i != j:
                s = (spreads[i] + spreads[j]) / 2
                logs = np.log(s) - (np.log(spreads[i]) + np.log(spreads[j])) / 2
                apart = (means[i] - means[j]) ** 2 - noises[i] - noises[j]
                overlaps.append(-(apart / s).sum() / 8 - logs.sum() / 2)
    return -float(logsumexp(overlaps))


def h_score(f: Array, y: Array) -> float:
    """Squares of the class columns along the features' own directions."""
    turned, found, _ = np.linalg.svd(f - f.mean(0), full_matrices=False)
    turned = turned[:, found > 1e-7 * found[0]]
    return float(sum(np.square(turned[y == c].sum(0)).sum() / (y == c).sum() for c in np.unique(y)))


def correlations(f: Array, y: Array) -> float:
    """Squared canonical correlations: of every direction of the features with every one of the columns."""
    targets = columns_of(y)
    (turned, found, _), (to, sizes_of_y, _) = (np.linalg.svd(a - a.mean(0), full_matrices=False) for a in (f, targets))
    turned, to = turned[:, found > 1e-7 * found[0]], to[:, sizes_of_y > 1e-7 * sizes_of_y[0]]
    return float(np.square(turned.T @ to).sum())


def effective_rank(f: Array, y: Array) -> float:
    share = sizes(f - f.mean(0))
    share = share / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def neural_collapse(f: Array, y: Array) -> float:
    """Each row less its class mean, as a mix of the class means that is the shortest."""
    counts = np.bincount(y)
    f = f - f.mean(0)
    means = np.stack([f[y == c].mean(0) for c in range(len(counts))])
    inside = f - means[y]
    mixes = np.linalg.lstsq((np.sqrt(counts / len(y))[:, None] * means).T, inside.T, rcond=1e-10)[0]
    return float(1 / (1 + np.square(mixes).sum() / (len(y) * len(counts))))


def transrate(f: Array, y: Array, distortion: float, permutations: int) -> float:
    f = varying(f)
    f = f - f.mean(0)
    unit = distortion * np.square(f).sum() / f.size

    def rate(part: Array) -> float:
        return 0.5 * float(np.log1p(np.square(np.linalg.svd(part, compute_uv=False)) / (len(part) * unit)).sum())

    def by_class(labels: Array) -> float:
        return float(np.mean([rate(f[labels == c]) for c in np.unique(labels)]))

    if not permutations:
        return rate(f) - by_class(y)
    order, chance = np.linalg.norm(f, axis=1).argsort(), np.random.default_rng(0)
    shuffled = []
    for _ in range(permutations):
        labels = np.empty_like(y)
        labels[order] = chance.permutation(y[order])
        shuffled.append(by_class(labels))
    return float(np.mean(shuffled)) - by_class(y)


def tmi(f: Array, y: Array) -> float:
    f = varying(f)
    f = f / f.std(0)
    parts = [f[y == c] for c in np.unique(y)]
    total = 0.0
    for part in parts:
        rows, k = len(part), min(3, len(part) - 1)
        if k:
            far = np.sort(cdist(part, part, "chebyshev"), axis=1)[:, k]
            total += rows * (digamma(rows) - digamma(k) + f.shape[1] * np.log(2 * far).mean())
    return float(total / sum(len(p) for p in parts if len(p) > 1) / f.shape[1])


def held_out(f: Array, y: Array) -> list[tuple[Array, Array]]:
    folds = dealt(y)
    return [(folds != k, folds == k) for k in range(5) if (folds == k).any()]


def nmc(f: Array, y: Array) -> float:
    right: list[bool] = []
    for train, valid in held_out(f, y):
        means = np.stack([f[train & (y == c)].mean(0) for c in range(y.max() + 1)])
        right += [((row - means) ** 2).sum(1).argmin() == label for row, label in zip(f[valid], y[valid], strict=True)]
    return float(np.mean(right))


def lda(f: Array, y: Array) -> float:
    """Gaussians of one covariance, their quadratic forms in full."""
    f, right = varying(f), []
    for train, valid in held_out(f, y):
        z = (f - f[train].mean(0)) / f[train].std(0)
        means = np.stack([z[train & (y == c)].mean(0) for c in range(y.max() + 1)])
        inside = z[train] - means[y[train]]
        alpha, spread = ledoit_wolf_shrinkage(inside, assume_centered=True), inside.T @ inside / len(inside)
        inverse = np.linalg.inv((1 - alpha) * spread + alpha * np.trace(spread) / len(spread) * np.eye(len(spread)))
        priors = np.log(np.bincount(y[train]) / train.sum())
        for row, label in zip(z[valid], y[valid], strict=True):
            away = row - means
            right.append((priors - (away @ inverse * away).sum(1) / 2).argmax() == label)
    return float(np.mean(right))


def ridge(f: Array, y: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Rows to score, the mean of the training rows' class columns, and what ridge adds to it.

    Every penalty by singular values, of which rows left out take one, by the diagonal of what maps labels to errors; or
    generalised cross-validation, by its mean, where rows are twice the rank.
    """
    hot = columns_of(y)
    for train, valid in held_out(f, y):
        centre, mean = f[train].mean(0), hot[train].mean(0)
        turned, found, axes = np.linalg.svd(f[train] - centre, full_matrices=False)
        kept = found > 1e-7 * found[0]
        turned, found, axes, rows = turned[:, kept], found[kept], axes[kept], len(turned)
        along = turned.T @ (hot[train] - mean)
        out_of_reach = hot[train] - mean - turned @ along if len(found) < rows - 1 else np.zeros(1)
        best, weights = np.inf, np.empty(0)
        for penalty in np.array(RidgeProbe().penalties) * np.square(found).sum() / rows:
            left = penalty / (np.square(found) + penalty)
            error = out_of_reach + turned @ (left[:, None] * along)
            free = np.full(rows, rows - 1 - len(left) + left.sum()) / rows
            if rows < 2 * len(found):
                free = np.square(turned) @ left
                if len(found) < rows - 1:
                    free += 1 - 1 / rows - np.square(turned).sum(1)
            told = np.square(error / free[:, None]).sum()
            if told < best:
                best, weights = told, axes.T @ ((1 - left) / found * along.T).T
        yield valid, mean, (f[valid] - centre) @ weights


def ridge_probe(f: Array, y: Array) -> float:
    hot, wrong, naive = columns_of(y), 0.0, 0.0
    for valid, mean, said in ridge(f, y):
        wrong += np.square(hot[valid] - mean - said).sum()
        naive += np.square(hot[valid] - mean).sum()
    return float(1 - wrong / naive)


def ridge_accuracy(f: Array, y: Array) -> float:
    if y.ndim == 2:
        right = [(mean + said >= 0.5) == (y[valid] > 0) for valid, mean, said in ridge(f, y)]
    else:
        right = [(mean + said).argmax(1) == y[valid] for valid, mean, said in ridge(f, y)]
    return float(np.concatenate(right).mean())


def logme(f: Array, y: Array) -> float:
    """The Gaussian density of the class columns where it has its nearest peak uphill of equal precisions.

    The published step goes uphill: its sign is that of the derivative. In logarithms of t = alpha / beta, whose noise
    is integrated out in closed form; the density's matrix is I + F F' / t.
    """
    turn = test_logme.without_the_constant(len(f))
    f = turn @ f
    n = len(f)
    vectors, found, _ = np.linalg.svd(f / np.linalg.norm(f) * np.sqrt(n + 1), full_matrices=True)
    values = np.zeros(n)
    values[: len(found)] = np.square(found)
    logs = np.arange(0, np.log(1e12), 0.05)
    densities = []
    for column in varying(columns_of(y)).T:
        column = column / (1.0 if y.dtype.kind == "i" else column.std())
        shares = np.square(vectors.T @ (turn @ column))

        def slope(log: Any, shares: Array = shares) -> Array:
            kept = 1 / (1 + np.outer(np.exp(-np.atleast_1d(log)), values))
            return np.asarray((1 - kept).mean(1) - (kept * (1 - kept)) @ shares / (kept @ shares))

        way = np.sign(slope(0.0)[0])
        turned = np.flatnonzero(slope(way * logs) * way < 0)
        peak = way * np.log(1e12)  # as far as an estimator goes where there is no peak
        if len(turned):
            peak = brentq(lambda log: slope(log)[0], *(way * logs[turned[0] - 1 : turned[0] + 1]), xtol=1e-13)
        cover = 1 + values * np.exp(-peak)
        densities.append(-(np.log(2 * np.pi * (shares / cover).sum() / n) + 1 + np.log(cover).sum() / n) / 2)
    return float(np.mean(densities))


CASES: dict[str, tuple[Any, Callable[[Array, Array], float]]] = {
    "cdnv": (CDNV(), cdnv),
    "effective_rank": (EffectiveRank(), effective_rank),
    "gbc": (GBC(), lambda f, y: gbc(f, y, True, False)),
    "gbc, diagonal": (GBC(covariance="diagonal"), lambda f, y: gbc(f, y, False, False)),
    "gbc, published": (GBC(chance="kept"), lambda f, y: gbc(f, y, True, True)),
    "h_score": (HScore(), h_score),
    "lda": (LDA(), lda),
    "logme": (test_logme.TIGHT, logme),
    "neural_collapse": (NeuralCollapse(), neural_collapse),
    "nmc": (NMC(), nmc),
    "ridge_accuracy": (RidgeAccuracy(), ridge_accuracy),
    "ridge_probe": (RidgeProbe(), ridge_probe),
    "shrunk_h_score": (ShrunkHScore(), lambda f, y: test_shrunk_h_score.direct(varying(f), y)),
    "shrunk_h_score, published": (
        ShrunkHScore(chance="kept"), lambda f, y: test_shrunk_h_score.direct(varying(f), y, False)
    ),
    "tmi": (TMI(), tmi),
    "transrate": (TransRate(permutations=2), lambda f, y: transrate(f, y, 1.0, 2)),
    "transrate, published": (
        TransRate(distortion=1e-4, permutations=0), lambda f, y: transrate(f, y, 1e-4, 0)
    ),
}  # fmt: skip
# of several labels a row, and of values
SEVERAL: dict[str, tuple[Any, Callable[[Array, Array], float]]] = {
    "h_score": (HScore(), correlations),
    "logme": (test_logme.TIGHT, logme),
    "ridge_accuracy": (RidgeAccuracy(), ridge_accuracy),
    "ridge_probe": (RidgeProbe(), ridge_probe),
    "shrunk_h_score": (
        ShrunkHScore(), lambda f, y: sum(test_shrunk_h_score.direct(varying(f), c) for c in varying(y).T)
    ),
    "shrunk_h_score, published": (
        ShrunkHScore(chance="kept"),
        lambda f, y: sum(test_shrunk_h_score.direct(varying(f), c, False) for c in varying(y).T),
    ),
}  # fmt: skip
VALUES: dict[str, tuple[Any, Callable[[Array, Array], float]]] = {
    "h_score": (HScore(), correlations),
    "logme": (test_logme.TIGHT, logme),
    "ridge_probe": (RidgeProbe(), ridge_probe),
    "shrunk_h_score": (ShrunkHScore(), lambda f, y: test_shrunk_h_score.of_values(varying(f), y)),
    "shrunk_h_score, published": (
        ShrunkHScore(chance="kept"), lambda f, y: test_shrunk_h_score.of_values(varying(f), y, False)
    ),
}  # fmt: skip
TWO_ROWS = ("h_score", "neural_collapse", "tmi", "effective_rank")  # for each dimension, or they refuse


@pytest.mark.parametrize("width", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("classes", [2, 7, 100])
@pytest.mark.parametrize("name", CASES)
@settings(max_examples=2)
@given(
    seed=st.integers(0, 2**20), single=st.booleans(), spoilt=st.booleans(), power=st.integers(-6, 6),
    compiled=st.booleans(),
)  # fmt: skip
@example(seed=0, single=True, spoilt=False, power=-6, compiled=True)
@example(seed=1, single=False, spoilt=True, power=6, compiled=False)
@example(seed=11, single=True, spoilt=True, power=0, compiled=True)
def test_equals_brute_force(name: str, classes: int, width: float, seed: int, compiled: bool, **more: Any) -> None:
    f, y = hard(seed, classes, width, **more)
    with pytest.MonkeyPatch.context() as patch:
        if compiled:
            patch.setattr("headstart.numerics.moments.MANY_CELLS", 1)
        equals(name, *CASES[name], f, y, classes, "single_label")


@pytest.mark.parametrize("width", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("labels", [2, 100])
@pytest.mark.parametrize("name", SEVERAL)
@settings(max_examples=2)
@given(seed=st.integers(0, 2**20), single=st.booleans(), spoilt=st.booleans(), power=st.integers(-6, 6))
@example(seed=0, single=True, spoilt=False, power=-6)
@example(seed=1, single=False, spoilt=True, power=6)
def test_of_several_labels_equals_brute_force(name: str, labels: int, width: float, seed: int, **more: Any) -> None:
    f, y = several(seed, labels, width, **more)
    equals(name, *SEVERAL[name], f, y, y.shape[1], "multi_label")


@pytest.mark.parametrize("width", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", VALUES)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**20), tied=st.booleans(), spoilt=st.booleans(), power=st.integers(-6, 6))
@example(seed=0, tied=True, spoilt=False, power=-6)
@example(seed=1, tied=False, spoilt=True, power=6)
def test_of_values_equals_brute_force(name: str, width: float, seed: int, **more: Any) -> None:
    f, y = valued(seed, width, **more)
    equals(name, *VALUES[name], f, y, 0, "regression")


def equals(
    name: str, method: Any, direct: Callable[[Array, Array], float], f: Array, y: Array, classes: int, task: TaskType
) -> None:
    if name in TWO_ROWS and 2 * len(sizes(f - f.mean(0))) > len(f):
        with pytest.raises(Unfit):
            score(method, f, y, classes, task=task)
        return
    # R² and rates are differences, and may be as good as 0
    assert score(method, f, y, classes, task=task) == pytest.approx(direct(f, y), rel=1e-8, abs=1e-10)


def test_a_fit_without_an_error_is_without_one() -> None:
    """As many rows as dimensions, fewer in each fold: rounding that was taken for errors chose the penalty here."""
    f, y = hard(110, 2, 1.0, single=False, spoilt=False, power=0)
    assert score(RidgeProbe(), f, y, 2) == pytest.approx(ridge_probe(f, y), rel=1e-8)


@pytest.mark.parametrize(
    "method", [CKA(), Clusterability(draws=2, least=3), DDS(), NCTI(), PACTran(priors=(10.0,)), PED(), RSA()]
)
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**20), classes=st.sampled_from([2, 3, 7, 40]), width=st.sampled_from([0.1, 0.5, 1.0, 2.0]),
    single=st.booleans(), spoilt=st.booleans(), power=st.integers(-6, 6),
)  # fmt: skip
def test_a_score_is_finite_and_of_no_unit(method: Any, seed: int, classes: int, width: float, **more: Any) -> None:
    f, y = hard(seed, classes, width, **more)
    found = score(method, f, y, classes)
    assert np.isfinite(found)
    assert score(method, f * 2.0**40, y, classes) == pytest.approx(found, rel=1e-7, abs=1e-9)
    assert np.isfinite(score(method, f.astype(np.float32), y, classes))
