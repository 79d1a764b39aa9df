"""Soups: which fine-tunes to average, and the average itself, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from headstart.core import TensorContext, Unfit

from .artifacts import Head, Model

Combine = Callable[[TensorContext, torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]


def greedy_soup(scores: Sequence[float], score: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    """Ingredients (numbers, in the order they were added) of a greedy soup.

    From the best to the worst by `scores` (higher is better; of equals the earlier), each is kept if the soup with it
    scores at least as well as without. score: of a soup, averaged over folds. Called once for each ingredient.

    >>> greedy_soup([0.5, 0.9, 0.7], lambda soup: {(1,): 0.9, (1, 2): 0.8, (1, 0): 0.95}[soup])
    (1, 0)
    """
    if not scores:
        return ()
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    soup: tuple[int, ...] = (order[0],)
    best = score(soup)
    for i in order[1:]:
        with_it = score((*soup, i))
        if with_it >= best:
            soup, best = (*soup, i), with_it
    return soup


def round_once(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A float32 result in the dtype of the weights that it replaces; the only rounding of a merge.

    >>> round_once(torch.tensor([1.001953125]), torch.bfloat16).item()
    1.0
    """
    return tensor.to(dtype)


def merged(
    base: Mapping[str, torch.Tensor], tuned: Sequence[Mapping[str, torch.Tensor]], combine: Combine
) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) in the order of the base, one at a time: peak memory is that of the largest tensor.

    combine: a merging method. Tensors of whole numbers (counters, positions) are the base's own. Running statistics
    of batch normalisation are merged like weights; they are then of no data at all, and want a pass to renew them.
    """
    for i, one in enumerate(tuned):
        for name, tensor in base.items():
            if name not in one or one[name].shape != tensor.shape:
                found = f"shape {tuple(one[name].shape)}" if name in one else "no such tensor"
                raise Unfit(
                    f"tensor `{name}` has shape {tuple(tensor.shape)} in the base and {found} in fine-tune {i + 1}",
                    where=f"merge of {len(tuned)} fine-tunes",
                    fix="merge only fine-tunes of one base",
                )
    for name, tensor in base.items():
        if not tensor.dtype.is_floating_point:
            yield name, tensor.clone()
            continue
        context = TensorContext(name=name, shape=tuple(tensor.shape))
        yield name, round_once(combine(context, tensor.float(), [t[name].float() for t in tuned]), tensor.dtype)


def merged_models(models: Sequence[Model], combine: Combine, base: Mapping[str, torch.Tensor] | None = None) -> Model:
    """Models of one encoder as one, heads too. base: the source's tensors; without them, the first model's.

    A head is merged from a base of zeros, as the source has none. All heads must have the same link.
    """
    links = {m.head.link for m in models}
    if len(links) != 1:
        raise Unfit(
            f"the heads end in {', '.join(sorted(links))}",
            where=f"merge of {len(models)} models",
            fix="merge models of one task",
        )
    tensors = dict(merged(models[0].tensors if base is None else base, [m.tensors for m in models], combine))
    heads = [
        {"weight": torch.from_numpy(m.head.weight), "bias": torch.from_numpy(np.atleast_1d(m.head.bias))}
        for m in models
    ]
    head = dict(merged({n: torch.zeros_like(t) for n, t in heads[0].items()}, heads, combine))
    return Model(tensors, Head(head["weight"].numpy(), head["bias"].numpy(), models[0].head.link))
