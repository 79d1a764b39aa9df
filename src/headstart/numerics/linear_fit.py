"""Linear models on any matrix, wide or sparse, with their strength chosen by inner cross-validation.

With fewer rows than columns, a penalised linear model lies in the span of the rows; the rows are then rotated into at
most as many columns as there are rows, which changes no fit and makes each one cheap (Hastie and Tibshirani,
"Efficient quadratic regularization for expression arrays", Biostatistics 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from .artifacts import Array, Step, linked
from .inner import inner_folds
from .softmax import ROUGH, Weights, fit_softmax
from .steps import ABSENT, Matrix, linear, prior, spread

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # C of the logistic model: the inverse of the penalty
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of ridge regression
MOST_ROTATED = 1500  # rows: above it an eigendecomposition costs more than it saves
MOST_CHOOSING = 1500  # rows that the choice of the strength reads; the fit itself reads all
MOST_GRAM = 3000  # columns: above it ridge is solved by conjugate gradients
INNER = 3  # inner folds


@dataclass(frozen=True, eq=False, slots=True)
class LinearFit:
    """steps: what follows the reading steps in a `Table`. facts: the chosen strength and how well each did inside."""

    steps: tuple[Step, ...]
    facts: dict[str, Any]


def fit_linear(
    x: Matrix,
    labels: Array,
    task: str,
    outputs: int,
    ids: Sequence[str],
    *,
    strengths: Sequence[float] = STRENGTHS,
    penalties: Sequence[float] = PENALTIES,
) -> LinearFit:
    """Logistic regression (one-vs-rest for multi-label) or ridge regression on a matrix (rows, width).

    Strength: lowest inner log loss, or squared error, on at most 1,500 rows; the stronger penalty wins ties. Cost: with
    N < D and N ≤ 1500 one N × N eigendecomposition and fits of width N; else fits of width D.
    """
    if task == "regression":
        return _ridge(x, np.asarray(labels, dtype=np.float64), ids, penalties)
    if task == "multi_label":
        return _one_vs_rest(x, labels, outputs, ids, strengths)
    present = np.unique(labels)
    if len(present) < 2 or x.shape[1] == 0:
        flat = linear(np.zeros((outputs, x.shape[1])), np.log(prior(labels, task, outputs)), "softmax")
        return LinearFit((flat,), {"strength": None})
    codes = np.searchsorted(present, labels)
    small, back = compact(x)
    strength, facts = _choose(small, codes, len(present), ids, sorted(strengths))
    weight, bias = fit_softmax(small, codes, len(present), strength)
    return LinearFit((linear(back(weight), bias, "softmax"), *spread(present, outputs)), facts)


def compact(x: Matrix) -> tuple[Matrix, Callable[[Array], Array]]:
    """Rows rotated into their own span where that is narrower, and the map that takes weights (outputs, ·) back.

    >>> small, back = compact(np.array([[3.0, 0, 0, 4], [0, 1, 0, 0]]))
    >>> np.allclose(back(small), [[3, 0, 0, 4], [0, 1, 0, 0]])
    True
    """
    rows, width = x.shape
    if rows >= width or rows > MOST_ROTATED:
        return x, lambda weight: weight
    wide: Any = x.astype(np.float64)
    gram: Any = wide @ wide.T
    values, vectors = np.linalg.eigh(gram if isinstance(gram, np.ndarray) else gram.toarray())
    kept = values > values[-1] * 1e-10
    if not kept.any():
        return x, lambda weight: weight
    root = np.sqrt(values[kept])
    return vectors[:, kept] * root, lambda weight: np.asarray((wide.T @ ((vectors[:, kept] / root) @ weight.T)).T)


def _choose(
    x: Matrix, codes: Array, classes: int, ids: Sequence[str], strengths: Sequence[float]
) -> tuple[float, dict[str, Any]]:
    """The strength of the lowest log loss over inner folds; a class that the training side lacks counts as rare."""
    if len(strengths) == 1 or np.bincount(codes).max() < 2:
        middle = strengths[len(strengths) // 2]
        return middle, {"strength": middle}
    kept = _fewer(ids, codes)
    x, codes = (x, codes) if kept.all() else (compact(x[kept])[0], codes[kept])
    of = inner_folds(_some(ids, kept), codes, INNER)
    folds = [of != f for f in range(INNER) if len(np.unique(codes[of != f])) > 1 and (of == f).any()]
    starts: list[Weights | None] = [None] * len(folds)
    losses: list[float] = []
    for strength in strengths:
        total = 0.0
        for i, inside in enumerate(folds):
            known = np.unique(codes[inside])
            inner = np.searchsorted(known, codes[inside])
            starts[i] = weight, bias = fit_softmax(
                x[inside], inner, len(known), strength, start=starts[i], gradient=ROUGH
            )
            probabilities = np.full((int((~inside).sum()), classes), ABSENT)
            probabilities[:, known] = np.maximum(linked(np.asarray(x[~inside] @ weight.T) + bias, "softmax"), ABSENT)
            total -= float(np.log(probabilities[np.arange(len(probabilities)), codes[~inside]]).sum())
        losses.append(total / len(codes))
        if len(losses) > int(np.argmin(losses)) + 2:  # two in a row were worse: the rest will be
            break
    best = float(strengths[int(np.argmin(losses))])
    tried = {f"{s:g}": loss for s, loss in zip(strengths, losses, strict=False)}
    return best, {"strength": best, "inner_log_loss": tried}


def _fewer(ids: Sequence[str], codes: Array) -> Array:
    """Which rows the choice reads: at most `MOST_CHOOSING`, with the classes in proportion."""
    parts = -(-len(codes) // MOST_CHOOSING)
    return np.asarray(inner_folds(ids, codes, parts) == 0)


def _some(ids: Sequence[str], kept: Array) -> list[str]:
    return [i for i, k in zip(ids, kept, strict=True) if k]


def _one_vs_rest(x: Matrix, labels: Array, outputs: int, ids: Sequence[str], strengths: Sequence[float]) -> LinearFit:
    """One sigmoid for each label; a label that all or none of the rows have keeps its prior."""
    small, back = compact(x)
    weight, bias = np.zeros((outputs, small.shape[1])), np.zeros(outputs)
    frequency = prior(labels, "multi_label", outputs)
    chosen: list[float | None] = []
    for column in range(outputs):
        codes = np.asarray(labels[:, column], dtype=np.int64)
        if len(np.unique(codes)) < 2 or small.shape[1] == 0:
            bias[column] = np.log(frequency[column] / (1 - frequency[column]))
            chosen.append(None)
            continue
        strength, _ = _choose(small, codes, 2, ids, sorted(strengths))
        pair, offset = fit_softmax(small, codes, 2, strength)
        weight[column], bias[column] = pair[1] - pair[0], offset[1] - offset[0]
        chosen.append(strength)
    return LinearFit((linear(back(weight), bias, "sigmoid"),), {"strengths": chosen})


def _ridge(x: Matrix, values: Array, ids: Sequence[str], penalties: Sequence[float]) -> LinearFit:
    if len(values) < 3 or x.shape[1] == 0 or np.ptp(values) == 0:
        flat = linear(np.zeros((1, x.shape[1])), np.array([values.mean()]), "identity")
        return LinearFit((flat,), {"penalty": None})
    kept = _fewer(ids, values)
    some, known = compact(x[kept])[0], values[kept]
    of, errors = inner_folds(_some(ids, kept), known, INNER), np.zeros(len(penalties))
    for fold in range(INNER):
        inside = of != fold
        for i, (weight, bias) in enumerate(ridge(some[inside], known[inside], penalties)):
            errors[i] += ((np.asarray(some[~inside] @ weight) + bias - known[~inside]) ** 2).sum()
    best = penalties[min(range(len(penalties)), key=lambda i: (errors[i], -penalties[i]))]
    small, back = compact(x)
    ((weight, bias),) = ridge(small, values, [best])
    losses = {f"{p:g}": float(e / len(known)) for p, e in zip(penalties, errors, strict=True)}
    step = linear(back(weight[None]), np.array([bias]), "identity")
    return LinearFit((step,), {"penalty": best, "inner_squared_error": losses})


def ridge(x: Matrix, values: Array, penalties: Sequence[float]) -> list[tuple[Array, float]]:
    """Weights (width,) and a free intercept for each penalty; by one Gram matrix of the centred columns.

    >>> [(w.round(3).tolist(), round(b, 3)) for w, b in ridge(np.array([[0.0], [1], [2]]), np.array([1.0, 3, 5]), [0])]
    [([2.0], 1.0)]
    """
    rows, width = x.shape
    if width > MOST_GRAM:
        made = [Ridge(alpha=p, solver="sparse_cg", tol=1e-6).fit(x, values) for p in penalties]
        return [(np.asarray(m.coef_), float(m.intercept_)) for m in made]
    mean, middle = np.asarray(x.mean(axis=0), dtype=np.float64).ravel(), float(values.mean())
    if sp.issparse(x):
        sparse: Any = x  # scipy's stubs know less of a matrix once it was asked
        gram = (sparse.T @ sparse).toarray() - rows * np.outer(mean, mean)
        side = np.asarray(sparse.T @ (values - middle)).ravel()
    else:
        centred = np.asarray(x, dtype=np.float64) - mean
        gram, side = centred.T @ centred, centred.T @ (values - middle)
    eigenvalues, vectors = np.linalg.eigh(gram)
    rotated, floor = vectors.T @ side, max(float(eigenvalues[-1]), 1e-300) * 1e-12
    fits = []
    for penalty in penalties:
        weight = vectors @ (rotated / np.maximum(np.maximum(eigenvalues, 0) + penalty, floor))
        fits.append((weight, middle - float(mean @ weight)))
    return fits
