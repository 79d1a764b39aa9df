"""Weights on disk, read as headers and mapped bytes: safetensors only, without torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.core import Unreadable

from .safe_files import inside, is_plain, read_json

MOST_HEADER_BYTES = 100_000_000  # the format's own limit
WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8, "C64": 8,
}  # fmt: skip
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: where its bytes lie."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def weight_files(folder: Path, *, root: Path | None = None) -> list[Path]:
    """The files that hold a model's weights, single or sharded. Raises `Unreadable` for pickles and for no weights."""
    if (folder / "model.safetensors").exists() or (folder / "model.safetensors").is_symlink():
        return [_checked(folder, "model.safetensors", root)]
    index = read_json(folder, "model.safetensors.index.json", root=root)
    if index:
        named = index.get("weight_map")
        if not isinstance(named, dict) or not named or not all(isinstance(n, str) for n in named.values()):
            raise _damaged(folder, "`model.safetensors.index.json` names no files")
        return [_checked(folder, name, root) for name in sorted(set(named.values()))]
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED) if folder.is_dir() else []
    if pickled:
        raise Unreadable(
            f"the weights are only in `{pickled[0]}`, a format that can run code when it is opened",
            where=f"source `{folder}`",
            fix=f"headstart inventory convert {_quoted(folder)}",
        )
    inside = sorted(p.parent.name for p in folder.glob("*/config.json")) if folder.is_dir() else []
    raise Unreadable(
        "there is no `model.safetensors`",
        where=f"source `{folder}`",
        fix=f"name one of the models in it: {', '.join(inside[:5])}"
        if inside
        else "copy the weights into the folder, or save the model again with `save_pretrained`",
    )


def entries(files: Sequence[Path]) -> list[Entry]:
    """All tensors of some files, each header checked against its file: no gaps, no overlaps, nothing outside."""
    found: list[Entry] = []
    for file in files:
        found.extend(_entries(file))
    names = [e.name for e in found]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise _damaged(files[0].parent, f"tensor `{twice}` is stored twice")
    return sorted(found, key=lambda e: e.name)


def _entries(file: Path) -> list[Entry]:
    try:
        total = file.stat().st_size
        with file.open("rb") as handle:
            head = handle.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else -1
            if not 0 < length <= min(MOST_HEADER_BYTES, total - 8):
                raise ValueError(f"the header says {length} bytes, and the file has {total}")
            header = json.loads(handle.read(length).decode("utf-8"), object_pairs_hook=_once)
        return _laid_out(header, file, 8 + length, total)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(file.parent, f"`{file.name}` is damaged: {' '.join(str(error).split())[:120]}") from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON, in which no key is there twice: readers differ in which of the two they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"`{next(n for n in names if names.count(n) > 1)}` is there twice")
    return found


def _laid_out(header: dict[str, dict[str, object]], file: Path, begin: int, total: int) -> list[Entry]:
    found = []
    for name, spec in header.items():
        if name == "__metadata__":
            continue
        if not is_plain(name):
            raise ValueError(f"the name {ascii(name)[:80]} is no text")
        dtype, shape, offsets = spec["dtype"], spec["shape"], spec["data_offsets"]
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"tensor `{name}` has no shape")
        if not isinstance(dtype, str) or dtype not in WIDTHS:
            raise ValueError(f"tensor `{name}` has the unknown type `{dtype}`")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
            raise ValueError(f"tensor `{name}` has no place in the file")
        start, end = begin + offsets[0], begin + offsets[1]
        if end - start != math.prod(shape) * WIDTHS[dtype]:
            raise ValueError(f"tensor `{name}` has another size than its shape says")
        found.append(Entry(name, dtype, tuple(shape), file, start, end))
    at = begin
    for entry in sorted(found, key=lambda e: (e.start, e.end)):
        if entry.start != at:
            raise ValueError(f"tensor `{entry.name}` does not begin where the one before it ends")
        at = entry.end
    if at != total:
        raise ValueError(f"the tensors end at byte {at}, and the file at {total}")
    return found


def _checked(folder: Path, name: str, root: Path | None) -> Path:
    path = inside(folder, name, root=root)
    if not path.is_file():
        raise _damaged(folder, f"`{name}` is missing")
    return path


def _damaged(folder: Path, what: str) -> Unreadable:
    return Unreadable(what, where=f"source `{folder}`", fix="copy the folder again from its origin")


def _quoted(folder: Path) -> str:
    text = str(folder)
    return text if text.replace("/", "").replace("-", "").replace("_", "").replace(".", "").isalnum() else f"'{text}'"
