"""How much models get in each other's way, and where in the network a merge takes them from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.numerics.singular import is_matrix

if TYPE_CHECKING:
    from .live import LiveMerge, Weights

Array = np.ndarray[Any, Any]
LARGEST_SIDE = 1024  # singular values of larger matrices take longer than people wait for a table
ENERGY = 0.95  # of a merged matrix, that its main directions hold
LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def measured(view: LiveMerge, merged: Weights, told: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Figures of the models' changes, and of a merge of them, as JSON values.

    cosines: (models, models) between whole changes. conflict: of each pair, the share of entries that both change and
    in opposite directions. alignment: of each model, how much of its changed matrices lies in the directions that hold
    95 % of the merged change (Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and
    Task-Specific Subspaces", 2025); of matrices up to 1,024 on a side, and None where there is none. layers: of each
    part of the network, how much of each model's change the merge takes: the merged change's inner product with it,
    over that of the change with itself.
    """
    count = len(view.models)
    inner, both, against = np.zeros((count, count)), np.zeros((count, count)), np.zeros((count, count))
    aligned: list[list[float]] = [[] for _ in view.models]
    taken: dict[str, tuple[Array, Array]] = {}
    for name in view.tensors:
        told()
        changes, change = view.changes(name), merged[name] - view.base(name)
        own = np.array([[float((a * b).sum()) for b in changes] for a in changes])
        inner += own
        for i, j in combinations(range(count), 2):
            product = torch.sign(changes[i]) * torch.sign(changes[j])
            both[i, j] += int((product != 0).sum())
            against[i, j] += int((product < 0).sum())
        pulled, lengths = taken.setdefault(part_of(name), (np.zeros(count), np.zeros(count)))
        pulled += [float((change * c).sum()) for c in changes]
        lengths += own.diagonal()
        if is_matrix(change) and max(change.shape) <= LARGEST_SIDE and bool(change.any()):
            for model, share in enumerate(alignments(change, changes)):
                if share is not None:
                    aligned[model].append(share)
    size = np.sqrt(inner.diagonal())
    scale = np.where(size > 0, size, 1)
    return {
        "models": list(view.models),
        "cosines": _listed(inner / np.outer(scale, scale)),
        "conflict": _listed(np.divide(against, both, out=np.zeros_like(both), where=both > 0)),
        "alignment": [round(float(np.mean(a)), 4) if a else None for a in aligned],
        "layers": [
            {"part": part, "shares": [round(float(p / n), 4) if n > 0 else None for p, n in zip(*found, strict=True)]}
            for part, found in taken.items()
        ],
    }


def alignments(merged: torch.Tensor, changes: Sequence[torch.Tensor]) -> list[float | None]:
    """Of each change (out, in), the length of its part in the merged one's main left directions, over its own length.

    >>> merged = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    >>> alignments(merged, [torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [2.0, 0.0]])])
    [1.0, 0.0]
    """
    left, values, _ = torch.linalg.svd(merged, full_matrices=False)
    held = (values.double() ** 2).cumsum(0) / (values.double() ** 2).sum()
    rank = int((held < ENERGY**2).sum()) + 1  # energies are squares
    axes = left[:, :rank]
    lengths = [float(c.norm()) for c in changes]
    return [float((axes.T @ c).norm()) / n if n > 0 else None for c, n in zip(changes, lengths, strict=True)]


def part_of(name: str) -> str:
    """
    >>> part_of("bert.encoder.layer.3.output.dense.weight"), part_of("bert.embeddings.word_embeddings.weight")
    ('layer 3', 'bert.embeddings')
    """
    found = LAYER.search(name)
    return (
        f"layer {found[1]}" if found else ".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0]
    )


def _listed(values: Array) -> list[list[float]]:
    return [[round(float(v), 4) for v in row] for row in values]
