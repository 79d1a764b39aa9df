"""One vector for an input, from the body of a model with a head: the same whichever head is on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from headstart.core import Unfit


def state(
    module: nn.Module, body: nn.Module, weights: Mapping[str, torch.Tensor], called: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """(rows, width) mean of the body's last states. module: is called, with weights in the place of its own.

    body: a part of it, whose answer has the states as `last_hidden_state`.
    """
    held: list[Any] = []
    hook = body.register_forward_hook(lambda _module, _given, answer: held.append(answer))
    try:
        functional_call(module, dict(weights), (), dict(called))
    finally:
        hook.remove()
    if not hasattr(held[0], "last_hidden_state"):
        raise Unfit(
            f"the body of `{type(module).__name__}` gives no last states",
            where="states of a model's inputs",
            fix="use a method that reads none, such as `task_arithmetic` with --heads separate",
        )
    return pooled(held[0].last_hidden_state, called.get("attention_mask"))


def pooled(states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over the tokens (rows, tokens, width) that count, or over the places of a map (rows, width, high, wide).

    >>> pooled(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[1, 1, 0]])).tolist()
    [[2.0]]
    """
    if states.dim() == 2:
        return states
    if states.dim() == 4:
        return states.mean(dim=(2, 3))
    if mask is None:
        return states.mean(dim=1)
    counts = mask.to(states.dtype)[:, :, None]
    return (states * counts).sum(dim=1) / counts.sum(dim=1).clamp_min(1)
