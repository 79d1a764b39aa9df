"""Low-rank changes: W + (alpha / rank) B A, added to the weights that they were made for."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .artifacts import Delta

PREFIX = "base_model.model."  # peft's, before every name


def merged(weights: Mapping[str, torch.Tensor], delta: Delta) -> dict[str, torch.Tensor]:
    """All tensors of the base with the change added, in float32 and rounded once to the dtype of each.

    weights: by the names of the module that the adapters went into.

    >>> from headstart.numerics.artifacts import Head
    >>> names = ("base_model.model.one.lora_A.weight", "base_model.model.one.lora_B.weight")
    >>> delta = Delta("", "lora", {n: torch.ones(1, 1) for n in names}, {"r": 1, "lora_alpha": 2}, None)
    >>> merged({"one.weight": torch.ones(1, 1)}, delta)["one.weight"].item()
    3.0
    """
    scale = float(delta.config["lora_alpha"]) / float(delta.config["r"])
    out = dict(weights)
    for name, down in delta.tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        up = delta.tensors[name.removesuffix("lora_A.weight") + "lora_B.weight"]
        place = name.removeprefix(PREFIX).removesuffix("lora_A.weight") + "weight"
        base = weights[place]
        change = up.float().flatten(1) @ down.float().flatten(1)  # a convolution's B is 1 × 1
        out[place] = (base.float() + scale * change.view_as(base)).to(base.dtype)
    return out
