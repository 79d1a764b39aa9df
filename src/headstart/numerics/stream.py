"""The stream: weights of several models become one, tile by tile, in memory that does not grow with the model.

A tile is read, combined and written by one thread, and several threads work side by side, so that disk and processor
are busy at once. What becomes of an entry follows from its own numbers, from where it lies, and from what was summed
over fixed blocks or counted in whole numbers: neither the size of tiles, nor threads, nor a restart changes a bit.

16-bit results are summed in float32, wider ones in float64; each is rounded once, at its end.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum, prod
from threading import Condition, Lock
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from headstart.core import Coefficients, TensorContext, Unfit

from . import scratch, tiles
from .changes import Combine, SizeOf
from .order import Order, order

Array = np.ndarray[Any, Any]
Kind = Literal["merging", "weighting", "trimming"]

TILE = 1 << 18  # entries
MANY = 16  # copies of a tile; 0.5 GB is what a merge in tiles may take
PIECE = 1 << 15  # entries of a tile that are widened at a time
SUM_BLOCK = 1 << 13  # entries whose products are one partial sum: fixed, for sums depend on where they are cut
RAW = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}  # bfloat16 by its bits
HALVES = {"F16": np.uint16(0x7C00), "BF16": np.uint16(0x7F80)}  # the bits of infinity
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Reads(Protocol):
    """Fills a buffer with the bytes of a tensor from `start` on; several threads may ask at once."""

    def read(self, name: str, start: int, into: Any) -> None: ...


class Writes(Protocol):
    """Puts bytes at byte `start` of a tensor; `finish` says that all `size` bytes of it were put."""

    def write(self, name: str, start: int, data: Any) -> None: ...
    def finish(self, name: str, size: int) -> None: ...


@runtime_checkable
class Files(Protocol):
    """A reader or writer that is open files: which of them, and the byte at which a tensor begins; None where not."""

    def place(self, name: str) -> tuple[int, int] | None: ...


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """A tensor to read. model: its number among the readers. dtype: as safetensors calls it.

    rows: for each row of the tensor that is made, which row of this one it is, -1 for none; None where they are the
    same. A row that it has not is the mean of the owners' that have it, zeros where none has. padded: the first of the
    last rows that are the mean of all before, None without any; needs rows.
    """

    model: int
    name: str
    dtype: str
    rows: Array | None = None
    owners: tuple[Part, ...] = ()
    padded: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Made:
    """A tensor to write. width: bytes of an entry. Without a method it is a copy of its base, else of the first tuned.

    method: one of its kind; needs a base where its formula does, which is zeros where there is none. depth: as in
    `TensorContext`.
    """

    name: str
    dtype: str
    width: int
    shape: tuple[int, ...]
    base: Part | None
    tuned: tuple[Part, ...] = ()
    kind: Kind = "merging"
    method: Any = None
    depth: float | None = None

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * self.width

    @property
    def whole(self) -> bool:
        return self.kind != "weighting" and self.method is not None and bool(self.method.needs.whole_tensors)

    @property
    def in_rows(self) -> bool:
        return self.kind != "weighting" and self.method is not None and bool(self.method.needs.whole_rows)

    @property
    def row(self) -> int:
        """Entries that no tile is cut between: those along the last axis, for methods that see whole rows."""
        return max((1, *self.shape[-1:])) if self.in_rows else 1

    @property
    def block(self) -> int:
        """Entries of a partial sum, a fixed number, for sums depend on where they are cut."""
        return self.row * max(1, SUM_BLOCK // self.row)

    def step(self, tile: int) -> int:
        """Entries of a tile: about as many as asked for, half where many copies are held, or all that cannot be cut."""
        if self.whole:
            return max(1, self.size)
        if self.in_rows:
            return self.block * max(1, tile // self.block)
        many = self.kind != "weighting" and self.method is not None and self.method.needs.copies > MANY
        return max(1, tile // 2) if many else tile

    def alone(self, tile: int) -> bool:
        """Whether its tiles are made one at a time: they are what memory is needed for."""
        return self.whole or min(self.size, self.step(tile)) > tile

    @property
    def exact(self) -> bool:
        """Whether it is combined in float64."""
        return self.dtype in ("F64", "F32") if self.kind == "weighting" else self._has_double

    @property
    def _has_double(self) -> bool:
        return any(p.dtype == "F64" for p in (*self.tuned, *([self.base] if self.base else [])))


class Room:
    """Memory of one thread, used again for each tile."""

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], Array] = {}

    def of(self, key: Any, shape: tuple[int, ...], dtype: Any) -> Array:
        size, kind = prod(shape), np.dtype(dtype)
        held = self._held.get((key, kind))
        if held is None or held.size < size:
            held = self._held[key, kind] = np.empty(size, kind)
        return held[:size].reshape(shape)


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
    """Makes all tensors but those in `done`; tells which of them hold numbers that are not finite.

    report: is told of bytes as they are written, and may say False to stop. Raises `Stopped` then, and whatever a
    reader, a writer or a method raises.
    """
    surveyed = {
        key: group[0].method(_Survey(group, readers, seed, threads, tile))
        for key, group in _together([m for m in made if m.kind == "trimming" and m.method is not None and m.size])
    }
    left = [m for m in made if m.name not in done]
    crew = _Crew(left, readers, writer, surveyed, seed, tile, report)
    crew.work(threads)
    return crew.odd


def all_finite(data: Array, dtype: str) -> bool:
    """Whether all numbers are, of bytes as they are written; what is no floating-point number is.

    >>> all_finite(np.array([0x3FC0, 0x7F80], np.uint16), "BF16"), all_finite(np.array([7], np.uint8), "U8")
    (False, True)
    """
    if dtype not in RAW:
        return True
    flat = data.reshape(-1).view(np.uint8)
    if dtype in HALVES:
        return bool(tiles.finite_bits(flat.view(np.uint16), HALVES[dtype]))
    return bool(tiles.finite(flat.view(RAW[dtype])))


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
        self.odd: set[str] = set()  # tensors with numbers that are not finite

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
        odd = said == tiles.ODD
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

    def __init__(self, made: Made, make: Callable[[int, int, Room], Any]) -> None:
        self.made, self.make, self.left = made, make, 0


def _maker(
    made: Made, readers: Sequence[Reads], surveyed: Mapping[Any, Combine], seed: int, tile: int, room: Room
) -> _Maker:
    source = Tensors(made, readers, seed)
    if made.method is None or not made.size:
        return _Maker(made, source.copied)
    if made.kind == "weighting":
        inner = _Inner(source, room)
        return _Maker(made, _weighted(source, made.method(source.context(0), inner)))
    if made.kind == "trimming":
        combine = surveyed.get(_key(made)) if made.method.trim == "model" else None
        if combine is None:
            combine = made.method(_Survey([made], readers, seed, 1, tile, None if made.alone(tile) else room))
    else:
        combine = made.method
    return _Maker(made, _combined(source, combine))


class Tensors:
    """The versions of one tensor, read in pieces. readers: by the numbers that its parts have."""

    def __init__(self, made: Made, readers: Sequence[Reads] | Mapping[int, Reads], seed: int = 0) -> None:
        self.made, self._readers, self._seed = made, readers, seed
        self._means: dict[Part, Array] = {}

    def context(self, start: int) -> TensorContext:
        made = self.made
        return TensorContext(name=made.name, shape=made.shape, seed=self._seed, offset=start, depth=made.depth)

    def copied(self, start: int, stop: int, room: Room) -> Array:
        made = self.made
        out = room.of("copy", ((stop - start) * made.width,), np.uint8)
        part = made.base or made.tuned[0]
        self._readers[part.model].read(part.name, start * made.width, out)
        return out

    def raw(self, part: Part, start: int, stop: int, room: Room, key: Any) -> Array:
        """Entries as they are stored; bfloat16 as uint16."""
        out = room.of(key, (stop - start,), RAW[part.dtype])
        return self._read(part, start, out)

    def _read(self, part: Part, start: int, out: Array) -> Array:
        self._readers[part.model].read(part.name, start * out.itemsize, out)
        return out

    def place(self, part: Part) -> tuple[int, int] | None:
        reader = self._readers[part.model]
        return reader.place(part.name) if isinstance(reader, Files) else None

    def stack(self, parts: Sequence[Part], start: int, stop: int, room: Room) -> Array:
        """(parts, entries) of one type, as stored."""
        out = room.of("stack", (len(parts), stop - start), RAW[parts[0].dtype])
        for row, part in zip(out, parts, strict=True):
            self._read(part, start, row)
        return out

    def floats(self, part: Part | None, start: int, stop: int, room: Room, key: Any, dtype: Any) -> Array:
        """Entries as float32 or float64; zeros for a base that is not there."""
        if part is None:
            out = room.of((key, "float"), (stop - start,), dtype)
            out[:] = 0
            return out
        if part.rows is not None:
            return self._by_rows(part, start, stop, room, key, dtype)
        raw = self.raw(part, start, stop, room, (key, "raw"))
        return self._as_floats(raw, part.dtype, room, key, dtype)

    def _as_floats(self, raw: Array, stored: str, room: Room, key: Any, dtype: Any) -> Array:
        if raw.dtype == dtype:
            return raw
        out = room.of((key, "float"), raw.shape, dtype)
        if stored != "BF16":
            np.copyto(out, raw)
        elif dtype == np.float32:
            tiles.widen(raw, out)
        else:
            half = room.of((key, "half"), raw.shape, np.float32)
            tiles.widen(raw, half)
            np.copyto(out, half)
        return out

    def sizes(self, models: Sequence[int], start: int, stop: int, room: Room) -> Iterator[Array]:
        """Sizes of the models' changes, float32, one after the other in the same room."""
        made = self.made
        out = room.of("sizes", (stop - start,), np.float32)
        parts = [made.base, *made.tuned]
        if all(p is not None and p.dtype == "BF16" and p.rows is None for p in parts) and made.base is not None:
            base = self.raw(made.base, start, stop, room, "base")
            for k in models:
                tiles.sizes_bf16(self.raw(made.tuned[k], start, stop, room, "tuned"), base, out)
                yield out
            return
        wide = np.float64 if made.exact else np.float32
        base = self.floats(made.base, start, stop, room, "base", wide)
        for k in models:
            tiles.sizes(self.floats(made.tuned[k], start, stop, room, "tuned", wide), base, out)
            yield out

    def _by_rows(self, part: Part, start: int, stop: int, room: Room, key: Any, dtype: Any) -> Array:
        """Entries of rows that lie elsewhere in the part, or with its owners; what lies together is read together."""
        assert part.rows is not None
        out = room.of((key, "rows"), (stop - start,), dtype)
        wide = self.made.size // len(part.rows)
        whole = stop if part.padded is None else max(start, min(stop, part.padded * wide))
        if whole < stop:
            out[whole - start :] = self._mean(part, wide)[np.arange(whole, stop) % wide]
        for row, end in _runs((part, *part.owners), start // wide, -(-whole // wide)):
            first, last = max(start, row * wide), min(whole, end * wide)
            having = [p for p in (part, *part.owners) if p.rows is None or p.rows[row] >= 0]
            having = having[:1] if having and having[0] is part else having
            into = out[first - start : last - start]
            into[:] = 0
            for one in having:
                shift = 0 if one.rows is None else (int(one.rows[row]) - row) * wide
                raw = self.raw(one, first + shift, last + shift, room, (key, "row"))
                found = self._as_floats(raw, one.dtype, room, (key, "row"), dtype)
                if len(having) == 1:  # zeros keep their signs
                    into[:] = found
                else:
                    into += found / dtype(len(having))
        return out

    def _mean(self, part: Part, wide: int) -> Array:
        """The mean of the rows before those that pad, summed in float64 over fixed blocks of rows."""
        if part not in self._means:
            assert part.padded is not None
            total, many, room = np.zeros(wide), max(1, PIECE // wide), Room()
            for row in range(0, part.padded, many):
                last = min(row + many, part.padded)
                rows = self._by_rows(part, row * wide, last * wide, room, "mean", np.float64)
                total += rows.reshape(-1, wide).sum(axis=0)
            self._means[part] = total / part.padded
        return self._means[part]

    def torch(self, start: int, stop: int, room: Room) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor | None]:
        """Entries of the base and of the models.

        What is not finite in the base, and the same in all, is 0 here, for the difference of two infinities is no
        number; where that is, or None where there is no such entry.
        """
        made = self.made
        dtype = np.float64 if made.exact else np.float32
        cut = (-1, made.row) if made.in_rows else (stop - start,)
        shape = made.shape if made.whole else cut
        parts = [made.base, *made.tuned]
        found = [
            torch.from_numpy(self.floats(part, start, stop, room, i, dtype)).view(shape) for i, part in enumerate(parts)
        ]
        if tiles.finite(found[0].view(-1).numpy()):
            return found[0], found[1:], None
        odd = ~found[0].isfinite()
        for one in found[1:]:
            odd &= one == found[0]
        for one in found:  # room of our own
            one[odd] = 0
        return found[0], found[1:], odd


def _runs(parts: Sequence[Part], first: int, last: int) -> Iterator[tuple[int, int]]:
    """Rows [first, last) cut where in one of the parts a row does not follow the one before it."""
    cut = np.zeros(last - first, bool)
    cut[:1] = True
    for part in parts:
        if part.rows is not None:
            rows = part.rows[first:last]
            moved = np.where(rows < 0, -last - 1, rows - np.arange(first, last))
            cut[1:] |= moved[1:] != moved[:-1]
    starts = [*(first + np.flatnonzero(cut)).tolist(), last]
    yield from itertools.pairwise(starts)  # none where there are no rows


def _combined(source: Tensors, combine: Combine) -> Callable[[int, int, Room], Any]:
    made = source.made

    def make(start: int, stop: int, room: Room) -> Array:
        base, tuned, odd = source.torch(start, stop, room)
        with scratch.tile():
            try:
                out = combine(source.context(start), base, tuned).contiguous()
            except RuntimeError as error:  # of LAPACK, that it did not converge
                if all(bool(one.isfinite().all()) for one in (base, *tuned)):
                    raise
                raise Unfit(
                    f"`{made.name}` of a model holds numbers that are not finite, and cannot be decomposed",
                    where="merge",
                    fix="look for NaN and infinities in the models' weights, and take sound ones",
                ) from error
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


def rounded(exact: torch.Tensor, dtype: str) -> Array:
    """The one rounding of a merge: bytes of a result in the type it is written in.

    >>> rounded(torch.tensor([1.001953125]), "BF16").view(np.uint16).tolist()
    [16256]
    """
    made = exact.to(FLOATS[dtype]).contiguous().flatten()
    return made.view(torch.uint8).numpy()


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


class _Inner:
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


class _Survey:
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
                    with scratch.tile():
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


class Memory:
    """Tensors in memory, by name, as something to read from or to write to."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = {name: t.detach().contiguous() for name, t in tensors.items()}
        self._bytes = {n: t.view(-1).view(torch.uint8).numpy() for n, t in self.tensors.items() if t.numel()}

    def read(self, name: str, start: int, into: Any) -> None:
        if into.nbytes:
            view = into.reshape(-1).view(np.uint8)
            view[:] = self._bytes[name][start : start + view.size]

    def write(self, name: str, start: int, data: Any) -> None:
        if data.nbytes:
            view = data.reshape(-1).view(np.uint8)
            self._bytes[name][start : start + view.size] = view

    def finish(self, name: str, size: int) -> None:
        """Nothing is left to do."""
