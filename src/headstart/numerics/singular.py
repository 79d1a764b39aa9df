"""Matrices taken apart by their singular values, for merges of what several fine-tunes changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def is_matrix(tensor: torch.Tensor) -> bool:
    """Whether singular values are looked at: vectors and numbers have none, and kernels are left as they are.

    >>> is_matrix(torch.zeros(2, 3)), is_matrix(torch.zeros(4, 3, 2, 2)), is_matrix(torch.zeros(3))
    (True, False, False)
    """
    return tensor.dim() == 2 and min(tensor.shape) > 0


def square_share(shape: Sequence[int]) -> float:
    """How large a square of a matrix's smaller side is beside the matrix; 0 of what is none.

    >>> square_share((2, 8)), square_share((3, 3)), square_share((7,))
    (0.25, 1.0, 0.0)
    """
    return min(shape) / max(shape) if len(shape) == 2 and min(shape) else 0.0


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthonormal columns, or rows where it is wide.

    >>> polar(torch.tensor([[0.0, -3.0], [2.0, 0.0]])).round(decimals=4).abs().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    return torch.mm(left, right)


def rank_of(values: torch.Tensor, shape: Sequence[int]) -> int:
    """How many singular values, in falling order, are more than rounding."""
    if not len(values) or not float(values[0]):
        return 0
    small = float(values[0]) * max(shape) * torch.finfo(values.dtype).eps
    return int((values > small).sum())


def rounding(matrix: torch.Tensor) -> float:
    """The size below which singular values of what was taken from a matrix are rounding.

    >>> 0 < rounding(torch.eye(3)) < 1e-6
    True
    """
    return float(matrix.norm()) * max(matrix.shape) * torch.finfo(matrix.dtype).eps


def flat(left: torch.Tensor, values: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right with every direction as strong as the values are on average."""
    return float(values.mean()) * (left @ right)


def side_by_side(changes: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    """S V' of each change, where U S V' are the changes (out, in) side by side; and the way back, U @ what is given.

    By the eigenvectors of the smaller Gram matrix, in float64, as squares cost half the digits. Where that is of V,
    U @ M is taken as the changes @ V @ (M / S): no division makes U worse where S is small.

    >>> turned, back = side_by_side([torch.tensor([[0.0], [3.0]]), torch.tensor([[2.0], [0.0]])])
    >>> [t.abs().tolist() for t in turned], back(sum(turned)).tolist()
    ([[[3.0], [0.0]], [[0.0], [2.0]]], [[2.0], [3.0]])
    """
    wide = sum(c.shape[1] for c in changes)
    dtype = changes[0].dtype
    if len(changes[0]) <= wide:
        _, outputs = _eigenvectors(_gram([change.T for change in changes]))
        return [(outputs.T.to(dtype) @ change) for change in changes], lambda merged: outputs.to(dtype) @ merged
    squares, inputs = _eigenvectors(_gram_across(changes))
    values = squares.clamp_min(0).sqrt()
    blocks = list(torch.split(inputs, [c.shape[1] for c in changes]))
    inverse = torch.where(values > 0, 1 / values, 0)[:, None]

    def back(merged: torch.Tensor) -> torch.Tensor:
        rows = inverse * merged
        parts = [change @ (block @ rows).to(dtype) for change, block in zip(changes, blocks, strict=True)]
        return torch.stack(parts).sum(dim=0)

    return [(values[:, None] * block.T).to(dtype) for block in blocks], back


def _gram(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of part' part, float64."""
    gram = torch.zeros(parts[0].shape[1], parts[0].shape[1], dtype=torch.float64)
    for part in parts:
        double = part.double()
        gram.addmm_(double.T, double)
    return gram


def _gram_across(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """M' M of the parts side by side, float64; two of them are widened at a time."""
    wide = [part.shape[1] for part in parts]
    gram = torch.empty(sum(wide), sum(wide), dtype=torch.float64)
    blocks = [torch.split(row, wide, dim=1) for row in torch.split(gram, wide)]
    for i, part in enumerate(parts):
        double = part.double()
        torch.mm(double.T, double, out=blocks[i][i])
        for j in range(i):
            torch.mm(double.T, parts[j].double(), out=blocks[i][j])
            blocks[j][i].copy_(blocks[i][j].T)
    return gram


def _eigenvectors(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues, falling, and eigenvectors."""
    values, vectors = torch.linalg.eigh(gram)
    return torch.flip(values, (0,)), torch.flip(vectors, (1,))
