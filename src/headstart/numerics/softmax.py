"""Multinomial logistic regression on any matrix, by L-BFGS with the curvature of each column divided out.

On rows that were rotated to their own axes the curvature is nearly diagonal, and a few steps suffice; on sparse columns
of very different power it spares the rare ones the wait for the frequent ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.special import logsumexp

from .artifacts import Array
from .steps import Matrix

ROUGH, FINE = 4e-5, 4e-6  # largest scaled gradient at the end, in nats a row: for a choice, and for a result
MOST_STEPS = 200

Weights = tuple[Array, Array]  # (classes, width) and (classes,)


def fit_softmax(
    x: Matrix, codes: Array, classes: int, strength: float, *, start: Weights | None = None, gradient: float = FINE
) -> Weights:
    """Weights that make the sum over rows of the log loss, plus |W|² / (2 × strength), least; the bias is free.

    codes: (rows,) every class of 0 … classes − 1 at least once. start: weights of a fit nearby. Of two classes each has
    weights, half of what a sigmoid would have; `strength` is then half of scikit-learn's C.

    >>> weight, bias = fit_softmax(np.array([[-1.0], [1.0]]), np.array([0, 1]), 2, 1.0)
    >>> bool(weight[1, 0] > 0.3), np.allclose(weight[0], -weight[1], atol=1e-4)
    (True, True)
    """
    rows, width = x.shape
    x = x.astype(np.float64)
    sparse = bool(sp.issparse(x))
    across = x.T.tocsr() if sparse else x.T
    power = np.asarray((across.multiply(across) if sparse else across**2).sum(axis=1)).ravel()
    truth = np.zeros((rows, classes))
    truth[np.arange(rows), codes] = 1.0
    weight, bias = start or (np.zeros((classes, width)), np.log(truth.mean(axis=0)))
    share = (1 - 1 / classes) / classes  # curvature of an undecided row
    unit = 1 / np.sqrt(share * power + 1 / strength)[:, None]
    unit_bias = 1 / np.sqrt(share * rows)

    def loss(flat: Array) -> tuple[float, Array]:
        w = flat[classes:].reshape(width, classes) * unit
        logits = np.asarray(x @ w) + flat[:classes] * unit_bias
        logits -= logits.max(axis=1, keepdims=True)
        e = np.exp(logits)
        total = e.sum(axis=1, keepdims=True)
        value = float(np.log(total).sum() - (truth * logits).sum()) + 0.5 / strength * float((w * w).sum())
        gap = e / total - truth
        slope = (np.asarray(across @ gap) + w / strength) * unit
        return value, np.concatenate([gap.sum(axis=0) * unit_bias, slope.ravel()])

    x0 = np.concatenate([bias / unit_bias, (weight.T / unit).ravel()])
    memory = 10 if len(x0) < 1_000_000 else 4  # steps that L-BFGS remembers, each as large as the weights, twice
    options: Any = {
        "maxiter": MOST_STEPS,
        "maxfun": 2 * MOST_STEPS,
        "gtol": gradient * rows,
        "ftol": 0.0,
        "maxcor": memory,
    }
    best = minimize(loss, x0, jac=True, method="L-BFGS-B", options=options).x
    return np.ascontiguousarray((best[classes:].reshape(width, classes) * unit).T), best[:classes] * unit_bias


def energies(probabilities: Array, temperature: float = 1.0) -> Array:
    """(rows,) T log mean exp(logits / T) of the logits with mean 0 whose softmax the rows are.

    Probabilities count as 1e-12 at least: float32 holds less, and a head that says 0 means no more by it.

    >>> energies(np.array([[0.5, 0.5]])).tolist()
    [0.0]
    """
    logits = np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-12))
    logits = (logits - logits.mean(axis=1, keepdims=True)) / temperature
    return np.asarray(temperature * (logsumexp(logits, axis=1) - np.log(logits.shape[1])))
