"""Arithmetic that is faster than float32 on some processors: a module in it, and whether it is faster here."""

from __future__ import annotations

import copy
import time
import warnings
from functools import cache
from typing import Literal

import torch
from torch import nn

Dtype = Literal["float32", "bfloat16", "int8", "onnx", "onnx-int8"]
FAST: tuple[Dtype, ...] = ("bfloat16", "int8")
EXPORTED: tuple[Dtype, ...] = ("onnx", "onnx-int8")  # by ONNX Runtime, see `exports`


def lowered(module: nn.Module, dtype: Dtype) -> nn.Module:
    """The module in this arithmetic; it may be changed in place. int8: linear layers alone, weights by output channel,
    inputs by batch."""
    if dtype == "int8":
        with warnings.catch_warnings():  # of its removal one day; the probe then finds it missing
            warnings.simplefilter("ignore")
            from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

            by_channel = {nn.Linear: per_channel_dynamic_qconfig}
            made: nn.Module = quantize_dynamic(module, by_channel, inplace=True)  # type: ignore[no-untyped-call]
        return made
    return module.to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)


@cache
def gain(dtype: Dtype) -> float:
    """How many times faster than float32 a linear layer is on this processor, by a fraction of a second of trying; 0
    where it cannot be computed."""
    layer, rows = nn.Sequential(nn.Linear(512, 1024)), torch.ones(256, 512)
    try:
        fast = lowered(copy.deepcopy(layer), dtype)
        given = rows.to(torch.bfloat16) if dtype == "bfloat16" else rows
        with torch.inference_mode():
            taken = [(_seconds(layer, rows), _seconds(fast, given)) for _ in range(20)]  # by turns: load hits both
        return min(plain for plain, _ in taken) / min(lower for _, lower in taken)
    except (RuntimeError, ImportError, AttributeError, NotImplementedError):  # this build of torch lacks it
        return 0.0


def _seconds(layer: nn.Module, rows: torch.Tensor) -> float:
    begun = time.perf_counter()
    layer(rows)
    return max(time.perf_counter() - begun, 1e-9)
