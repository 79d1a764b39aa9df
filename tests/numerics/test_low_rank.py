"""Low-rank changes: against peft's own merge."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig, get_peft_model

from headstart.numerics.artifacts import Delta, Head
from headstart.numerics.low_rank import merged


def test_merged_equals_peft_for_linear_layers_and_convolutions() -> None:
    base = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Flatten(), torch.nn.Linear(4, 3))
    config = LoraConfig(r=2, lora_alpha=6, target_modules=["0", "2"])
    adapted = get_peft_model(copy.deepcopy(base), config)
    g = torch.Generator().manual_seed(0)
    tensors = {}
    for name, p in adapted.named_parameters():
        if "lora_" in name:
            p.data = torch.randn(p.shape, generator=g)
            tensors[name.replace(".default", "")] = p.data.clone()
    delta = Delta(
        "", "lora", tensors, {"r": 2, "lora_alpha": 6}, Head(torch.zeros(1, 3).numpy(), torch.zeros(1).numpy())
    )
    ours = merged(base.state_dict(), delta)
    theirs = adapted.merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name])
