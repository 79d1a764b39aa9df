"""What a merge will read, found by asking its method with nothing at hand: passes are counted, no weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.core import TensorContext

from .changes import Combine
from .made import Made, Part

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class _DryInner:
    """Vectors at right angles; notes what was asked."""

    models: int
    rows: int
    weights_asked: bool = False
    changes_asked: bool = False

    def weights(self, per: str = "tensor") -> Array:
        self.weights_asked = True
        return self._products(per)

    def changes(self, per: str = "tensor") -> Array:
        self.changes_asked = True
        return self._products(per)

    def _products(self, per: str) -> Array:
        groups = self.rows if per == "row" else 1
        return np.broadcast_to(np.eye(self.models), (groups, self.models, self.models)).copy()


@dataclass(slots=True)
class _DrySurvey:
    """Answers that choose nothing, of values that are 1; counts passes as the survey of the stream makes them."""

    models: int
    entries: int
    passes: int = 0

    def largest(self, values: Sequence[Combine], fractions: Sequence[float]) -> list[Any]:
        self.passes += 3 if any(0 < f < 1 for f in fractions) else 0
        return [_Nothing()] * len(values)

    def ranked(self, values: Sequence[Combine], ranks: Sequence[int]) -> Array:
        self.passes += 2
        return np.zeros(min(len(values), len(ranks)))

    def sums(self, values: Sequence[Combine]) -> Array:
        self.passes += 1
        return np.full(len(values), float(self.entries))


class _Nothing:
    def __call__(self, context: TensorContext, values: torch.Tensor) -> torch.Tensor:
        del context
        return torch.zeros_like(values, dtype=torch.bool)

    def changes(self, context: TensorContext, base: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
        del context, one
        return torch.zeros_like(base)

    def cut(self, context: TensorContext) -> tuple[float, int]:
        del context
        return 0.0, 0


def bytes_read(made: Sequence[Made], widths: dict[str, int]) -> int:
    """Bytes that making these tensors reads, all passes together. widths: bytes of an entry by type."""
    return sum(_of_one(one, widths) for one in made)


def _of_one(made: Made, widths: dict[str, int]) -> int:
    each = [_of_part(made, p, widths) for p in made.tuned]
    tuned = sum(each)
    base = _of_part(made, made.base, widths) if made.base is not None else 0
    if made.method is None or not made.size:
        return base or each[0]
    if made.kind == "merging":
        return base + tuned
    if made.kind == "trimming":
        survey = _DrySurvey(len(made.tuned), made.size)
        made.method(survey)
        return (base + tuned) * (1 + survey.passes)
    inner = _DryInner(len(made.tuned), made.shape[0] if len(made.shape) > 1 else 1)
    said = made.method(TensorContext(name=made.name, shape=made.shape), inner)
    used: Array = np.asarray(np.atleast_2d(said.values).any(axis=0))
    if inner.weights_asked or inner.changes_asked:
        used[:] = True
    last = sum(size for size, u in zip(each, used, strict=True) if u)
    last += base if said.of == "changes" else 0
    return last + tuned * inner.weights_asked + (tuned + base) * inner.changes_asked


def _of_part(made: Made, part: Part, widths: dict[str, int]) -> int:
    """One reading of a part; rows that it lacks are read of all owners, and all once more for a mean that pads."""
    if part.rows is None:
        return made.size * widths[part.dtype]
    lacks = part.rows < 0
    read = int((~lacks).sum()) * widths[part.dtype]
    for owner in part.owners:
        has = lacks if owner.rows is None else lacks & (owner.rows >= 0)
        read += int(has.sum()) * widths[owner.dtype]
    return read * (made.size // max(1, len(part.rows))) * (1 if part.padded is None else 2)
