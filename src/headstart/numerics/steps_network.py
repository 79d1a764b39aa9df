"""The `network` step: a small convolutional network whose weights are plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .artifacts import Array, Link, Step, linked
from .steps import Matrix

BATCH = 16  # always this many rows at a time, so that predictions do not depend on how many are asked


def small_network(channels: int, widths: Sequence[int], outputs: int) -> torch.nn.Sequential:
    """Convolutions 3 × 3 with batch normalisation, halved after each; the mean over places; one linear layer.

    >>> sum(p.numel() for p in small_network(1, (8,), 2).parameters())
    106
    """
    layers: list[torch.nn.Module] = []
    for before, width in zip((channels, *widths[:-1]), widths, strict=True):
        layers += [torch.nn.Conv2d(before, width, 3, padding=1, bias=False), torch.nn.BatchNorm2d(width)]
        layers += [torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(widths[-1], outputs)]
    return torch.nn.Sequential(*layers)


def network(module: torch.nn.Module, *, side: int, channels: int, widths: Sequence[int], link: Link) -> Step:
    """The module's tensors as a step; it reads the matrix that `pixels` made."""
    settings: dict[str, Any] = {"side": side, "channels": channels, "widths": list(widths), "link": link}
    return Step(kind="network", settings=settings, arrays={k: v.numpy().copy() for k, v in module.state_dict().items()})


def as_images(x: Array, side: int, channels: int) -> torch.Tensor:
    """(rows, channels, side, side) float32, near -1 to 1, from rows of pixels in 0 to 1."""
    images = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).view(len(x), side, side, channels)
    return images.permute(0, 3, 1, 2).contiguous() * 2 - 1


def run_network(step: Step, x: Matrix) -> Matrix:
    settings = step.settings
    side, channels, widths = int(settings["side"]), int(settings["channels"]), settings["widths"]
    tensors = {k: torch.from_numpy(v.copy()) for k, v in step.arrays.items()}
    outputs = len(tensors[f"{4 * len(widths) + 2}.bias"])
    with torch.device("meta"):  # built without drawing random weights
        module = small_network(channels, widths, outputs)
    module.load_state_dict(tensors, assign=True)
    module.eval()
    images, parts = as_images(x, side, channels), []
    with torch.no_grad():
        for i in range(0, len(images), BATCH):
            part = images[i : i + BATCH]
            short = BATCH - len(part)
            parts.append(module(torch.cat([part, part.new_zeros(short, *part.shape[1:])]))[: len(part)].numpy())
    return linked(np.concatenate(parts) if parts else np.zeros((0, outputs)), settings["link"])
