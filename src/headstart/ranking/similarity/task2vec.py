"""Task2Vec: a task is how much each filter of an encoder matters for it, by the diagonal of the Fisher information.

Achille, Lam, Tewari, Ravichandran, Maji, Fowlkes, Soatto and Perona, "Task2Vec: Task Embedding for Meta-Learning",
ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, TaskSample
from headstart.numerics.artifacts import Link
from headstart.numerics.row_gradients import Array, cosine, matrices, row_gradients, task_head
from headstart.numerics.two_samples import require_one


@dataclass(frozen=True, kw_only=True, slots=True)
class Task2Vec:
    """Cosine of two diagonals of the Fisher information, each entry as a share of the sum of both.

    Shapes: features (N, D) and labels (N,) of at most `rows` rows, drawn with `seed`; one pass forward and back for
    each row; the sum of squares is one float64 copy of the encoder's matrices. An embedding has a number a filter.
    Returns: from 0 to 1; 1 for the same task.
    Errors: `Unfit` for rows of a single class, label set or value.

    Labels are drawn from the head's own probabilities, as the Fisher information asks: with the true ones it is the
    square of a loss that may be large; numbers from a Gaussian about what the head says, with the variance that it
    leaves. Squares are of single rows; published code squares the mean of a batch, in
    training mode. Filters are the rows of weight matrices; the head and word tables are left out. The head is a
    logistic one of one strength where the paper trains with Adam, and the paper's asymmetric form, which takes off the
    distance to the trivial task, is left out.
    """

    needs = Needs(gives=("features", "gradients"), tasks=("single_label", "multi_label", "regression"))
    claims = ("symmetric", "class_names", "halves_nearer", "sees_labels")
    cites = "arXiv:1902.03545"

    rows: int = 256
    # inverse of the L2 penalty of the head, C as in scikit-learn; a head that is nearly sure leaves a few odd draws
    strength: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        require_one(self.strength, "strength", "Task2Vec(strength=…)", 0.1)
        require_one(self.rows, "rows", "Task2Vec(rows=…)", 256)

    def embed(self, sample: TaskSample) -> dict[str, Array]:
        at, labels, head = task_head(sample, "task2vec", self.rows, self.seed, self.strength)
        drawn = _drawn(head(sample.features[at]), labels, head.link, np.random.default_rng(self.seed))
        encoder = sample.encoder
        weights = list(matrices(encoder).values())
        total = [np.zeros(tuple(w.shape)) for w in weights]
        for gradient in row_gradients(encoder, weights, head, sample.inputs, at, drawn):
            for held, g in zip(total, gradient, strict=True):
                held += g.double().square().cpu().numpy()
        filters = [held.reshape(len(held), -1).mean(axis=1) / len(at) for held in total]
        return {"fisher": np.concatenate(filters) if filters else np.zeros(0)}

    def __call__(self, source: Mapping[str, Array], target: Mapping[str, Array]) -> float:
        a, b = source["fisher"], target["fisher"]
        both = a + b
        seen = both > 0  # a filter that neither task touches says nothing
        return cosine(a[seen] / both[seen], b[seen] / both[seen])


def _drawn(said: Array, labels: Array, link: Link, chance: np.random.Generator) -> Array:
    """Labels as a head has them likely, by its outputs for the rows."""
    if link == "softmax":
        found = (chance.random((len(said), 1)) > said.cumsum(axis=1)).sum(axis=1)
        return np.asarray(np.minimum(found, said.shape[1] - 1))  # probabilities may sum to less than 1 by rounding
    if link == "sigmoid":
        return np.asarray(chance.random(said.shape) < said, dtype=np.int64)
    left = max(float(np.square(said[:, 0] - labels).mean()), 1e-2)  # of a variance of 1
    # the loss has a variance of 1, so that an error is taken to the root of the information, not of the variance
    return np.asarray(said[:, 0] + chance.standard_normal(len(said)) / left**0.5)
