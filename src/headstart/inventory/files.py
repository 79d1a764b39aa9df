"""A source's files as they were when it was added, and what has become of them since."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from headstart.core import Problem, Source

READ_BYTES = 1 << 20
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


def listing(folder: str) -> list[list[str]]:
    """[relative path, SHA-256] of each file that may change what a source says, in sorted order.

    Cost: one reading of every byte. What is not there has no files.
    """
    root = Path(folder)
    if root.is_file():
        return [[root.name, _digest(root)]]
    if not root.is_dir():
        return []
    found = []
    for at, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(at) / name
            if path.suffix.lower() not in FOR_PEOPLE and not name.startswith(".") and path.is_file():
                found.append([path.relative_to(root).as_posix(), _digest(path)])
    return sorted(found)


def damage(source: Source, files: Sequence[Sequence[str]]) -> Damage | None:
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
        now = dict(_pairs(listing(source.where)))
    except OSError as error:
        return told("unreadable", [str(error.filename or source.where)], restore)
    before = dict(_pairs(files))
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


def _pairs(files: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    return [(name, digest) for name, digest in files]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
