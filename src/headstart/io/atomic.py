"""Files and folders that appear whole or not at all: written beside, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from headstart.core import Refused, Unreadable

Event = Callable[[str], None]  # is told of each write; a test raises in it to simulate a crash
PART = ".staging-"  # how the name of an unfinished folder begins

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
Twin = Literal["link", "clone", "copy"]
FICLONE = 0x40049409  # Linux' request to share the blocks of another file


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns the disk's errors into a `Problem` that names the place and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Unreadable(
                f"the disk is full ({error.strerror})",
                where=f"writing to `{place}`",
                fix="free some space or choose another folder with --out; nothing half-written is left there",
            ) from error
        if error.errno in CLOSED:
            raise Unreadable(
                f"the folder cannot be written to ({error.strerror})",
                where=f"`{place}`",
                fix="choose another folder with --out, or change its permissions",
            ) from error
        odd = isinstance(error, NotADirectoryError | FileExistsError | FileNotFoundError | IsADirectoryError)
        if odd or error.errno == errno.ENAMETOOLONG:
            raise Unreadable(
                f"that is no place to write to ({error.strerror})",
                where=f"`{place}`",
                fix="choose another place with --out",
            ) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """A whole file, or the one that was there before."""
    with writing(path.parent):
        handle, name = tempfile.mkstemp(prefix=PART, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """UTF-8 with line breaks as they are; half of a surrogate pair becomes a question mark."""
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_json(path: Path, value: Any) -> None:
    """Keys sorted, so that equal values make equal files; what is not finite is null, as JSON has no word for it."""
    write_text(path, dumps(value))


def dumps(value: Any) -> str:
    """
    >>> dumps({"b": 1, "a": "é"})
    '{\\n "a": "é",\\n "b": 1\\n}\\n'
    """
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """JSON values only: numbers that are not finite become null, tuples lists, numpy's numbers Python's.

    >>> plain({"a": (1.0, float("inf"))})
    {'a': [1.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def new_folder(place: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, which becomes `place` when the block ends well, and vanishes when it does not.

    Raises `Refused` when `place` holds anything and may not be replaced.
    """
    with writing(place.parent):
        refuse_occupied(place, overwrite=overwrite)
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f"{PART}{place.name[:40]}-", dir=place.parent))
        try:
            yield staging
            sync_tree(staging)
            os.chmod(staging, 0o777 & ~_umask())
            swap_in(staging, place)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync(place.parent)


def refuse_occupied(place: Path, *, overwrite: bool = False) -> None:
    """Raises `Refused` when `place` holds anything and may not be replaced: now what `new_folder` would raise later.

    What was there, and was moved aside by somebody who was killed before the new folder had its place, is there again.
    """
    with suppress(OSError):  # who may not write there is told so when they do
        _put_back(place)
    if not overwrite and place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise occupied(place)


def refuse_own_source(place: Path, sources: Iterable[Path]) -> None:
    """Raises `Refused` when something that is read lies in the folder that would be replaced: it would be gone; and
    when that folder lies in one that is read, of whose model it would become a part.
    """
    for source in sources:
        if source.is_dir() and place.resolve() != source.resolve() and place.resolve().is_relative_to(source.resolve()):
            raise Refused(
                f"the result would lie in the folder of `{source.name}`, and be a part of that model",
                where=f"`{place}`",
                fix="choose a folder outside: what is read is never changed",
            )
        if source.resolve().is_relative_to(place.resolve()):
            raise Refused(
                f"`{source.name}` is read, and lies in the folder that --overwrite would replace",
                where=f"`{place}`",
                fix="choose another folder: what is read is never changed or removed",
            )


def occupied(place: Path) -> Refused:
    return Refused(
        "the output folder holds something already",
        where=f"`{place}`",
        fix="choose another folder, or replace what is there with --overwrite",
    )


def swap_in(new: Path, place: Path) -> None:
    """Renames a finished file or folder to its place; what was there is moved aside first, and then removed."""
    if not place.exists() and not place.is_symlink():
        os.rename(new, place)
    elif place.is_dir() and not place.is_symlink():
        mark = uuid.uuid4().hex[:8]
        old, gone = (place.with_name(_aside(place, what) + mark) for what in ("old", "gone"))
        with _held(place):
            os.rename(place, old)
            try:
                os.rename(new, place)
            except BaseException:
                os.rename(old, place)
                raise
            os.rename(old, gone)  # what is deleted only in part is never put back
            shutil.rmtree(gone, ignore_errors=True)
    else:
        os.replace(new, place)


def _aside(place: Path, what: Literal["old", "gone"]) -> str:
    """How the name begins that a folder at a place has while it is replaced, and while it is deleted then."""
    return f"{PART}{place.name[:40]}.{what}-{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:12]}-"


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether nobody else replaces or deletes a folder; as long as the block lasts, nobody else begins to."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _locked(handle)
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)  # some file systems lock no folders
    return True


def _put_back(place: Path) -> None:
    """A folder that was moved aside stays there where its place is taken: whose that is, nobody knows any more."""
    for old in sorted(place.parent.glob(f"{glob.escape(_aside(place, 'old'))}*")):
        with _held(old) as ours:
            if ours and not os.path.lexists(place):
                os.rename(old, place)
    for gone in sorted(place.parent.glob(f"{glob.escape(_aside(place, 'gone'))}*")):
        with _held(gone) as ours:
            if ours:
                shutil.rmtree(gone, ignore_errors=True)


def twin(source: Path, place: Path) -> Twin:
    """The same bytes at a second place of one disk: a link, else shared blocks, which take no room, else a copy."""
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
        return "link"
    except OSError as error:
        if error.errno in FULL:
            raise
    try:
        with source.open("rb") as read, place.open("wb") as write:
            fcntl.ioctl(write, FICLONE, read.fileno())
        return "clone"
    except OSError as error:
        if error.errno in FULL:
            raise
    shutil.copyfile(source, place)
    return "copy"


def twins(folder: Path) -> Twin:
    """What `twin` does on the disk of a folder, tried on a byte; `copy` where nothing can be written."""
    try:
        with tempfile.TemporaryDirectory(prefix=PART, dir=folder) as name:
            source = Path(name) / "one"
            source.write_bytes(b"1")
            return twin(source, Path(name) / "other")
    except OSError:
        return "copy"


def sync(path: Path) -> None:
    """Waits until the disk has a file, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some file systems cannot do this for folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Waits until the disk has all of it; files of our own get the permissions that the user's mask allows.

    safetensors writes files that nobody else may read. Files with a second name are the source's, and stay as they are.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            continue
        if path.is_file() and path.stat().st_nlink == 1:
            os.chmod(path, 0o666 & ~_umask())
        sync(path)
    sync(folder)


def _umask() -> int:
    """The process' mask; there is no way to read it without setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
