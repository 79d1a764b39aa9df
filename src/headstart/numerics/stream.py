"""The stream: weights of several models become one, tile by tile, in memory that does not grow with the model.

A tile is read, combined and written by one thread, and several threads work side by side, so that disk and processor
are busy at once. What becomes of an entry follows from its own numbers, from where it lies, and from what was summed
over fixed blocks or counted in whole numbers: neither the size of tiles, nor threads, nor a restart changes a bit.

16-bit results are summed in float32, wider ones in float64; each is rounded once, at its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Condition, Lock
from typing import Any

import numpy as np
import torch

from headstart.core import Coefficients

from . import scratch, tiles
from .changes import Combine
from .made import (
    PIECE,
    RAW,
    TILE,
    Array,
    Files,
    Made,
    Part,
    Reads,
    Room,
    Tensors,
    Writes,
    all_finite,
    decomposing,
    rounded,
)  # fmt: skip
from .surveys import Inner, Survey


class Stopped(Exception):
    """Whoever is told of progress asked to stop."""


def run(
    made: Sequence[Made],
    readers: Sequence[Reads],
    writer: Writes,
    *,
    done: Collection[str] = (),
    seed: int = 0,
    threads: int = 2,
    tile: int = TILE,
    report: Callable[[int], bool] = lambda _: True,
) -> set[str]:
    """Makes all tensors but those in `done`; tells which of them hold, or were made of, numbers that are not finite.

    report: is told of bytes as they are written, and may say False to stop. Raises `Stopped` then, and whatever a
    reader, a writer or a method raises.
    """
    surveyed = {
        key: group[0].method(Survey(group, readers, seed, threads, tile))
        for key, group in _together([m for m in made if m.kind == "trimming" and m.method is not None and m.size])
    }
    left = [m for m in made if m.name not in done]
    crew = _Crew(left, readers, writer, surveyed, seed, tile, report)
    crew.work(threads)
    return crew.odd


def _together(made: Sequence[Made]) -> Iterator[tuple[Any, list[Made]]]:
    """Tensors that one survey covers, by method; those that are surveyed alone are no group."""
    groups: dict[Any, list[Made]] = {}
    for one in made:
        if one.method.trim == "model":
            groups.setdefault(_key(one), []).append(one)
    yield from groups.items()


def _key(made: Made) -> Any:
    return made.method, len(made.tuned)


class _Crew:
    """Threads that take tiles, or where there are none, the next tensor, which they cut into tiles."""

    def __init__(
        self, made: Sequence[Made], readers: Sequence[Reads], writer: Writes, surveyed: Mapping[Any, Combine],
        seed: int, tile: int, report: Callable[[int], bool],
    ) -> None:  # fmt: skip
        self._tensors, self._readers, self._writer = iter(made), readers, writer
        self._surveyed, self._seed, self._tile, self._report = surveyed, seed, tile, report
        self._place = writer.place if isinstance(writer, Files) else None
        self._tiles: deque[tuple[_Maker, int, int]] = deque()
        self._cutting = 0  # tensors that are being prepared
        self._changed = Condition()
        self._alone = Lock()
        self._failed: BaseException | None = None
        self.odd: set[str] = set()  # tensors that hold, or were made of, numbers that are not finite

    def work(self, threads: int) -> None:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            jobs = [pool.submit(self._one) for _ in range(max(1, threads))]
            try:
                for job in jobs:
                    job.result()
            except BaseException as error:
                self._fail(error)
                raise
        if self._failed is not None:
            raise self._failed

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failed = self._failed or error
            self._changed.notify_all()

    def _one(self) -> None:
        room = Room()
        try:
            while (task := self._next()) is not None:
                if isinstance(task, Made):
                    self._cut(task, room)
                else:
                    self._make(*task, room)
        except BaseException as error:  # noqa: BLE001  # told to the others, so that they stop; `work` raises it
            self._fail(error)

    def _next(self) -> Made | tuple[_Maker, int, int] | None:
        with self._changed:
            while self._failed is None:
                if self._tiles:
                    return self._tiles.popleft()
                tensor = next(self._tensors, None)
                if tensor is not None:
                    self._cutting += 1
                    return tensor
                if not self._cutting:
                    return None
                self._changed.wait()
        return None

    def _cut(self, made: Made, room: Room) -> None:
        maker = _maker(made, self._readers, self._surveyed, self._seed, self._tile, room)
        step = made.step(self._tile)
        cuts = [(maker, start, min(start + step, made.size)) for start in range(0, max(1, made.size), step)]
        with self._changed:
            maker.left = len(cuts)
            self._tiles.extend(cuts)
            self._cutting -= 1
            self._changed.notify_all()

    def _make(self, maker: _Maker, start: int, stop: int, room: Room) -> None:
        made = maker.made
        said = tiles.FAILED
        if isinstance(maker.make, _Fused) and self._place is not None:
            said = maker.make.piped(self._place(made.name), start, stop, room)
        if said == tiles.FAILED:  # in steps, which tell what failed
            if made.alone(self._tile):
                with self._alone:
                    data = maker.make(start, stop, Room())  # what it takes is given back at once
            else:
                data = maker.make(start, stop, room)
            self._writer.write(made.name, start * made.width, data)
            said = tiles.FINE if all_finite(data, made.dtype) else tiles.ODD
        odd = said == tiles.ODD or maker.source.odd  # what is trimmed away is no more in what was made
        with self._changed:
            if odd:
                self.odd.add(made.name)
            maker.left -= 1
            last = maker.left == 0
            if not self._report((stop - start) * made.width):
                self._failed = self._failed or Stopped()
        if last:
            self._writer.finish(made.name, made.bytes)


class _Maker:
    """How one tensor's tiles are made: bytes of entries [start, stop)."""

    def __init__(self, source: Tensors, make: Callable[[int, int, Room], Any]) -> None:
        self.made, self.source, self.make, self.left = source.made, source, make, 0


def _maker(
    made: Made, readers: Sequence[Reads], surveyed: Mapping[Any, Combine], seed: int, tile: int, room: Room
) -> _Maker:
    source = Tensors(made, readers, seed)
    if made.method is None or not made.size:
        return _Maker(source, source.copied)
    if made.kind == "weighting":
        inner = Inner(source, room)
        return _Maker(source, _weighted(source, made.method(source.context(0), inner)))
    if made.kind == "trimming":
        combine = surveyed.get(_key(made)) if made.method.trim == "model" else None
        if combine is None:
            combine = made.method(Survey([made], readers, seed, 1, tile, None if made.alone(tile) else room))
    else:
        combine = made.method
    return _Maker(source, _combined(source, combine))


def _combined(source: Tensors, combine: Combine) -> Callable[[int, int, Room], Any]:
    made = source.made

    def make(start: int, stop: int, room: Room) -> Array:
        base, tuned, odd = source.torch(start, stop, room)
        with scratch.tile():
            with decomposing(made.name, (base, *tuned)):
                out = combine(source.context(start), base, tuned).contiguous()
            tiles.settle(base.view(-1).numpy(), out.view(-1).numpy())
            if odd is not None:
                kept = torch.from_numpy(source.floats(made.base, start, stop, room, "kept", base.numpy().dtype))
                out = torch.where(odd, kept.view(out.shape), out)
            if made.dtype == "BF16" and out.dtype == torch.float32:
                data = room.of("narrow", (stop - start,), np.uint16)
                tiles.narrow(out.view(-1).numpy(), data)
                return data
            return rounded(out, made.dtype)

    return make


def _weighted(source: Tensors, said: Coefficients) -> Callable[[int, int, Room], Any]:
    """The sum that coefficients describe. A model with coefficient 0 is not read."""
    made = source.made
    values = np.atleast_2d(np.asarray(said.values, dtype=np.float64))
    used = [k for k in range(len(made.tuned)) if values[:, k].any()]
    base = made.base if said.of == "changes" else None
    if said.of == "changes" and not used:
        same = made.base is not None and made.base.dtype == made.dtype and made.base.rows is None
        return source.copied if same else _copied_as_floats(source)
    parts = [*([base] if base else []), *(made.tuned[k] for k in used)]
    plain = len(values) == 1 and parts and all(p.dtype == made.dtype and p.rows is None for p in parts)
    if plain and made.dtype == "BF16" and (base is not None or said.of == "weights"):
        return _Fused(source, parts, values[0, used].astype(np.float32), of_changes=base is not None)

    def summed(start: int, stop: int, room: Room) -> Array:
        out = room.of("out", ((stop - start) * made.width,), np.uint8).view(RAW[made.dtype])
        for at in range(start, stop, PIECE):
            end = min(at + PIECE, stop)
            _sum(source, said, values, used, at, end, room, out[at - start : end - start])
        return out

    return summed


class _Fused:
    """Bytes of a weighted sum of bfloat16 versions, or of a base, which comes first, and weighted changes."""

    def __init__(self, source: Tensors, parts: Sequence[Part], coefficients: Array, *, of_changes: bool) -> None:
        self._source, self._parts, self._coefficients, self._of_changes = source, parts, coefficients, of_changes

    def __call__(self, start: int, stop: int, room: Room) -> Array:
        out = room.of("out", (stop - start,), np.uint16)
        kernel = tiles.shift_bf16 if self._of_changes else tiles.average_bf16
        kernel(self._source.stack(self._parts, start, stop, room), self._coefficients, out)
        return out

    def piped(self, into: tuple[int, int] | None, start: int, stop: int, room: Room) -> int:
        """Writes them as well, to a place in a file, where all are files; tells as `tiles.piped_bf16` does."""
        if into is None or self._places is None:
            return tiles.FAILED
        handles, starts = self._places
        raws = room.of("stack", (len(self._parts), stop - start), np.uint16)
        out = room.of("out", (stop - start,), np.uint16)
        at = into[1] + start * out.itemsize
        return int(
            tiles.piped_bf16(
                handles, starts + start * out.itemsize, self._coefficients, self._of_changes, into[0], at, raws, out
            )
        )

    @cached_property
    def _places(self) -> tuple[Array, Array] | None:
        found = [place for part in self._parts if (place := self._source.place(part)) is not None]
        handles, starts = np.array(found, np.int64).reshape(-1, 2).T.copy()
        return (handles, starts) if len(found) == len(self._parts) else None


def _copied_as_floats(source: Tensors) -> Callable[[int, int, Room], Any]:
    def make(start: int, stop: int, room: Room) -> Array:
        base = source.floats(source.made.base, start, stop, room, "base", np.float64)
        return rounded(torch.from_numpy(base), source.made.dtype)

    return make


def _sum(
    source: Tensors, said: Coefficients, values: Array, used: Sequence[int], start: int, stop: int, room: Room,
    out: Array,
) -> None:  # fmt: skip
    made = source.made
    dtype: Any = np.float64 if made.exact else np.float32
    total = room.of("total", (stop - start,), dtype)
    total[:] = 0
    base = source.floats(made.base, start, stop, room, "base", dtype) if said.of == "changes" else None
    groups = None
    if len(values) > 1:
        at = np.arange(start, stop)
        groups = at % len(values) if said.per == "column" else at // (made.size // len(values))
    for k in used:
        x = source.floats(made.tuned[k], start, stop, room, "tuned", dtype)
        if groups is not None:
            x = (x if base is None else np.where(x == base, 0, x - base)) * values[groups, k].astype(dtype)
            total += x
        elif base is None:
            tiles.add(total, x, dtype(values[0, k]))
        else:
            tiles.add_change(total, x, base, dtype(values[0, k]))
    if base is not None:
        total = np.where(total == 0, base, base + total)
    if made.dtype == "BF16":
        tiles.narrow(total, out)
    else:
        with np.errstate(over="ignore"):  # what becomes infinite is told with the tensor's name
            np.copyto(out, total, casting="same_kind")


def room_bytes(made: Sequence[Made], threads: int, tile: int = TILE) -> int:
    """Memory that `run` takes beside what its caller holds: tiles of each thread, and one tensor that is not cut into
    tiles, or one row as long, where there are.

    A method that sees tensors is given room for as many more copies as it has models, and three.
    """
    return threads * max((_tile_bytes(m, tile) for m in made), default=0) + max(
        (_tensor_bytes(m, min(m.size, m.step(tile))) for m in made if m.alone(tile)), default=0
    )


def _tile_bytes(made: Made, tile: int) -> int:
    size = min(made.size, made.step(tile))
    if made.method is None:
        return size * made.width
    if made.kind == "weighting":
        return size * made.width * (len(made.tuned) + 2) + PIECE * 8 * 6
    counts = (len(made.tuned) * (tiles.HIGH_BINS + tiles.LOW_BINS) * 8) if made.kind == "trimming" else 0
    return (0 if made.alone(tile) else _tensor_bytes(made, size)) + counts


def _tensor_bytes(made: Made, size: int) -> int:
    models = len(made.tuned) + 1
    stored = models * made.width
    holds = getattr(made.method, "holds", None)
    copies: float = models + (made.method.needs.copies if holds is None else holds(made.shape, len(made.tuned)))
    return round(size * (stored + copies * (8 if made.exact else 4)))
