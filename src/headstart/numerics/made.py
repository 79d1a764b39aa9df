"""A tensor that is to be made: of which versions of it in several models, how these are read, and where it goes to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

from headstart.core import TensorContext, Unfit

from . import tiles

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


class Tensors:
    """The versions of one tensor, read in pieces. readers: by the numbers that its parts have."""

    def __init__(self, made: Made, readers: Sequence[Reads] | Mapping[int, Reads], seed: int = 0) -> None:
        self.made, self._readers, self._seed = made, readers, seed
        self._means: dict[Part, Array] = {}
        self.odd = False  # whether `torch` has read numbers that are not finite, and not the same in all

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
            self.odd = self.odd or not _finite(found[1:])
            return found[0], found[1:], None
        odd = ~found[0].isfinite()
        for one in found[1:]:
            odd &= one == found[0]
        for one in found:  # room of our own
            one[odd] = 0
        self.odd = self.odd or not _finite(found)
        return found[0], found[1:], odd


def _finite(found: Sequence[torch.Tensor]) -> bool:
    return all(tiles.finite(one.view(-1).numpy()) for one in found)


@contextmanager
def decomposing(name: str, versions: Sequence[torch.Tensor]) -> Iterator[None]:
    """Raises `Unfit` for what LAPACK says of numbers that are not finite."""
    try:
        yield
    except RuntimeError as error:  # that it did not converge
        if _finite([one.contiguous() for one in versions]):
            raise
        raise Unfit(
            f"`{name}` of a model holds numbers that are not finite, and cannot be decomposed",
            where="merge",
            fix="look for NaN and infinities in the models' weights, and take sound ones",
        ) from error


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


def rounded(exact: torch.Tensor, dtype: str) -> Array:
    """The one rounding of a merge: bytes of a result in the type it is written in.

    >>> rounded(torch.tensor([1.001953125]), "BF16").view(np.uint16).tolist()
    [16256]
    """
    made = exact.to(FLOATS[dtype]).contiguous().flatten()
    return made.view(torch.uint8).numpy()


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
