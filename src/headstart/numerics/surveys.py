"""What is summed and counted over whole tensors before their tiles are combined: products, and values in their order.

Counts are of whole numbers, and sums of fixed blocks: where tiles are cut changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum, prod
from threading import Lock
from typing import Any

import numpy as np
import torch

from headstart.core import TensorContext

from . import scratch, tiles
from .changes import Combine, SizeOf
from .made import SUM_BLOCK, TILE, Array, Made, Reads, Room, Tensors, decomposing
from .order import Order, order


class Inner:
    """Inner products of one tensor's versions, summed over fixed blocks by one thread when first asked for."""

    def __init__(self, source: Tensors, room: Room) -> None:
        self._source, self._room = source, room
        self._known: dict[tuple[str, str], Array] = {}

    @property
    def models(self) -> int:
        return len(self._source.made.tuned)

    def weights(self, per: str = "tensor") -> Array:
        return self._asked("weights", per)

    def changes(self, per: str = "tensor") -> Array:
        return self._asked("changes", per)

    def _asked(self, of: str, per: str) -> Array:
        if (of, per) not in self._known:
            split = {"row": self._by_row, "column": self._by_column}.get(per, self._of_all)
            self._known[of, per] = (split if len(self._source.made.shape) > 1 else self._of_all)(of)
        return self._known[of, per]

    def _of_all(self, of: str) -> Array:
        """Sums over fixed blocks, which are then added up: where tiles are cut changes no bit."""
        size, models = self._source.made.size, self.models
        sums = np.zeros((-(-size // SUM_BLOCK), models, models))
        for begin in range(0, size, TILE):
            x = self._read(of, begin, min(begin + TILE, size))
            for start in range(0, x.shape[1], SUM_BLOCK):
                block = x[:, start : start + SUM_BLOCK]
                at = sums[(begin + start) // SUM_BLOCK]
                for i in range(models):
                    for j in range(i + 1):
                        at[i, j] = at[j, i] = tiles.product(block[i], block[j])
        return np.asarray(sums.sum(axis=0, keepdims=True))

    def _by_row(self, of: str) -> Array:
        sums = np.zeros((self._source.made.shape[0], self.models, self.models))
        for row, _, x in self._pieces(of):
            sums[row] += np.einsum("in,jn->ij", x, x, dtype=np.float64)
        return sums

    def _by_column(self, of: str) -> Array:
        sums = np.zeros((prod(self._source.made.shape[1:]), self.models, self.models))
        for _, start, x in self._pieces(of):
            wide = x.astype(np.float64)
            sums[start : start + x.shape[1]] += np.einsum("in,jn->nij", wide, wide)
        return sums

    def _pieces(self, of: str) -> Iterator[tuple[int, int, Array]]:
        """Row by row: its number, the first column, and (models, columns) from there on."""
        rows, *rest = self._source.made.shape
        wide = prod(rest)
        for row in range(rows):
            for start in range(0, wide, TILE):
                yield row, start, self._read(of, row * wide + start, row * wide + min(start + TILE, wide))

    def _read(self, of: str, start: int, stop: int) -> Array:
        source, made = self._source, self._source.made
        dtype = np.float64 if made.exact else np.float32  # products are float64 either way
        x = self._room.of("inner", (self.models, stop - start), dtype)
        for row, part in zip(x, made.tuned, strict=True):
            row[:] = source.floats(part, start, stop, self._room, "one", dtype)
        if of == "changes":
            with np.errstate(invalid="ignore"):  # of two infinities
                x -= source.floats(made.base, start, stop, self._room, "base", dtype)
        if not np.isfinite(x).all():  # an infinity would be the length of all the rest
            x[~np.isfinite(x)] = 0
        return x


class Survey:
    """Order statistics over all tiles of some tensors, counted in whole numbers, and so exact."""

    def __init__(
        self, made: Sequence[Made], readers: Sequence[Reads], seed: int, threads: int, tile: int,
        room: Room | None = None,
    ) -> None:  # fmt: skip
        self._made = sorted(made, key=lambda m: m.name)
        self._sources = [Tensors(m, readers, seed) for m in self._made]
        self._threads, self._tile = 1 if any(m.alone(tile) for m in made) else threads, tile
        self._room = room  # of the one thread that makes all passes

    @property
    def models(self) -> int:
        return len(self._made[0].tuned)

    @cached_property
    def _cuts(self) -> list[tuple[int, int, int]]:
        """(tensor, start, stop) of all tiles, in the order in which equal values are chosen."""
        steps = [made.step(self._tile) for made in self._made]
        return [
            (number, start, min(start + steps[number], made.size))
            for number, made in enumerate(self._made)
            for start in range(0, made.size, steps[number])
        ]

    @property
    def entries(self) -> int:
        return sum(m.size for m in self._made)

    def ranked(self, values: Sequence[Combine], ranks: Sequence[int]) -> Array:
        return np.array([found.value for found in self._ordered(values, list(enumerate(ranks)))])

    def largest(self, values: Sequence[Combine], fractions: Sequence[float]) -> list[Chosen]:
        total = self.entries
        counts = [round(fraction * total) for fraction in fractions]
        if all(fraction in (0, 1) for fraction in fractions):
            return [ALL if count else NONE for count in counts]
        distinct = [v for at, v in enumerate(values) if v not in values[:at]]
        wanted = [(distinct.index(v), max(0, total - count)) for v, count in zip(values, counts, strict=True)]
        found = self._ordered(distinct, wanted)
        ties = self._ties(distinct, [function for function, _ in wanted], found)
        names = [(self._made[number].name, start) for number, start, _ in self._cuts]
        chosen = []
        for f, one in enumerate(found):
            left = one.upto - (total - counts[f]) - (np.cumsum(ties[f]) - ties[f])  # when a tile's turn comes
            quotas = np.where(left >= ties[f], -1, np.maximum(left, 0))
            some = Chosen(one.value, dict(zip(names, quotas.tolist(), strict=True)))
            chosen.append(NONE if counts[f] == 0 else ALL if counts[f] == total else some)
        return chosen

    def sums(self, values: Sequence[Combine]) -> Array:
        found: list[dict[int, list[float]]] = [{} for _ in values]

        def add(f: int, cut: int, v: Array, _: Any) -> None:
            # sums of fixed blocks, which exact addition then joins: tiles change no bit of them
            block = self._made[self._cuts[cut][0]].block
            found[f][cut] = np.add.reduceat(v, range(0, len(v), block), dtype=np.float64).tolist()

        self._pass(values, add, lambda: None)
        return np.array([fsum(x for blocks in one.values() for x in blocks) for one in found])

    def _ordered(self, values: Sequence[Combine], wanted: Sequence[tuple[int, int]]) -> list[Order]:
        def counted(count: Callable[[int, Array, Any], None], room: Callable[[], Any]) -> list[Any]:
            return self._pass(values, lambda f, _, v, held: count(f, v.astype(np.float32, copy=False), held), room)

        return order(counted, wanted, len(values))

    def _ties(self, values: Sequence[Combine], functions: Sequence[int], found: Sequence[Order]) -> Array:
        """(found, tiles): how many values of its function equal the threshold."""
        ties = np.zeros((len(found), len(self._cuts)), np.int64)

        def count(f: int, cut: int, v: Array, _: Any) -> None:
            for at, (function, one) in enumerate(zip(functions, found, strict=True)):
                if function == f:
                    ties[at, cut] = tiles.count_equal(v.astype(np.float32, copy=False), np.float32(one.value))

        self._pass(values, count, lambda: None)
        return ties

    def _pass(
        self, values: Sequence[Combine], see: Callable[[int, int, Array, Any], None], held: Callable[[], Any]
    ) -> list[Any]:
        """Every function's values of every tile go to `see` with what the thread holds; gives what each thread held."""
        cuts, lock = iter(range(len(self._cuts))), Lock()
        asked = _sizes_of(values)

        def work() -> Any:
            room, mine = self._room or Room(), held()
            while True:
                with lock:
                    cut = next(cuts, None)
                if cut is None:
                    return mine
                number, start, stop = self._cuts[cut]
                source = self._sources[number]
                if asked is not None:
                    for model, v in zip(asked, source.sizes(list(asked), start, stop, room), strict=True):
                        for f in asked[model]:
                            see(f, cut, v, mine)
                    continue
                base, tuned, _ = source.torch(start, stop, room)
                for f, function in enumerate(values):
                    with scratch.tile(), decomposing(source.made.name, (base, *tuned)):
                        v = function(source.context(start), base, tuned).contiguous().view(-1).numpy()
                        see(f, cut, v, mine)

        if self._room is not None:
            return [work()]
        with ThreadPoolExecutor(max(1, self._threads)) as pool:
            return [job.result() for job in [pool.submit(work) for _ in range(max(1, self._threads))]]


def _sizes_of(values: Sequence[Combine]) -> dict[int, list[int]] | None:
    """Model -> which of the functions are sizes of its changes; None unless all are such."""
    found: dict[int, list[int]] = {}
    for f, function in enumerate(values):
        if not isinstance(function, SizeOf):
            return None
        found.setdefault(function.model, []).append(f)
    return found


@dataclass(frozen=True, eq=False, slots=True)
class Chosen:
    """A selection: all above a value, and of those equal to it the tile's quota, first come first; -1 for all."""

    threshold: float
    quotas: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def __call__(self, context: TensorContext, values: torch.Tensor) -> torch.Tensor:
        out = scratch.empty(values.numel(), np.bool_)
        flat = values.float().contiguous().view(-1).numpy()
        tiles.largest(flat, np.float32(self.threshold), self.cut(context)[1], out)
        return torch.from_numpy(out).view(values.shape)

    def changes(self, context: TensorContext, base: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
        flat = base.contiguous().view(-1).numpy()
        if flat.dtype != np.float32:  # sizes are looked at in float32
            return torch.where(self(context, (one - base).abs()), one - base, 0)
        out = scratch.empty(len(flat), flat.dtype)
        tiles.keep(one.contiguous().view(-1).numpy(), flat, np.float32(self.threshold), self.cut(context)[1], out)
        return torch.from_numpy(out).view(base.shape)

    def cut(self, context: TensorContext) -> tuple[float, int]:
        return self.threshold, self.quotas.get((context.name, context.offset), 0)


ALL, NONE = Chosen(-1.0), Chosen(float("inf"))
