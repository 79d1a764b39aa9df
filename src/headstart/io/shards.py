"""Weights on disk, read and written in pieces.

What is read is copied into the caller's own memory, and what is written goes to a place that was fixed before the first
byte: memory is what the caller holds, whatever the size of the model.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from headstart.core import Unreadable

from .atomic import FULL, twin, write_json, writing
from .safe_files import is_plain
from .safetensors_files import WIDTHS, Entry

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
WRITTEN = "written.txt"  # in an unfinished folder: names of the tensors that the disk has whole
SHARD_BYTES = 5_000_000_000  # the most of one file, where nobody says otherwise
FLUSH_BYTES = 1 << 28  # so much is done again at most after a crash


class Checkpoint:
    """Tensors in safetensors files, by name; readable inside a `with`, by several threads at once.

    Raises `Unreadable` where a file was changed since its header was read.
    """

    def __init__(self, tensors: Mapping[str, Entry]) -> None:
        self.tensors = tensors
        self._handles: dict[Path, int] = {}

    def __enter__(self) -> Self:
        for entry in self.tensors.values():
            if entry.file not in self._handles:
                self._handles[entry.file] = os.open(entry.file, os.O_RDONLY)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def place(self, name: str) -> tuple[int, int] | None:
        """The open file and the byte at which the tensor begins there, where `read` gives the file's own bytes."""
        entry = self.tensors[name]
        return self._handles[entry.file], entry.start

    def read(self, name: str, start: int, into: Any) -> None:
        """Fills a contiguous buffer with the tensor's bytes from `start` on."""
        if not into.nbytes:
            return
        entry = self.tensors[name]
        view = memoryview(into).cast("B")
        at, done = entry.start + start, 0
        assert at + len(view) <= entry.end, "read past the end of a tensor"
        while done < len(view):
            count = os.preadv(self._handles[entry.file], [view[done:]], at + done)
            if not count:
                raise Unreadable(
                    f"`{entry.file.name}` became shorter while it was read",
                    where=f"tensor `{name}` of `{entry.file.parent}`",
                    fix="let nobody write to the folder, and begin again",
                )
            done += count


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that is to be written. dtype: as safetensors calls it.

    folder: where its file lies below the model's folder, "" or like "2_Dense/"; the name begins with it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    folder: str = ""

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * WIDTHS[self.dtype]


@dataclass(frozen=True, eq=False, slots=True)
class Shard:
    """One file to be written. places: byte in the file at which each tensor begins. also: folders that have it, too."""

    folder: str
    name: str
    header: bytes
    places: Mapping[str, int]
    bytes: int
    also: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return self.folder + self.name


def folder_of(name: str) -> str:
    """The folder that a tensor's name begins with, as those of parts beside the model do.

    >>> folder_of("2_Dense/linear.weight"), folder_of("encoder.weight")
    ('2_Dense/', '')
    """
    folder, slash, _ = name.rpartition("/")
    return folder + slash


def laid_out(tensors: Sequence[Planned], shard_bytes: int) -> list[Shard]:
    """Files of at most so many bytes of tensors each, in the order given; a larger tensor has a file of its own.

    Within a file, wide types come first, so that every tensor is aligned to its type.

    >>> [s.name for s in laid_out([Planned("a", "F32", (4,)), Planned("b", "F32", (4,))], 16)]
    ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    """
    for tensor in tensors:
        _check_name(tensor)
    made = []
    for folder in dict.fromkeys(t.folder for t in tensors):
        groups: list[list[Planned]] = [[]]
        held = 0
        for tensor in (t for t in tensors if t.folder == folder):
            if groups[-1] and held + tensor.bytes > shard_bytes:
                groups.append([])
                held = 0
            groups[-1].append(tensor)
            held += tensor.bytes
        many = len(groups)
        names = [numbered(i, many) for i in range(many)]
        made += [_shard(folder, name, group) for name, group in zip(names, groups, strict=True)]
    return made


def _check_name(tensor: Planned) -> None:
    """Raises `Unreadable` for a name that leads out of the folder: names come from other people's files."""
    parts = tensor.folder.split("/")[:-1]
    if any(part in ("", ".", "..") for part in parts) or not is_plain(tensor.name):
        raise Unreadable(
            f"the tensor's name {ascii(tensor.name)[:80]} leads out of the folder",
            where="tensors to be written",
            fix="rename the tensor, if you trust where it comes from",
        )


def numbered(at: int, many: int) -> str:
    """
    >>> numbered(0, 2), numbered(0, 1)
    ('model-00001-of-00002.safetensors', 'model.safetensors')
    """
    return f"model-{at + 1:05d}-of-{many:05d}.safetensors" if many > 1 else SINGLE


def _shard(folder: str, name: str, tensors: Sequence[Planned]) -> Shard:
    said: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at, offsets = 0, {}
    for tensor in sorted(tensors, key=lambda t: -WIDTHS[t.dtype]):
        offsets[tensor.name] = at
        said[tensor.name.removeprefix(folder)] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.bytes],
        }
        at += tensor.bytes
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    header = struct.pack("<Q", len(text)) + text
    return Shard(folder, name, header, {n: begin + o for n, o in offsets.items()}, begin + at)


class ShardWriter:
    """Writes tensors in pieces, in any order and by several threads, into files of a fixed layout; use in a `with`.

    done: tensors that an earlier, interrupted writer of the same layout finished in this folder. A folder that holds
    anything else must not be given.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.folder, self._shards = folder, list(shards)
        self._of = {name: shard for shard in shards for name in shard.places}
        self._handles: dict[str, int] = {}
        self._lock, self._finished, self._pending = Lock(), list[str](), 0
        self.done = frozenset(self._written())

    def __enter__(self) -> Self:
        with writing(self.folder):
            for shard in self._shards:
                (self.folder / shard.folder).mkdir(parents=True, exist_ok=True)
                handle = os.open(self.folder / shard.path, os.O_RDWR | os.O_CREAT, 0o666)
                self._handles[shard.path] = handle
                _reserve(handle, shard.bytes)
                _put(handle, memoryview(shard.header), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            for handle in self._handles.values():
                os.close(handle)
            self._handles.clear()

    def place(self, name: str) -> tuple[int, int]:
        """The open file and the byte at which the tensor begins there."""
        shard = self._of[name]
        return self._handles[shard.path], shard.places[name]

    def write(self, name: str, start: int, data: Any) -> None:
        """Puts bytes at byte `start` of the tensor."""
        if not data.nbytes:
            return
        shard = self._of[name]
        with writing(self.folder):
            _put(self._handles[shard.path], memoryview(data).cast("B"), shard.places[name] + start)

    def finish(self, name: str, size: int) -> None:
        """Says that all `size` bytes of a tensor were written, so that it need not be written again."""
        with self._lock:
            self._finished.append(name)
            self._pending += size
            if self._pending >= FLUSH_BYTES:
                self._flush()

    def flush(self) -> None:
        """Waits until the disk has what was finished, and notes it."""
        with self._lock:
            self._flush()

    def complete(self) -> None:
        """Makes it folders of models: files that several have, an index where there are several files, and no notes."""
        self.flush()
        for shard in self._shards:
            for folder in shard.also:
                with writing(self.folder):
                    (self.folder / folder).mkdir(parents=True, exist_ok=True)
                    twin(self.folder / shard.path, self.folder / folder / shard.name)
        for folder in dict.fromkeys(f for s in self._shards for f in (s.folder, *s.also)):
            mine = [s for s in self._shards if folder in (s.folder, *s.also)]
            if len(mine) > 1:
                places = {n.removeprefix(s.folder): s.name for s in mine for n in s.places}
                total = sum(s.bytes - len(s.header) for s in mine)
                said = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
                write_json(self.folder / folder / INDEX, said)
        (self.folder / WRITTEN).unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._finished:
            return
        with writing(self.folder):
            for name in dict.fromkeys(self._of[one].path for one in self._finished):
                os.fsync(self._handles[name])
            with (self.folder / WRITTEN).open("a", encoding="utf-8") as notes:
                notes.writelines(json.dumps(name) + "\n" for name in self._finished)
                notes.flush()
                os.fsync(notes.fileno())
        self._finished, self._pending = [], 0

    def _written(self) -> Iterator[str]:
        try:
            lines = (self.folder / WRITTEN).read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return
        for line in lines:
            if line.endswith("\n"):  # the last line of a writer that was killed may be half of one
                name = json.loads(line)
                if name in self._of:
                    yield name


def _reserve(handle: int, size: int) -> None:
    """Gives a file its size, and its room on the disk where the file system can: a disk too full says so at once.

    Writing is then up to twice as fast, as room is not looked for page by page. `os.posix_fallocate` writes to every
    block instead where the file system cannot.
    """
    set_room = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if set_room is not None and size:
        set_room.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if set_room(handle, 0, 0, size) and (reason := ctypes.get_errno()) in FULL:
            raise OSError(reason, os.strerror(reason))
    os.ftruncate(handle, size)


def _put(handle: int, data: memoryview, start: int) -> None:
    """All of it, where the disk takes only a part at a time."""
    done = 0
    while done < len(data):
        done += os.pwrite(handle, data[done:], start + done)
