"""Gradients of single rows: what one row of a task asks of an encoder's weights, by a linear head fitted on the task.

Each row goes through the encoder alone, in eval mode: no dropout, no statistics of a batch, no padding, and a square of
a gradient is a square of one row's, not of a batch's mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from headstart.core import Encoder, TaskSample, Unfit

from .artifacts import Head, Link
from .inner import first_seen
from .linear import logistic_path, ridge_path
from .two_samples import some

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]


def task_head(sample: TaskSample, name: str, rows: int, seed: int, strength: float) -> tuple[Array, Array, Head]:
    """At most so many rows of a task: their numbers, what is told of them, and a linear head fitted on all of them.

    Classes as `first_seen`, under a softmax; of several labels those that some rows have and some have not, each under
    a sigmoid; numbers with mean 0 and variance 1. One strength for all tasks, since a head that is surer has smaller
    gradients. Raises `Unfit` where the rows do not differ.
    """
    if sample.labels is None:
        raise Unfit("a data set without labels", where=name, fix="leave it out")
    at = some(len(sample), rows, seed)
    known, features = np.asarray(sample.labels)[at], sample.features[at]
    if sample.task == "regression":
        values = known.astype(np.float64)
        values = (values - values.mean()) / (float(values.std()) or 1.0)
        if not values.any():
            raise Unfit(f"{len(at)} rows of one value", where=name, fix="give rows of two values or more")
        return at, values, ridge_path(features, values, [strength])[0]
    if sample.task == "multi_label":
        labels = np.asarray(known > 0, dtype=np.int64)
        labels = labels[:, (labels != labels[:1]).any(axis=0)]
        labels = labels[:, np.lexsort(labels)]  # what labels are called, and so their order, changes nothing
        if not labels.shape[1]:
            raise Unfit(f"{len(at)} rows that all have the same labels", where=name, fix="give rows that differ")
        return at, labels, logistic_path(features, labels, labels.shape[1], [strength], "sigmoid")[0]
    labels = first_seen(known)
    if labels.max(initial=0) == 0:
        raise Unfit(f"{len(at)} rows of one class", where=name, fix="give rows of two classes or more")
    return at, labels, logistic_path(features, labels, int(labels.max()) + 1, [strength])[0]


def matrices(encoder: Encoder) -> dict[str, torch.nn.Parameter]:
    """Weights of the encoder's layers, by name in the order of depth; biases and word tables are left out.

    A row of a word table moves with its word alone: it says which words a task has, which needs no gradients. A bias, a
    scale or a token may have other dimensions of size 1 beside its own, and is no matrix for that.
    """
    tables = {
        f"{name}.{own}"
        for name, part in encoder.module.named_modules()
        if isinstance(part, torch.nn.Embedding)
        for own, _ in part.named_parameters(recurse=False)
    }
    held = dict(encoder.module.named_parameters())
    names = [n for layer in encoder.layers for n in layer if n in held and n not in tables]
    return {n: held[n] for n in names if sum(size > 1 for size in held[n].shape) > 1}


def row_gradients(
    encoder: Encoder,
    weights: Sequence[torch.nn.Parameter],
    head: Head,
    inputs: pa.Table,
    rows: Sequence[int] | Array,
    labels: Array,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The gradient of each row's loss at the weights; float32, one tensor a weight, row by row.

    labels: as `task_head` gives them. The loss is the negative log likelihood, of numbers with variance 1.
    """
    with eval_mode(encoder.module), torch.enable_grad():
        for w in weights:
            w.requires_grad_(True)
        for row, label in zip(rows, labels, strict=True):
            loss = _loss(logits(encoder, head, inputs, int(row)), label, head.link)
            found = torch.autograd.grad(loss, list(weights), allow_unused=True)
            yield tuple(torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True))


def _loss(told: torch.Tensor, label: Any, link: Link) -> torch.Tensor:
    if link == "softmax":
        return F.cross_entropy(told, torch.tensor([int(label)]))
    if link == "sigmoid":
        truth = torch.as_tensor(np.asarray(label, dtype=np.float32))[None]
        return F.binary_cross_entropy_with_logits(told, truth, reduction="sum")
    return (told[0, 0] - float(label)).square() / 2


def logits(encoder: Encoder, head: Head, inputs: pa.Table, row: int) -> torch.Tensor:
    """(1, outputs) float32 of one row."""
    found = encoder.forward_features(encoder.collate(inputs, [row])).float()
    return F.linear(found.cpu(), torch.from_numpy(head.weight), torch.from_numpy(head.bias))


@contextmanager
def eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """No dropout, and no statistics of the batch at hand."""
    was = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was)


def cosine(one: Array, other: Array) -> float:
    """Of two vectors, in float64; 0 where one of them is 0.

    >>> round(cosine(np.array([3.0, 0.0]), np.array([1.0, 1.0])), 9)
    0.707106781
    """
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (one, other))
    a, b = (v / (np.abs(v).max(initial=0.0) or 1.0) for v in (a, b))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / size, -1.0, 1.0)) if size > 0 else 0.0
