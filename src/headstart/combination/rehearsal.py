"""A rehearsal of a merge that reads rows: it sees those that take the most memory, of all that it will ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import ceil

import torch

from headstart.io.encoders import batches
from headstart.numerics.learning import draws

from .live import Ask, LiveMerge, Weights

FEWEST = 100  # batches that are looked at for a method that does not say how many steps it takes


class Heaviest(LiveMerge):
    """Answers with other rows than it is asked for: those of the longest batch that a method draws in all its steps.

    A method learns nothing of worth from it. Where no gradients are kept, all rows are asked for anyway.
    """

    def _answers(
        self, weights: Weights, task: int, rows: Sequence[int], ask: Ask | None = None
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        if torch.is_grad_enabled() and len(rows) < self.rows(task):
            rows = self._drawn(task, len(rows))
        return super()._answers(weights, task, rows, ask)

    def _chunks(self, tasks: Sequence[int], rows: int, single: bool, seed: int) -> Iterator[tuple[int, list[int]]]:
        """The heaviest of all that passes look at."""
        yield max(super()._chunks(tasks, rows, single, seed), key=lambda one: self._tokens(*one))

    def _drawn(self, task: int, size: int) -> list[int]:
        """Rows of the longest batch, as methods draw theirs."""
        method = self.plan.reads
        steps = max(getattr(method, "steps", None) or FEWEST, ceil(self.rows(task) / size))
        every = islice(draws(self.rows(task), size, getattr(method, "seed", 0) + task), steps)
        return max(every, key=lambda rows: self._tokens(task, rows))

    def _tokens(self, task: int, rows: Sequence[int]) -> int:
        """Of some rows, padded as they are when they are read together."""
        keys = [self.keys(task)[r] for r in rows]
        return sum(len(some) * max(keys[i][0] for i in some) for some in batches(keys))
