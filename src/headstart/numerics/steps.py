"""The steps of a `Table`: plain data that turns rows into predictions, rebuilt without pickle.

Reading steps (`constant`, `tfidf`, `pixels`, `hog`, `columns`) make columns from the rows, each to the right of those
before it; changing steps (`centred`, `linear`, `trees`, `network`, `spread`) replace what there is. Nothing in a step
is code: settings are JSON values, arrays are numbers, long texts are a vocabulary or LightGBM's text model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from headstart.core import Raw, Unreadable

from .artifacts import Array, Link, Step, Table, linked

Matrix = Any  # (rows, width): a float array, or scipy's CSR matrix
Reading = Callable[[Step, Raw], Matrix]
Changing = Callable[[Step, Matrix], Matrix]

ABSENT = 1e-6  # probability of a class that the training rows do not have


def apply(table: Table, raw: Raw) -> Array:
    """Predictions (rows, outputs) float64: probabilities, or values for regression.

    >>> apply(Table((constant(np.array([0.25, 0.75])),)), ["a", "b"]).tolist()
    [[0.25, 0.75], [0.25, 0.75]]
    """
    return np.ascontiguousarray(features(table.steps, raw), dtype=np.float64)


def features(steps: Sequence[Step], raw: Raw, x: Matrix | None = None) -> Matrix:
    """What some steps of a table make of the rows, (rows, width): dense, or CSR where a step is sparse.

    x: what the steps before them made.
    """
    reading, changing = _runners()
    for number, step in enumerate(steps):
        if step.kind in reading:
            x = _beside(x, reading[step.kind](step, raw))
        elif step.kind in changing and x is not None:
            x = changing[step.kind](step, x)
        else:
            raise Unreadable(
                f"step {number} is a `{step.kind}`, which this version cannot run there",
                where="the steps of a saved table",
                fix="upgrade with `pip install --upgrade headstart`",
            )
    return x


def constant(row: Array) -> Step:
    """The same predictions for every row."""
    return Step(kind="constant", arrays={"row": np.asarray(row, dtype=np.float64)})


def prior(labels: Array, task: str, outputs: int) -> Array:
    """Class frequencies (or frequency of each label, or the mean), never exactly zero.

    >>> prior(np.array([0, 0, 1, 1]), "single_label", 2).tolist()
    [0.5, 0.5]
    """
    if task == "regression":
        return np.array([np.asarray(labels, dtype=np.float64).mean()])
    if task == "multi_label":
        return np.asarray(np.clip(np.asarray(labels, dtype=np.float64).mean(axis=0), ABSENT, 1 - ABSENT))
    frequency = np.maximum(np.bincount(labels, minlength=outputs) / len(labels), ABSENT)
    return np.asarray(frequency / frequency.sum())


def linear(weight: Array, bias: Array, link: Link) -> Step:
    """weight (outputs, width), bias (outputs,), kept in float32; the arithmetic is float64."""
    arrays = {"weight": np.asarray(weight, dtype=np.float32), "bias": np.asarray(bias, dtype=np.float32)}
    return Step(kind="linear", settings={"link": link}, arrays=arrays)


def centred(x: Array) -> Step:
    """Subtracts each column's mean and divides all by one number, so that a constant column stays small."""
    mean = x.mean(axis=0, dtype=np.float64)
    spread = float(np.sqrt(((x - mean) ** 2).mean())) or 1.0
    return Step(kind="centred", settings={"spread": spread}, arrays={"mean": mean})


def spread(present: Array, outputs: int) -> tuple[Step, ...]:
    """Gives the classes that were not trained on a small probability; no step where all were.

    >>> spread(np.array([0, 1]), 2)
    ()
    """
    if len(present) == outputs:
        return ()
    return (Step(kind="spread", settings={"outputs": outputs}, arrays={"present": np.asarray(present, np.int64)}),)


def _beside(x: Matrix | None, block: Matrix) -> Matrix:
    if x is None:
        return block
    if sp.issparse(x) or sp.issparse(block):
        return sp.hstack([x, block], format="csr")
    return np.concatenate([x, block], axis=1)


def _constant(step: Step, raw: Raw) -> Matrix:
    return np.tile(step.arrays["row"], (len(raw), 1))


def _linear(step: Step, x: Matrix) -> Matrix:
    weight = step.arrays["weight"].astype(np.float64)
    rows = x.astype(np.float64)
    return linked(np.asarray(rows @ weight.T) + step.arrays["bias"].astype(np.float64), step.settings["link"])


def _centred(step: Step, x: Matrix) -> Matrix:
    return (x - step.arrays["mean"]) / step.settings["spread"]


def _spread(step: Step, x: Matrix) -> Matrix:
    present = step.arrays["present"]
    out = np.full((len(x), int(step.settings["outputs"])), ABSENT)
    out[:, present] = x * (1 - ABSENT * (out.shape[1] - len(present)))
    return out


@cache
def _runners() -> tuple[dict[str, Reading], dict[str, Changing]]:
    from . import steps_image, steps_table, steps_text

    def network(step: Step, x: Matrix) -> Matrix:
        from . import steps_network  # brings torch, which the other steps do without

        return steps_network.run_network(step, x)

    reading: dict[str, Reading] = {
        "constant": _constant,
        "tfidf": steps_text.run_tfidf,
        "pixels": steps_image.run_pixels,
        "hog": steps_image.run_hog,
        "columns": steps_table.run_columns,
    }
    changing: dict[str, Changing] = {
        "centred": _centred,
        "linear": _linear,
        "trees": steps_table.run_trees,
        "network": network,
        "spread": _spread,
    }
    return reading, changing
