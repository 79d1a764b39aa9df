"""What is put between the layers of a model: a correction before its head, mixtures of what several models changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from .passes import sites
from .routers import Layers, fit_together, through


@dataclass(frozen=True, eq=False, slots=True)
class Correction:
    """down (rank, width), up (width, rank): what is taken from the vectors that go into a head."""

    down: torch.Tensor
    up: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """features (rows, width)

        >>> Correction(torch.eye(2), torch.eye(2))(torch.tensor([[1.0, -1.0]])).tolist()
        [[0.0, -1.0]]
        """
        return features - torch.relu(features @ self.down.T) @ self.up.T


@dataclass(frozen=True, eq=False, slots=True)
class Mixture:
    """Linear layers that follow each other, to which an input adds as much of each model's change as its gates say.

    tensors: names of their weights and biases, in the order of the layers. layers: of the gates, (weight, bias) of
    each, ReLU between them, from what goes into the first layer to one number a model.
    """

    tensors: tuple[str, ...]
    layers: Layers

    def gates(self, inputs: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(rows, models), the mean over the tokens of a row that count. inputs: (rows, …, width); mask: (rows, …)."""
        each = through(self.layers, inputs)
        each = each.reshape(len(each), -1, each.shape[-1])
        if mask is None or mask.shape != inputs.shape[:-1]:
            return each.mean(dim=1)
        counts = mask.reshape(len(each), -1, 1).to(each.dtype)
        return (each * counts).sum(dim=1) / counts.sum(dim=1).clamp_min(1)


def tensors_of(mixtures: Sequence[Mixture], corrections: Sequence[Correction | None]) -> dict[str, torch.Tensor]:
    """All that they hold, by name: `gates.0.1.weight` is of the first mixture's second layer, `task.0.up` of a task."""
    out: dict[str, torch.Tensor] = {}
    for number, mixture in enumerate(mixtures):
        for depth, (weight, bias) in enumerate(mixture.layers):
            out |= {f"gates.{number}.{depth}.weight": weight, f"gates.{number}.{depth}.bias": bias}
    for task, correction in enumerate(corrections):
        if correction is not None:
            out |= {f"task.{task}.down": correction.down, f"task.{task}.up": correction.up}
    return out


def inserts_of(
    tensors: Mapping[str, torch.Tensor], blocks: Sequence[Sequence[str]], tasks: int
) -> tuple[list[Mixture], list[Correction | None]]:
    """The inverse of `tensors_of`. blocks: tensors of each mixture.

    Raises ValueError for tensors that do not fit together.
    """
    if any(t.dtype != torch.float32 or not bool(t.isfinite().all()) for t in tensors.values()):
        raise ValueError("a tensor is not float32, or not finite")
    left = dict(tensors)
    mixtures = []
    for number, names in enumerate(blocks):
        depth = sum(n.startswith(f"gates.{number}.") and n.endswith(".weight") for n in left)
        parts = [[left.pop(f"gates.{number}.{i}.{p}", None) for p in ("weight", "bias")] for i in range(depth)]
        layers = tuple((w, b) for w, b in parts if w is not None and b is not None)
        if not layers or len(layers) != depth or not fit_together(layers) or len(layers[-1][1]) != tasks:
            raise ValueError(f"the gates of block {number + 1} do not fit together")
        mixtures.append(Mixture(tuple(names), layers))
    corrections: list[Correction | None] = []
    for task in range(tasks):
        down, up = left.pop(f"task.{task}.down", None), left.pop(f"task.{task}.up", None)
        if (down is None) != (up is None) or (down is not None and up is not None and down.T.shape != up.shape):
            raise ValueError(f"the correction of task {task + 1} does not fit together")
        corrections.append(None if down is None or up is None else Correction(down, up))
    if left:
        raise ValueError(f"there is no place for `{min(left)}`")
    return mixtures, corrections


@dataclass(eq=False, slots=True)
class Inserted:
    """Puts mixtures and a correction into a module for as long as a `with` lasts; `mask` says which tokens count.

    mixtures: with tensors by the module's names. changes: of each model, by the same names. head: name of the weight
    of the layer before which a correction goes.
    """

    module: nn.Module
    mixtures: Sequence[Mixture] = ()
    changes: Sequence[Mapping[str, torch.Tensor]] = ()
    correction: Correction | None = None
    head: str = ""
    mask: torch.Tensor | None = None
    _hooks: list[Any] = field(default_factory=list)

    def __enter__(self) -> Self:
        places = sites(self.module)
        for mixture in self.mixtures:
            gates: dict[str, torch.Tensor] = {}
            weights = [n for n in mixture.tensors if n in places]
            for number, name in enumerate(weights):
                layer, transposed = places[name]
                hook = self._mixing(mixture, gates, name, transposed=transposed, first=number == 0)
                self._hooks.append(layer.register_forward_hook(hook))
        if self.correction is not None:
            correct = self.correction
            self._hooks.append(
                places[self.head][0].register_forward_pre_hook(lambda _, given: (correct(given[0]), *given[1:]))
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _mixing(
        self, mixture: Mixture, gates: dict[str, torch.Tensor], name: str, *, transposed: bool, first: bool
    ) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]:
        bias = name.removesuffix("weight") + "bias"

        def add(_: nn.Module, given: tuple[Any, ...], out: torch.Tensor) -> torch.Tensor:
            x = given[0]
            if first:
                gates["now"] = mixture.gates(x, self.mask)
            shape = (-1, *[1] * (out.dim() - 1))
            for number, changes in enumerate(self.changes):
                if name not in changes and bias not in changes:
                    continue
                more = torch.zeros(())
                if name in changes:
                    more = x @ (changes[name] if transposed else changes[name].T)
                out = out + gates["now"][:, number].view(shape) * (more + changes.get(bias, torch.zeros(())))
            return out

        return add


def blocks(order: Sequence[str], shapes: Mapping[str, tuple[int, int]]) -> list[tuple[str, ...]]:
    """Feed-forward blocks among linear layers: some that widen the same vector, and then one that narrows it again.

    order: names in the order in which they are called. shapes: (inputs, outputs) of each.

    >>> blocks("qkvofgd", dict.fromkeys("qkvo", (8, 8)) | {"f": (8, 32), "g": (8, 32), "d": (32, 8)})
    [('f', 'g', 'd')]
    """
    found: list[tuple[str, ...]] = []
    wide: list[str] = []
    for name in order:
        inputs, outputs = shapes[name]
        if wide and shapes[wide[-1]] == (outputs, inputs):
            found.append((*wide, name))
            wide = []
        elif outputs > inputs:
            wide = [*wide, name] if wide and shapes[wide[-1]] == (inputs, outputs) else [name]
        else:
            wide = []
    return found
