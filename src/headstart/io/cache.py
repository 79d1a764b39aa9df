"""A folder of arrays, each found by a key that says what it was computed from; bounded, safe for several processes.

A file `<first two characters>/<key>.npy` is written beside its place and renamed, so it is whole or not there. Its
date says when it was last used; an index, where one is given, knows that too and survives copies of the folder.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from headstart.core import OverBudget, Unfit, Unreadable

Array = np.ndarray[Any, Any]

KEY = re.compile(r"[0-9a-f]{8,128}")
DTYPES = (np.dtype("<f2"), np.dtype("<f4"))
STALE_SECONDS = 3600.0  # an unfinished file this old has lost its writer
ROOM_FRACTION = 0.1  # freed beyond what is needed, so that not every write has to free


class Index(Protocol):
    """Who keeps (bytes, last used) of each array by key; `inventory.feature_cache` is the one that ships."""

    def record(self, entries: Mapping[str, tuple[int, float]]) -> None: ...
    def entries(self) -> dict[str, tuple[int, float]]: ...
    def forget(self, keys: Sequence[str]) -> None: ...


class Cache:
    """Arrays on disk by key, float16 or float32, read through memory maps, the least recently used out first.

    limit_bytes: the most that the folder holds after a write; infinite by default.
    Errors: `Unfit` for a key or array of the wrong form, `OverBudget` on a full disk, `Unreadable` where nothing can be
    written.
    """

    def __init__(self, folder: str | Path, limit_bytes: float = float("inf"), *, index: Index | None = None) -> None:
        self.folder, self.limit_bytes, self._index = Path(folder), limit_bytes, index
        self._touched: dict[str, tuple[int, float]] = {}
        self._held: int | None = None  # bytes, as last counted, and what was written since

    def get(self, key: str) -> Array | None:
        """The array of this key, read-only and mapped, or None. A damaged file is removed, and is then not there."""
        path = self._path(key)
        try:
            size = path.stat().st_size
            array = _mapped(path, size)
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, SyntaxError):  # what numpy raises for a header that is not one
            path.unlink(missing_ok=True)
            return None
        except OSError as error:
            raise self._unusable(error) from error
        self._touch(key, path, size)
        return array

    def put(self, key: str, array: Array) -> None:
        """Writes an array, whole or not at all; an array larger than the limit is not kept."""
        path = self._path(key)
        if array.dtype not in DTYPES:
            raise Unfit(
                f"an array of {array.dtype} cannot be cached",
                where=f"the feature cache `{self.folder}`",
                fix="convert it to float16 or float32",
            )
        if array.nbytes > self.limit_bytes:
            return
        beside = path.parent / f".{key}.{os.getpid()}.{secrets.token_hex(4)}.part"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            os.replace(beside, path)
        except OSError as error:
            with suppress(OSError):  # it may never have come to be
                beside.unlink()
            raise self._unusable(error) from error
        self._touch(key, path, size)
        if self._held is not None:
            self._held += size
        if self.limit_bytes != float("inf"):
            self._held = self.bytes() if self._held is None else self._held
            if self._held > self.limit_bytes:
                self.evict(keep=(key,))

    def bytes(self) -> int:
        """What the folder holds now, counted anew."""
        return sum(size for _, size, _ in self._files())

    def evict(self, limit_bytes: float | None = None, *, keep: Collection[str] = ()) -> list[str]:
        """Removes the least recently used arrays until the rest fit, those in `keep` last; returns their keys.

        Another process may delete, write and read at the same time: a file that vanished is counted as gone, and a
        reader keeps what it has mapped.
        """
        limit = self.limit_bytes if limit_bytes is None else limit_bytes
        known = {} if self._index is None else self._index.entries()
        found = {key: (size, max(used, known.get(key, (0, used))[1])) for key, size, used in self._files(sweep=True)}
        held, gone = sum(size for size, _ in found.values()), []
        if held > limit:
            oldest_first = sorted(found, key=lambda k: (k in keep, found[k][1], k))
            for key in oldest_first:
                if held <= limit * (1 - ROOM_FRACTION) or (key in keep and held <= limit):
                    break
                self._path(key).unlink(missing_ok=True)
                held -= found[key][0]
                gone.append(key)
        self._held = held
        if self._index is not None:
            self._touched = {key: entry for key, entry in self._touched.items() if key not in gone}
            self._index.forget([key for key in known if key not in found] + gone)
            self._index.record({key: found[key] for key in found if key not in known and key not in gone})
        return gone

    def close(self) -> None:
        """Tells the index what was used since it was last told; the folder is complete without."""
        if self._index is not None:
            self._index.record(self._touched)
        self._touched = {}

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise Unfit(
                f"`{key[:80]}` is no key of a cached array",
                where=f"the feature cache `{self.folder}`",
                fix="use the hexadecimal SHA-256 of what the array was computed from",
            )
        return self.folder / key[:2] / f"{key}.npy"

    def _touch(self, key: str, path: Path, size: int) -> None:
        now = time.time()
        self._touched[key] = (size, now)
        try:
            os.utime(path, (now, now))
        except OSError:  # gone meanwhile, or a folder that is only read: its date is a hint, not a fact
            return

    def _files(self, *, sweep: bool = False) -> Iterator[tuple[str, int, float]]:
        """(key, bytes, last used) of each array; with `sweep`, what a killed writer left is removed on the way."""
        for folder in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            for entry in _entries(folder):
                try:
                    facts = entry.stat()
                    if entry.name.endswith(".npy") and KEY.fullmatch(entry.name[:-4]):
                        yield entry.name[:-4], facts.st_size, facts.st_mtime
                    elif sweep and entry.name.endswith(".part") and time.time() - facts.st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)
                except FileNotFoundError:
                    continue

    def _unusable(self, error: OSError) -> OverBudget | Unreadable:
        import errno

        where = f"the feature cache `{self.folder}`"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OverBudget(
                "the disk is full", where=where, fix="make room on that disk, or name another bank with --bank"
            )
        return Unreadable(
            f"it cannot be used: {error.strerror or error}",
            where=where,
            fix="name a bank in a folder that you may write to, with --bank or HEADSTART_HOME",
        )


def _mapped(path: Path, size: int) -> Array:
    """The array of a file that is exactly as long as its header says; raises ValueError for any other."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    count = math.prod(shape)
    if fortran or dtype not in DTYPES or size != start + count * dtype.itemsize:
        raise ValueError("not as long, or not of the form, that its header says")
    if not count:  # an empty file part cannot be mapped
        return np.zeros(shape, dtype=dtype)
    return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda e: e.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
