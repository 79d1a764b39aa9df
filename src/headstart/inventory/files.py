"""A source's files as they were when it was added, and what has become of them since."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from headstart.core import Problem, Source, Unreadable
from headstart.io.fingerprints import of_file

Entry = list[Any]  # name, SHA-256, bytes, date in nanoseconds (0 where it was too new to tell a change), inode
READ_BYTES = 1 << 20
FRESH_SECONDS = 2.0
FOR_PEOPLE = {".html", ".md", ".png", ".jpg", ".svg", ".lock", ".log", ".gitattributes", ".gitignore"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One source that is no longer what the bank knows. files: those that are missing or changed, by name."""

    id: str
    name: str
    where: str
    what: Literal["missing", "changed", "unreadable"]
    files: tuple[str, ...]
    fix: str

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "files": list(self.files)}


def unreadable(source: Source, error: OSError) -> Unreadable:
    """What the system said of a source's files, as a sentence."""
    return Unreadable(
        f"`{error.filename or source.where}` could not be read: {error.strerror or error}",
        where=f"the source `{source.name}`",
        fix="see that the file is there and that you may read it, and add the folder again",
    )


def listing(folder: str, known: Sequence[Entry] = (), cache: Path | None = None) -> list[Entry]:
    """Each file that may change what a source says, in sorted order.

    known: an earlier listing; of a file with the same size, date and inode the digest is taken from there. Without it
    every byte is read once. cache: where the digests of weights that were read before are kept. What is not there has
    no files.
    """
    root = Path(folder)
    before = {tuple(entry[i] for i in (0, 2, 3, 4)): str(entry[1]) for entry in known if entry[3]}
    if root.is_file():
        return [_entry(root, root.name, before, cache)]
    if not root.is_dir():
        return []
    found = []
    for at, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(at) / name
            if path.suffix.lower() not in FOR_PEOPLE and not name.startswith(".") and path.is_file():
                found.append(_entry(path, path.relative_to(root).as_posix(), before, cache))
    return sorted(found, key=lambda entry: str(entry[0]))


def digests(files: Sequence[Entry]) -> dict[str, str]:
    """The digest of each file, by name: what of a listing says whether anything changed."""
    return {str(entry[0]): str(entry[1]) for entry in files}


def damage(source: Source, files: Sequence[Entry]) -> Damage | None:
    """What is wrong with a source, read again from disk; None when it is the one that was added.

    A file that changed does no damage where both fingerprints are as before: weights sharded anew, a reworded
    configuration.
    """

    def told(what: Literal["missing", "changed", "unreadable"], names: Sequence[str], fix: str) -> Damage:
        return Damage(id=source.id, name=source.name, where=source.where, what=what, files=tuple(names), fix=fix)

    restore = f"put the files back, or take it off the shelf: headstart inventory remove {source.id}"
    if not Path(source.where).exists():
        return told("missing", [source.where], restore)
    try:
        now = digests(listing(source.where))
    except OSError as error:
        return told("unreadable", [str(error.filename or source.where)], restore)
    before = digests(files)
    missing = [name for name in before if name not in now]
    changed = [name for name, digest in now.items() if before.get(name) != digest and name in before]
    new = [name for name in now if name not in before]
    if not (missing or changed or new):
        return None
    fingerprints, problem = _fingerprints(source)
    if (source.weights, source.identity) in fingerprints:
        return None
    if problem is not None and not missing:
        return told("unreadable", changed or new, f"{problem.what}; {restore}")
    if missing:
        return told("missing", missing + changed, restore)
    return told("changed", changed + new, f"add it again as what it is now: headstart inventory add {source.where}")


def _fingerprints(source: Source) -> tuple[set[tuple[str, str]], Problem | None]:
    from headstart.io.sources import scan

    try:
        found, failed = scan(source.where)
    except Problem as problem:
        return set(), problem
    here = {(s.weights, s.identity) for s in found if os.path.realpath(s.where) == os.path.realpath(source.where)}
    return here, failed[0][1] if failed else None


def _entry(path: Path, name: str, before: Mapping[tuple[Any, ...], str], cache: Path | None) -> Entry:
    facts = path.stat()
    settled = time.time() - facts.st_mtime > FRESH_SECONDS  # else it may change again under the same date
    key = (name, facts.st_size, facts.st_mtime_ns if settled else 0, facts.st_ino)
    return [name, before.get(key) or _digest(path, cache), *key[1:]]


def _digest(path: Path, cache: Path | None) -> str:
    if path.suffix == ".safetensors":
        with suppress(Problem):  # no weights, whatever its name says
            return of_file(path, cache=cache)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
