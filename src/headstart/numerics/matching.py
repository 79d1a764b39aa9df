"""Weights that fit several models at once, each as much as it cares: least squares with a metric of each model.

All solve  sum_k C_k (W - W_k) = 0,  and differ in what C_k is: a diagonal, a matrix on one side, or one on each side.
They work on differences from a start, so that models that agree give what they agree on, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from headstart.core import Passes

Apply = Callable[[torch.Tensor], torch.Tensor]


def by_entries(models: Sequence[torch.Tensor], care: Sequence[torch.Tensor]) -> torch.Tensor:
    """Each entry is the mean of the models' by how much each cares for it; the plain mean where none does.

    >>> by_entries([torch.tensor([0.0]), torch.tensor([4.0])], [torch.tensor([1.0]), torch.tensor([3.0])])
    tensor([3.])
    """
    mean = torch.stack(list(models)).mean(0)
    total = torch.zeros_like(mean, dtype=torch.float64)
    shift = torch.zeros_like(total)
    for one, c in zip(models, care, strict=True):
        total += c
        shift += c.double() * (one - mean)
    return mean + torch.where(total > 0, shift / total, 0).to(mean.dtype)


def by_inputs(models: Sequence[torch.Tensor], grams: Sequence[torch.Tensor]) -> torch.Tensor:
    """W (out, in) that minimises  sum_k tr((W - W_k) G_k (W - W_k)')  for Gram matrices G_k (in, in).

    Where no model has any input, it is the mean.

    >>> models = [torch.tensor([[1.0, 9.0]]), torch.tensor([[7.0, 2.0]])]
    >>> by_inputs(models, [torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))])
    tensor([[1., 2.]])
    """
    mean = torch.stack(list(models)).mean(0)
    total = torch.zeros(grams[0].shape, dtype=torch.float64)
    pull = torch.zeros(mean.shape, dtype=torch.float64)
    for one, gram in zip(models, grams, strict=True):
        total += gram
        pull += (one - mean).double() @ gram.double()
    values, axes = torch.linalg.eigh(total)
    small = float(values[-1].clamp_min(0)) * len(values) * torch.finfo(torch.float64).eps
    inverse: torch.Tensor = torch.where(values > small, 1 / values.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    shift: torch.Tensor = (pull @ axes * inverse) @ axes.T
    return mean + shift.to(mean.dtype)


def regression(tuned: Sequence[torch.Tensor], passes: Sequence[Passes], shrink: float) -> torch.Tensor:
    """`by_inputs` with shrunken Gram matrices of what passes saw; the mean where not all of them saw inputs.

    >>> regression([torch.tensor([1.0]), torch.tensor([3.0])], [Passes(), Passes()], 0.95)
    tensor([2.])
    """
    grams = [shrunk(p.inputs, shrink) for p in passes if p.inputs is not None]
    if len(grams) < len(tuned):
        return torch.stack(list(tuned)).mean(0)
    if passes[0].transposed:
        return by_inputs([t.T for t in tuned], grams).T.contiguous()
    return by_inputs(tuned, grams)


def shrunk(gram: torch.Tensor, keep: float) -> torch.Tensor:
    """The Gram matrix with what is off its diagonal made smaller.

    >>> shrunk(torch.tensor([[1.0, 0.8], [0.8, 1.0]]), 0.5)
    tensor([[1.0000, 0.4000],
            [0.4000, 1.0000]])
    """
    return keep * gram + (1 - keep) * torch.diag(gram.diagonal())


def conjugate_gradients(apply: Apply, wanted: torch.Tensor, start: torch.Tensor, steps: int) -> torch.Tensor:
    """X with apply(X) = wanted, by at most so many steps from a start; apply is symmetric and never negative.

    In float64. Stops where the residual is rounding. Hestenes and Stiefel, "Methods of Conjugate Gradients for Solving
    Linear Systems", 1952.

    >>> conjugate_gradients(lambda x: 2 * x, torch.tensor([4.0]), torch.tensor([0.0]), 5)
    tensor([2.], dtype=torch.float64)
    """
    x = start.double()
    residual = wanted.double() - apply(x)
    direction, size = residual.clone(), float((residual * residual).sum())
    least = float((wanted.double() ** 2).sum()) * torch.finfo(torch.float64).eps ** 2
    for _ in range(steps):
        if size <= least:
            break
        along = apply(direction)
        curvature = float((direction * along).sum())
        if curvature <= 0:
            break
        x += size / curvature * direction
        residual -= size / curvature * along
        size, before = float((residual * residual).sum()), size
        direction = residual + size / before * direction
    return x
