"""Linear heads on features: L2 logistic and ridge, over a grid of strengths, with the strength chosen by inner folds.

Features are standardised with the statistics of the rows at hand and turned to the axes of their covariance. The
optimum lies in the span of the rows, so that with fewer rows than features nothing is lost by staying in it, and a
rotation of standardised features changes nothing. On these axes the curvature is nearly diagonal; dividing it out
lets L-BFGS converge in a handful of steps. Axes are coordinates and no part of a fit, so inner folds share those of all
rows; while a strength is chosen, products are computed in float32.

A strength is C as in scikit-learn: the loss is the sum over rows plus |W|² / (2 C). C → 0 gives the prior (for
numbers, the mean). Memory: two float64 copies of the features; cost: one eigendecomposition of the smaller side, and
rows × min(rows, width) × classes for each step of L-BFGS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from .artifacts import Head, Link, linked
from .inner import inner_folds

Array = np.ndarray[Any, Any]
Report = Callable[[int, int], None]  # of fits that are done, and of how many at most
STRENGTHS: tuple[float, ...] = tuple(10.0**e for e in range(-4, 5))
ABSENT = -50.0  # bias of a class without a row: very low, and finite in every dtype
SAME = 1e-3  # losses that differ by less, relative, are equal
ROUGH, FINE = 1e-2, 1e-6  # largest preconditioned gradient at the end, in nats; while choosing, and for the result
ENOUGH = 500  # rows: with fewer, the same gradient leaves more of each one's loss, and a choice goes by as much finer


def _silent(done: int, of: int) -> None:
    del done, of


@dataclass(frozen=True, eq=False, slots=True)
class Probe:
    """A chosen head. strength: the C it was fitted with. losses: (strength, mean inner loss) of those tried."""

    head: Head
    strength: float
    losses: tuple[tuple[float, float], ...] = ()


def standard(features: Array) -> tuple[Array, Array]:
    """Centre and scale (width,) float64 of each feature; the scale of a constant feature is infinite.

    Constant is a spread below 1e-6 of the feature's own size or of the widest spread: float32 features that an encoder
    sums from numbers of one size hold no more than rounding there.

    >>> centre, scale = standard(np.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> centre.tolist(), scale.tolist()
    ([2.0, 5.0], [1.0, inf])
    """
    x = np.asarray(features, dtype=np.float64)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    flat = spread <= 1e-6 * np.maximum(np.abs(centre), spread.max(initial=0.0))
    return centre, np.where(flat, np.inf, spread)


def folded(weight: Array, bias: Array, centre: Array, scale: Array, link: Link) -> Head:
    """A head on standardised features, weight (outputs, width), as one on raw features.

    >>> folded(np.ones((1, 1)), np.zeros(1), np.array([2.0]), np.array([4.0]), "identity")(np.array([[6.0]])).item()
    1.0
    """
    raw = (weight / scale).astype(np.float32)
    return Head(raw, (bias - raw.astype(np.float64) @ centre).astype(np.float32), link)


def unfolded(head: Head, centre: Array, scale: Array) -> tuple[Array, Array]:
    """The inverse of `folded`: weight and bias, float64, of the same head on standardised features."""
    weight = head.weight.astype(np.float64)
    finite = np.where(np.isinf(scale), 0.0, scale)
    return weight * finite, head.bias.astype(np.float64) + weight @ centre


def prior(labels: Array, classes: int, link: Link) -> Array:
    """(outputs,) the bias of a head that knows the labels only: log shares, log odds, or the mean.

    >>> prior(np.array([0, 0, 1]), 2, "softmax").round(3).tolist()
    [0.347, -0.347]
    """
    if link == "identity":
        return np.array([np.mean(labels)])
    if link == "sigmoid":
        positive = labels.sum(axis=0)
        return np.asarray(np.log((positive + 0.5) / (len(labels) - positive + 0.5)))
    counts = np.bincount(labels, minlength=classes)
    seen = counts > 0
    logs = np.log(np.maximum(counts, 1))
    return np.where(seen, logs - logs[seen].mean(), ABSENT)


@dataclass(frozen=True, eq=False, slots=True)
class _Axes:
    """Standardised rows on orthogonal axes, such as those of their covariance: at (rows, rank), axes (alive, rank).

    alive: (width,) which features vary; those that do not are left out, so that they change no fit by a bit. power:
    (rank,) the sum of squares along each. whole: (alive, alive) axes of the whole space, where they are known.
    """

    centre: Array
    scale: Array
    alive: Array
    axes: Array
    at: Array
    power: Array
    whole: Array | None = None

    @classmethod
    def of(cls, features: Array) -> _Axes:
        centre, scale = standard(features)
        alive = ~np.isinf(scale)  # what is not a number stays, and is told by what meets it
        z = _standardised(features, centre, scale, alive)
        wide = z.shape[0] < z.shape[1]
        power, turn = np.linalg.eigh(z @ z.T if wide else z.T @ z)
        kept = power > 1e-10 * max(power.max(initial=0.0), 1e-300)
        some = turn[:, kept]
        if wide:
            root = np.sqrt(power[kept])
            return cls(centre, scale, alive, z.T @ (some / root), some * root, power[kept])
        return cls(centre, scale, alive, some, z @ some, power[kept], turn)

    def of_some(self, features: Array) -> _Axes:
        """Some of these rows, standardised by themselves, in float32; on axes of the whole space where they are known,
        since an encoder whose features lie in a plane may leave it where each is scaled in another way."""
        if self.whole is None:
            return _Axes.of(features).roughly()
        centre, scale = standard(features)
        at = (_standardised(features, centre, scale, self.alive) @ self.whole).astype(np.float32)
        return _Axes(centre, scale, self.alive, self.whole, at, np.square(at).sum(axis=0, dtype=np.float64))

    def roughly(self) -> _Axes:
        return replace(self, at=self.at.astype(np.float32))

    def place(self, features: Array) -> Array:
        return np.asarray(_standardised(features, self.centre, self.scale, self.alive) @ self.axes)

    def head(self, weight: Array, bias: Array, link: Link) -> Head:
        every = np.zeros((len(self.alive), weight.shape[1]))
        every[self.alive] = self.axes @ weight
        return folded(every.T, bias, self.centre, self.scale, link)


def _standardised(features: Array, centre: Array, scale: Array, alive: Array) -> Array:
    """(rows, alive) float64; 0 where a scale is infinite."""
    if alive.all():
        return (np.asarray(features, dtype=np.float64) - centre) / scale
    return (np.asarray(features[:, alive], dtype=np.float64) - centre[alive]) / scale[alive]


def logistic_path(
    features: Array, labels: Array, classes: int, strengths: Sequence[float], link: Link = "softmax"
) -> list[Head]:
    """One head for each strength, each started from the one before it.

    labels: (rows,) class numbers for `softmax`; (rows, classes) of 0 and 1 for `sigmoid`. A class without a row gets
    zero weights and a bias of -50.

    >>> logistic_path(np.array([[0.0], [1.0]]), np.array([0, 1]), 2, [1e-9])[0](np.array([[9.0]])).round(3).tolist()
    [[0.5, 0.5]]
    """
    space = _Axes.of(features)
    start, heads = None, []
    for strength in strengths:
        start = _logistic(space, labels, classes, strength, link, start, FINE)
        heads.append(space.head(*start, link))
    return heads


def ridge_path(features: Array, values: Array, strengths: Sequence[float]) -> list[Head]:
    """One head for each strength, in closed form; values (rows,) in the label's own unit, and so are the outputs.

    >>> ridge_path(np.array([[0.0], [1.0]]), np.array([3.0, 5.0]), [1e9])[0](np.array([[2.0]])).round(3).item()
    7.0
    """
    space = _Axes.of(features)
    return [space.head(*_ridge(space, values, s), "identity") for s in strengths]


def chosen(
    features: Array,
    labels: Array,
    classes: int,
    ids: Sequence[str],
    link: Link = "softmax",
    strengths: Sequence[float] = STRENGTHS,
    ease: float = 1.0,
    report: Report = _silent,
) -> Probe:
    """The head whose strength has the least loss (log loss, squared error) on inner folds of the rows given.

    Three folds; from 2,000 rows, one split of a fifth. Standardising is part of what each fold fits. From weak to
    strong, and no further once two strengths in a row were not better than the best; of equals, the weakest.
    ease: the head that is returned has this fraction of the strength; below 1 it is a start for further training.
    report: is told after each fit of a strength on a fold, and on the way to the head that is returned.
    """
    whole = _Axes.of(features)
    if len(strengths) == 1 or len(labels) < 2:
        return _fitted(whole, labels, classes, link, [min(strengths) * ease], (), report)
    large = len(labels) >= 2000
    folds = inner_folds(ids, labels, 5 if large else 3)
    cells = [(folds != f, folds == f) for f in range(1 if large else 3) if 0 < (folds == f).sum() < len(folds)]
    shared = _Axes.of if link == "identity" else whole.of_some  # ridge regression wants the axes of each fold
    spaces = [(shared(features[fit]), fit, held) for fit, held in cells]
    places = [space.place(features[held]) for space, _, held in spaces]
    starts: list[tuple[Array, Array] | None] = [None] * len(spaces)
    losses: list[tuple[float, float]] = []
    best = 0
    for strength in sorted(strengths):
        total = 0.0
        for i, (space, fit, held) in enumerate(spaces):
            if link == "identity":
                starts[i] = _ridge(space, labels[fit], strength)
            else:
                near = ROUGH * min(1.0, int(fit.sum()) / ENOUGH)
                starts[i] = _logistic(space, labels[fit], classes, strength, link, starts[i], near)
            weight, bias = starts[i]  # type: ignore[misc]  # set two lines above
            total += _losses(places[i] @ weight + bias, labels[held], link)
            report(len(losses) * len(spaces) + i + 1, len(strengths) * (len(spaces) + 1))
        losses.append((strength, total / sum(int(held.sum()) for _, held in cells)))
        if losses[-1][1] < (1 - SAME) * losses[best][1]:
            best = len(losses) - 1
        if len(losses) - best > 2:
            break
    last = losses[best][0] * ease
    way, done = [s for s, _ in losses if s < last] + [last], len(losses) * len(spaces)
    return _fitted(whole, labels, classes, link, way, tuple(losses), lambda n, of: report(done + n, done + of))


def _fitted(
    space: _Axes,
    labels: Array,
    classes: int,
    link: Link,
    strengths: Sequence[float],
    losses: tuple[tuple[float, float], ...],
    report: Report,
) -> Probe:
    last = strengths[-1]
    if link == "identity":
        return Probe(space.head(*_ridge(space, labels, last), link), last, losses)
    return Probe(_walked(space, labels, classes, strengths, link, report), last, losses)


def _walked(space: _Axes, labels: Array, classes: int, strengths: Sequence[float], link: Link, report: Report) -> Head:
    """The head of the last strength, by way of those before it."""
    start, rough = None, space.roughly()
    for at, strength in enumerate(strengths[:-1], 1):
        start = _logistic(rough, labels, classes, strength, link, start, ROUGH)
        report(at, len(strengths))
    weight, bias = _logistic(space, labels, classes, strengths[-1], link, start, FINE)
    return space.head(weight, bias, link)


def _losses(logits: Array, labels: Array, link: Link) -> float:
    """The sum over rows of log loss or squared error; a class that the fit did not see counts as probability e^-20."""
    if link == "identity":
        return float(((logits[:, 0] - labels) ** 2).sum())
    if link == "sigmoid":
        return float((np.logaddexp(0, logits) - labels * logits).sum())
    gap = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return float(np.minimum(gap, 20.0).sum())


def _ridge(space: _Axes, values: Array, strength: float) -> tuple[Array, Array]:
    mean = float(np.mean(values))
    weight = space.at.T @ (np.asarray(values, dtype=np.float64) - mean) / (space.power + 1 / strength)
    return weight[:, None], np.array([mean])


def _logistic(
    space: _Axes,
    labels: Array,
    classes: int,
    strength: float,
    link: Link,
    start: tuple[Array, Array] | None,
    gradient: float,
) -> tuple[Array, Array]:
    """Weight (rank, classes) and bias (classes,) on the axes; `gradient` is the largest one left."""
    rows, rank = space.at.shape
    base = prior(labels, classes, link)
    if link == "softmax":
        live = np.flatnonzero(np.bincount(labels, minlength=classes))
        truth = np.zeros((rows, len(live)))
        truth[np.arange(rows), np.searchsorted(live, labels)] = 1.0
    else:
        live = np.flatnonzero((labels.any(axis=0)) & (~labels.all(axis=0)))
        truth = np.asarray(labels[:, live], dtype=np.float64)
    weight, bias = np.zeros((rank, classes)), base.copy()
    if len(live) < (2 if link == "softmax" else 1):
        return weight, bias
    if start is not None:
        weight, bias = start[0].copy(), start[1].copy()
    at, k = space.at, len(live)
    sure = linked(at @ weight[:, live].astype(at.dtype) + bias[live], link)
    share = max(float((sure * (1 - sure)).mean()), 1e-4)
    unit = 1 / np.sqrt(share * space.power + 1 / strength)[:, None]  # divides the curvature out
    unit_bias = 1 / np.sqrt(share * rows)

    def loss(flat: Array) -> tuple[float, Array]:
        w = flat[k:].reshape(rank, k) * unit
        logits = at @ w.astype(at.dtype) + flat[:k] * unit_bias  # float64 from here on
        if link == "softmax":
            logits -= logits.max(axis=1, keepdims=True)
            e = np.exp(logits)
            total = e.sum(axis=1, keepdims=True)
            value = float(np.log(total).sum() - (truth * logits).sum())
            gap = e / total - truth
        else:
            value = float((np.logaddexp(0, logits) - truth * logits).sum())
            gap = expit(logits) - truth
        slope = (at.T @ gap.astype(at.dtype) + w / strength) * unit
        value += 0.5 / strength * float((w * w).sum())
        return value, np.concatenate([gap.sum(axis=0) * unit_bias, slope.ravel()])

    x0 = np.concatenate([bias[live] / unit_bias, (weight[:, live] / unit).ravel()])
    best = minimize(
        loss,
        x0,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "maxfun": 1000, "gtol": gradient, "ftol": 0.0, "maxcor": 10},
    ).x
    weight[:, live] = best[k:].reshape(rank, k) * unit
    bias[live] = best[:k] * unit_bias
    if link == "softmax":
        bias[live] -= bias[live].mean()
    return weight, bias
