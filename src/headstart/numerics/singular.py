"""Matrices taken apart by their singular values, for merges of what several fine-tunes changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def is_matrix(tensor: torch.Tensor) -> bool:
    """Whether singular values are looked at: vectors and numbers have none, and kernels are left as they are.

    >>> is_matrix(torch.zeros(2, 3)), is_matrix(torch.zeros(4, 3, 2, 2)), is_matrix(torch.zeros(3))
    (True, False, False)
    """
    return tensor.dim() == 2 and min(tensor.shape) > 0


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


def flat(left: torch.Tensor, values: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right with every direction as strong as the values are on average."""
    return float(values.mean()) * (left @ right)
