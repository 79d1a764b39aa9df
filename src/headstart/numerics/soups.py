"""Soups: which fine-tunes to average, and the average itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from headstart.core import TensorContext, Unfit

from .artifacts import Head, Model
from .changes import Combine


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
    taken: tuple[int, ...] = (order[0],)
    best = score(taken)
    for i in order[1:]:
        with_it = score((*taken, i))
        if with_it >= best:
            taken, best = (*taken, i), with_it
    return taken


def soup(base: Mapping[str, torch.Tensor], models: Sequence[Model], combine: Combine, seed: int = 0) -> Model:
    """Fine-tunes of one encoder as one model: their tensors by a merging method, and the mean of their heads.

    base: the encoder's own tensors. What not all models have, and whole numbers such as counters, are the first model's
    that has them, else the base's. Running statistics of batch normalisation are merged like weights; they are then of
    no data at all, and want a pass to renew them. Tensors are combined in float32 and rounded once.
    """
    links = {m.head.link for m in models}
    if len(links) != 1:
        raise Unfit(
            f"the heads end in {', '.join(sorted(links))}",
            where=f"merge of {len(models)} models",
            fix="merge models of one task",
        )
    tensors = {}
    for name, own in base.items():
        tuned = [m.tensors[name] for m in models if name in m.tensors]
        context = TensorContext(name=name, shape=tuple(own.shape), seed=seed)
        whole = len(tuned) == len(models) and own.is_floating_point()
        merged = combine(context, own.float(), [t.float() for t in tuned]) if whole else (tuned or [own])[0]
        tensors[name] = merged.to(own.dtype)
    weight, bias = (
        np.stack(parts).mean(axis=0, dtype=np.float64).astype(np.float32)
        for parts in ([m.head.weight for m in models], [m.head.bias for m in models])
    )
    return Model(tensors, Head(weight, bias, models[0].head.link))
