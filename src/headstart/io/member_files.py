"""The layout of a member folder: an encoder, perhaps an adapter on it, and the head, described by `member.json`.

member.json          format, where the encoder lies, classes, task, link, lineage
head.safetensors     weight (outputs, width) and bias (outputs,), float32
adapter/             in peft's own form, where the member is a change to its base
…                    the encoder itself, or it lies where `encoder` says, within the same result
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from headstart.core import Unreadable

from .recipes import Link
from .safe_files import inside, read_json

FORMAT = 1
MANIFEST = "member.json"
HEAD = "head.safetensors"
ADAPTER = "adapter"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What `member.json` says.

    base: fingerprint of the weights it was trained from, None for a head on features. trained_on: keyed hashes of the
    rows it has seen, from its result; None where the result does not say.
    """

    folder: Path
    encoder: Path
    adapter: Path | None
    classes: tuple[str, ...]
    task: str
    link: Link
    loads: str
    base: str | None
    licence: str | None
    lineage: tuple[str, ...]
    source: Mapping[str, Any]
    trained_on: frozenset[str] | None

    @property
    def own_files(self) -> dict[str, Path]:
        """The tensors that are not the base's."""
        head = inside(self.folder, HEAD)
        if not head.is_file():
            raise Unreadable(
                f"`{HEAD}` is missing", where=f"member `{self.folder}`", fix="copy the whole result folder again"
            )
        return {"head": head, **({"adapter": self.adapter} if self.adapter else {})}


def is_member(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def member_of(folder: Path) -> Member:
    """The member in a folder. Raises `Unreadable` when it is damaged, newer, or leads out of its result."""
    said = read_json(folder, MANIFEST)
    version = said.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise Unreadable(
            f"`{MANIFEST}` has format {version!r}, and this version reads up to {FORMAT}",
            where=f"member `{folder}`",
            fix="pip install --upgrade headstart",
        )
    root = _result_of(folder)
    encoder = inside(folder, str(said.get("encoder", ".")), root=root)
    adapter = folder / ADAPTER / "adapter_model.safetensors" if said.get("adapter") else None
    if not encoder.is_dir() or (adapter and not inside(folder, str(adapter.relative_to(folder))).is_file()):
        raise Unreadable(
            "the encoder or adapter of the member is missing",
            where=f"member `{folder}`",
            fix="copy the whole result folder again",
        )
    source = said.get("source")
    source = source if isinstance(source, dict) else {}
    return Member(
        folder=folder,
        encoder=encoder.resolve(),
        adapter=adapter,
        classes=tuple(str(c) for c in said.get("classes") or ()),
        task=str(said.get("task", "")),
        link=_link(said.get("link"), folder),
        loads=str(said.get("loads", "")),
        base=str(said["base"]) if said.get("base") else None,
        licence=str(source["licence"]) if source.get("licence") else None,
        lineage=tuple(str(s) for s in source.get("lineage") or ()),
        source=source,
        trained_on=_trained_on(root, folder),
    )


def _trained_on(root: Path, folder: Path) -> frozenset[str] | None:
    """Rows of every role but the test's: the returned model was fitted on them, or chosen by them."""
    if root == folder:
        return None
    roles = {k: v for k, v in read_json(root, "rows.json").items() if k not in ("format", "test")}
    rows = [row for named in roles.values() if isinstance(named, list) for row in named]
    return frozenset(str(row) for row in rows) if roles else None


def _link(named: object, folder: Path) -> Link:
    for link in get_args(Link):
        if named == link:
            return link  # type: ignore[no-any-return]  # one of the literals
    raise Unreadable(f"the link `{named}` is unknown", where=f"member `{folder}`", fix="copy the result folder again")


def _result_of(folder: Path) -> Path:
    """The result that the member is part of, within which its encoder may lie; else the folder alone."""
    for parent in (folder.parent, folder.parent.parent):
        if (parent / "headstart.json").is_file():
            return parent
    return folder
