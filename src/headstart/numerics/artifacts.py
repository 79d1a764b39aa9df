"""What fittings make: data that predicts, with no code of its own.

Four forms. `Head` sits on the features of an untouched source. `Model` is a whole retrained encoder with its head.
`Delta` is a change to a source's weights, with its head. `Table` is a chain of plain steps on the rows themselves,
and needs no source. All are saved without pickle: arrays and tensors as safetensors, the rest as JSON or text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]
Link = Literal["softmax", "sigmoid", "identity"]


def linked(logits: Array, link: Link) -> Array:
    """Logits as probabilities (softmax over the last axis, or sigmoid each), or as they are; float64.

    >>> linked(np.array([[0.0, 0.0]]), "softmax").tolist()
    [[0.5, 0.5]]
    """
    z = np.asarray(logits, dtype=np.float64)
    if link == "identity":
        return z
    if link == "sigmoid":
        return 1 / (1 + np.exp(-z))
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


@dataclass(frozen=True, eq=False, slots=True)
class Head:
    """A linear map from raw features to outputs: weight (outputs, width), bias (outputs,), float32; then the link.

    For regression the head gives values in the label's own unit.
    """

    weight: Array
    bias: Array
    link: Link = "softmax"

    def __call__(self, features: Array) -> Array:
        """(rows, outputs) float64 from features (rows, width)."""
        logits = np.asarray(features, dtype=np.float64) @ self.weight.T.astype(np.float64) + self.bias
        return linked(logits, self.link)


@dataclass(frozen=True, eq=False, slots=True)
class Model:
    """All tensors of a retrained encoder, by the encoder module's own parameter and buffer names, and its head."""

    tensors: Mapping[str, torch.Tensor]
    head: Head


@dataclass(frozen=True, eq=False, slots=True)
class Delta:
    """A change to the source with fingerprint `base`, and the head that goes with it.

    form `lora`: tensors are peft's adapter tensors, config is peft's adapter configuration as JSON values.
    """

    base: str
    form: Literal["lora"]
    tensors: Mapping[str, torch.Tensor]
    config: Mapping[str, Any]
    head: Head


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Step:
    """One step of a `Table`: what it is (a name in `numerics.steps`), its settings, arrays and long texts."""

    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """Steps from rows to (rows, outputs); `numerics.steps.apply` runs them."""

    steps: tuple[Step, ...]


Artifact = Head | Model | Delta | Table
