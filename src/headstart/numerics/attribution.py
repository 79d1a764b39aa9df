"""What an output owes to each place of an input: gradient times input, summed over channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.core import Encoder

from .artifacts import Head
from .row_gradients import eval_mode, logits

if TYPE_CHECKING:
    import pyarrow as pa

Array = np.ndarray[Any, Any]
CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def places(encoder: Encoder, head: Head, inputs: pa.Table, row: int) -> Array:
    """(places,) float64 of one row: what its likeliest class, above the mean of all, owes to each token or patch;
    of a head with one output, what that owes.

    Places are those of the first layer with weights that the row goes through: words of a word table, patches of a
    convolution, and the numbers themselves, one after another, where it is a linear layer of a flat input.
    """
    held: list[torch.Tensor] = []
    first: list[torch.nn.Module] = []

    def keep(part: torch.nn.Module, _: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor | None:
        if held:
            return None
        first.append(part)
        out = made.detach().requires_grad_(True)
        held.append(out)
        return out

    hooks = [
        part.register_forward_hook(keep)
        for part in encoder.module.modules()
        if not list(part.children()) and list(part.parameters(recurse=False))
    ]
    try:
        with eval_mode(encoder.module), torch.enable_grad():
            found = logits(encoder, head, inputs, row)[0]
            said = found.max() - found.mean() if len(found) > 1 else found[0]
            said.backward()  # type: ignore[no-untyped-call]  # torch
    finally:
        for hook in hooks:
            hook.remove()
        encoder.module.zero_grad(set_to_none=True)
    made = held[0]
    assert made.grad is not None
    owed = (made.grad.double() * made.detach().double())[0]
    if isinstance(first[0], torch.nn.Embedding):  # models with windows of attention fill the last one up by themselves
        owed = owed[: encoder.costs(inputs)[row]]
    if owed.ndim > 1:
        owed = owed.sum(dim=0 if isinstance(first[0], CONVOLUTIONS) else -1)
    return owed.flatten().cpu().numpy()
