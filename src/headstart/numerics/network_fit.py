"""Training a small network from random weights, so that going on from a state equals never having stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.core import State

from .artifacts import Array, Link, Step
from .steps_network import as_images, network, small_network

LINKS: dict[str, Link] = {"single_label": "softmax", "multi_label": "sigmoid", "regression": "identity"}
MOVED = 2  # pixels that a training image is moved by, at most


@dataclass(frozen=True, eq=False, slots=True)
class NetworkFit:
    step: Step
    state: State
    curve: tuple[tuple[int, float, float | None], ...]


def fit_network(
    pixels: Array,
    labels: Array,
    task: str,
    outputs: int,
    *,
    side: int,
    widths: Sequence[int],
    horizon: int,
    until: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    state: State | None = None,
) -> NetworkFit:
    """Steps `state.step` to `until` of a schedule of `horizon` steps, by AdamW; every draw is a function of the step.

    pixels: (rows, side × side × channels), 0 to 1, as the `pixels` step makes them. Numbers are fitted in units of
    their spread, and the last layer of the step then speaks in the label's own unit.
    """
    channels = pixels.shape[1] // side**2
    images = as_images(pixels, side, channels)
    middle, scale = (float(labels.mean()), float(labels.std()) or 1.0) if task == "regression" else (0.0, 1.0)
    wanted = torch.from_numpy(np.asarray(labels)) if task == "single_label" else as_wanted(labels, middle, scale)
    layout = torch.channels_last  # a quarter faster on processors than torch's default
    module = initial(channels, widths, max(outputs, 1), seed).to(memory_format=layout)  # type: ignore[call-overload]  # torch's stubs lack this form
    optimiser = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
    done, curve = restore(state, module, optimiser), []
    module.train()
    for step in range(done, until):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * cycle(step / horizon)
        rows = drawn(len(images), batch, step, seed)
        batch_images = moved(images[rows], step, seed).contiguous(memory_format=layout)
        loss = loss_of(module(batch_images), wanted[rows], task)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation there
        optimiser.step()
        if step % max(1, horizon // 20) == 0 or step == until - 1:
            curve.append((step, float(loss.detach()), None))
    kept = saved(module, optimiser, max(done, until))
    last = module[-1]
    if isinstance(last, torch.nn.Linear):
        with torch.no_grad():
            last.weight.mul_(scale)
            last.bias.mul_(scale).add_(middle)
    made = network(module, side=side, channels=channels, widths=widths, link=LINKS[task])
    return NetworkFit(made, kept, tuple(curve))


def as_wanted(labels: Array, middle: float, scale: float) -> torch.Tensor:
    return torch.from_numpy((np.asarray(labels, dtype=np.float64) - middle) / scale).float()


def initial(channels: int, widths: Sequence[int], outputs: int, seed: int) -> torch.nn.Sequential:
    """He's initial weights, from a generator of their own."""
    with torch.device("meta"):
        module = small_network(channels, widths, outputs)
    module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for layer in module:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            torch.nn.init.ones_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        elif isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
    return module


def drawn(rows: int, batch: int, step: int, seed: int) -> torch.Tensor:
    """The rows of this step: without replacement within an epoch; a last, smaller batch is left out.

    >>> sorted([*drawn(4, 2, 0, 0).tolist(), *drawn(4, 2, 1, 0).tolist()])
    [0, 1, 2, 3]
    """
    epoch, place = divmod(step, max(1, rows // batch))
    order = np.random.default_rng((seed, 1, epoch)).permutation(rows)
    return torch.from_numpy(order[place * batch : (place + 1) * batch])


def moved(images: torch.Tensor, step: int, seed: int) -> torch.Tensor:
    """Each image moved by up to two pixels, its edge repeated. Never mirrored: letters and signs have a right side."""
    side = images.shape[-1]
    down, right = np.random.default_rng((seed, 2, step)).integers(0, 2 * MOVED + 1, (2, len(images)))
    wide = torch.nn.functional.pad(images, (MOVED,) * 4, mode="replicate")
    return torch.stack([w[:, d : d + side, r : r + side] for w, d, r in zip(wide, down, right, strict=True)])


def cycle(at: float) -> float:
    """The learning rate's share at this fraction of the schedule: a rise over a tenth, times half a cosine.

    >>> round(cycle(0.5), 3)
    0.5
    """
    return min(at / 0.1 + 0.05, 1.0) * 0.5 * (1 + math.cos(math.pi * at))


def loss_of(logits: torch.Tensor, wanted: torch.Tensor, task: str) -> torch.Tensor:
    if task == "single_label":
        return torch.nn.functional.cross_entropy(logits, wanted)
    if task == "multi_label":
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    return torch.nn.functional.mse_loss(logits[:, 0], wanted)


def saved(module: torch.nn.Module, optimiser: torch.optim.Optimizer, step: int) -> State:
    tensors = {f"module.{k}": v.clone() for k, v in module.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{k}": v.clone() for k, v in moments.items()}
    return State(step, tensors)


def restore(state: State | None, module: torch.nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Puts module and optimiser where the state was; the step it reached."""
    if state is None:
        return 0
    module.load_state_dict({k[7:]: v for k, v in state.tensors.items() if k.startswith("module.")})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in state.tensors.items():
        if name.startswith("adam."):
            _, number, key = name.split(".")
            moments.setdefault(int(number), {})[key] = tensor.clone()
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    return state.step
