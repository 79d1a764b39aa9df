"""Weights of a model with an adapter on it, read in pieces; no copy of them is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.numerics.delta import Dense, Form, LowRank, applied
from headstart.numerics.made import FLOATS, RAW

from .safetensors_files import WIDTHS, Entry
from .shards import Checkpoint

if TYPE_CHECKING:
    from .model_folders import ModelFolder

BLOCK = 1 << 16  # entries of the rows that are adapted at a time: fixed, for products depend on where they are cut


def reader(folder: ModelFolder) -> Checkpoint:
    """What reads a folder's weights, in the types that `ModelFolder.read_as` says; use it in a `with`."""
    return Adapted(folder.tensors, folder.changes) if folder.changes else Checkpoint(folder.tensors)


class Adapted(Checkpoint):
    """Tensors of a checkpoint, changed as they are read; the changed ones come as float32, of float64 as float64."""

    def __init__(self, tensors: Mapping[str, Entry], changes: Mapping[str, Form]) -> None:
        super().__init__(tensors)
        self._changes = changes

    def place(self, name: str) -> tuple[int, int] | None:
        return None if name in self._changes else super().place(name)

    def read(self, name: str, start: int, into: Any) -> None:
        """Fills a contiguous buffer with the changed tensor's bytes from `start` on."""
        if name not in self._changes:
            super().read(name, start, into)
            return
        kind = np.dtype(np.float64 if self.tensors[name].dtype == "F64" else np.float32)
        out = into.reshape(-1).view(kind)
        shape = self.tensors[name].shape
        wide = prod(shape[1:])
        step = max(1, BLOCK // max(1, wide))
        at = start // kind.itemsize
        for first in range(at // wide // step * step, -(-(at + len(out)) // wide), step):
            rows = self._rows(name, first, min(first + step, shape[0]), wide)
            begin, end = max(at, first * wide), min(at + len(out), first * wide + rows.numel())
            out[begin - at : end - at] = rows[begin - first * wide : end - first * wide].numpy()

    def _rows(self, name: str, first: int, last: int, wide: int) -> torch.Tensor:
        """Changed rows, flat, in float64."""
        entry = self.tensors[name]
        raw = np.empty((last - first) * wide, RAW[entry.dtype])
        super().read(name, first * wide * WIDTHS[entry.dtype], raw)
        before = torch.from_numpy(raw.view(np.uint8)).view(FLOATS[entry.dtype])
        shape = (last - first, *entry.shape[1:])
        return applied(_of_rows(self._changes[name], first, last), before.double().view(shape)).flatten()


def _of_rows(change: Form, first: int, last: int) -> Form:
    if isinstance(change, Dense):
        return Dense(change.values[first:last])
    assert isinstance(change, LowRank)  # adapters have no others
    lengths = change.magnitude[first:last] if change.magnitude is not None else None
    return replace(change, shape=(last - first, *change.shape[1:]), left=change.left[first:last], magnitude=lengths)
