"""Gradient similarity: whether two tasks would move an encoder's weights in the same direction.

Du, Czarnecki, Jayakumar, Farajtabar, Pascanu and Lakshminarayanan, "Adapting Auxiliary Losses Using Gradient
Similarity", 2018; sketched as in Charikar, Chen and Farach-Colton, "Finding Frequent Items in Data Streams", 2002.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headstart.core import Needs, TaskSample
from headstart.numerics.row_gradients import Array, cosine, matrices, row_gradients, task_head
from headstart.numerics.two_samples import require_one


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientSimilarity:
    """Cosine of the mean gradients of two tasks at the encoder's weights, each under a head of its own.

    Shapes: features (N, D) and labels (N,) of at most `rows` rows, drawn with `seed`; one pass forward and back for
    each row; the mean is one float64 copy of the encoder's matrices.
    Returns: from -1 (they pull apart) to 1; 1 for the same task.
    Errors: `Unfit` for rows of a single class, label set or value.

    All rows count alike, however many a task has. The head's own gradient is left out: heads of other classes cannot be
    compared. Of an encoder with more than `width` weights a sketch is kept: each is added, with a random sign, to one
    of `width` numbers, the same for all tasks, which moves the cosine by about 1 / √width.
    """

    needs = Needs(gives=("features", "gradients"), tasks=("single_label", "multi_label", "regression"))
    claims = ("symmetric", "class_names", "halves_nearer", "sees_labels")
    cites = "arXiv:1812.02224"

    rows: int = 256
    # inverse of the L2 penalty of the head, C as in scikit-learn
    strength: float = 1.0
    width: int = 262_144
    seed: int = 0

    def __post_init__(self) -> None:
        require_one(self.strength, "strength", "GradientSimilarity(strength=…)", 1.0)
        require_one(self.rows, "rows", "GradientSimilarity(rows=…)", 256)
        require_one(self.width, "width", "GradientSimilarity(width=…)", 262_144)

    def embed(self, sample: TaskSample) -> dict[str, Array]:
        at, labels, head = task_head(sample, "gradient_similarity", self.rows, self.seed, self.strength)
        encoder = sample.encoder
        weights = list(matrices(encoder).values())
        total = [np.zeros(w.numel()) for w in weights]
        for gradient in row_gradients(encoder, weights, head, sample.inputs, at, labels):
            for held, g in zip(total, gradient, strict=True):
                held += g.double().cpu().numpy().ravel()
        return {"gradient": self._sketch([held / len(at) for held in total])}

    def _sketch(self, parts: list[Array]) -> Array:
        if sum(len(p) for p in parts) <= self.width:
            return np.concatenate(parts) if parts else np.zeros(0)
        chance, out = np.random.default_rng(self.seed), np.zeros(self.width)
        for part in parts:
            signed = part * (2.0 * chance.integers(0, 2, len(part), dtype=np.int8) - 1)
            out += np.bincount(chance.integers(0, self.width, len(part)), signed, self.width)
        return out

    def __call__(self, source: Mapping[str, Array], target: Mapping[str, Array]) -> float:
        return cosine(source["gradient"], target["gradient"])
