"""What a black box decides, as a vector: which probes it holds for alike, whatever it calls its classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.core import Unfit

Array = np.ndarray[Any, Any]
WIDTH = 128
SKETCH_VERSION = 1  # vectors of two versions lie in two spaces


def decision_vector(answers: Array, width: int = WIDTH, seed: int = 0) -> Array:
    """A unit vector (width,) float64 of answers (probes, classes) as shares of classes, or (probes,) as class names.

    K = P P', P the answers less their mean over probes, says how alike two probes are to the model; no name of a class
    is left in it. Each number of the vector is r'K s, with random signs r and s drawn from the seed, so products of two
    vectors estimate those of two kernels, and K itself (probes²) is never made: time and memory O(probes · (width +
    classes)). Vectors of other probes, or in another order, say nothing beside this one. Zero for a model that says the
    same of all probes. Raises `Unfit` for answers that are not finite.

    >>> one, other = decision_vector(np.array(["a", "a", "b"])), decision_vector(np.array([7, 7, 3]))
    >>> bool(np.allclose(one, other)), bool(np.allclose(one, decision_vector(np.array([1, 0, 0]))))
    (True, False)
    """
    shares = _as_shares(np.asarray(answers))
    if not np.isfinite(shares).all():
        raise Unfit("some answers are not finite", where="decision_vector", fix="give a share for each class and probe")
    centred = shares - shares.mean(axis=0)
    left, right = np.random.default_rng(seed).choice([-1.0, 1.0], size=(2, width, len(shares)))
    sketch = ((left @ centred) * (right @ centred)).sum(axis=1)
    length = float(np.linalg.norm(sketch))
    silent = length <= 1e-12 * len(shares) or np.ptp(shares, axis=0).max(initial=0.0) <= 1e-9
    return np.zeros(width) if silent else np.asarray(sketch / length)


def _as_shares(answers: Array) -> Array:
    if answers.ndim == 2:
        return answers.astype(np.float64)
    _, numbers = np.unique(answers, return_inverse=True)
    return np.eye(int(numbers.max(initial=-1)) + 1)[numbers]
