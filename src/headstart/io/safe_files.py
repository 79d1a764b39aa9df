"""Files of a folder that somebody else made: nothing outside it is followed, and JSON is only ever read as JSON."""

from __future__ import annotations

import json
import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from headstart.core import Unreadable

MOST_PATH_BYTES = 200  # of a name inside a folder; file systems take 255 a part
MOST_JSON_BYTES = 256 * 2**20  # the largest tokenizers are near 40 MB


def is_plain(name: str) -> bool:
    """Whether a name can be written down: without halves of surrogate pairs, and without the end of a C string.

    >>> is_plain("encoder.weight"), is_plain("a\\0b"), is_plain("\\ud800")
    (True, False, False)
    """
    return "\0" not in name and (name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name))


def inside(folder: Path, name: str, *, root: Path | None = None) -> Path:
    """The path of a file or folder that another file names. Raises `Unreadable` when it leads out of the root.

    root: the folder itself unless given. A link into the `blobs` beside a hub snapshot is how the hub's cache stores
    files, and is followed; every other link that leaves the root is not.
    """
    path = folder / name
    home = (root or folder).resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    try:
        away = not is_plain(name) or len(os.fsencode(name)) > MOST_PATH_BYTES or Path(name).is_absolute()
        away = away or not any(path.resolve().is_relative_to(h) for h in homes)
    except (OSError, RuntimeError):  # links in a circle
        away = True
    if away:
        raise Unreadable(
            f"`{name if is_plain(name) else ascii(name)[1:-1]}` leads out of the folder",
            where=f"source `{folder}`",
            fix="put a copy of the file into the folder, if you trust it",
        )
    return path


def near_folder(missing: Path) -> str:
    """What to do where a folder is not there: the folders beside it that are called nearly so."""
    around = sorted(p.name for p in missing.parent.iterdir() if p.is_dir()) if missing.parent.is_dir() else []
    near = get_close_matches(missing.name, around, n=2)
    return f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else "check the path"


def read_json(folder: Path, name: str, *, root: Path | None = None) -> dict[str, Any]:
    """A JSON object from a file of the folder; an empty one where there is no such file."""
    found = read_any_json(folder, name, root=root)
    if not isinstance(found, dict):
        raise Unreadable(
            f"`{name}` holds no JSON object", where=f"source `{folder}`", fix="copy the folder again from its origin"
        )
    return found


def read_any_json(folder: Path, name: str, *, root: Path | None = None) -> Any:
    """A JSON value from a file of the folder; an empty object where there is no such file."""
    path = inside(folder, name, root=root)
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > MOST_JSON_BYTES:
            raise Unreadable(
                f"`{name}` has {path.stat().st_size} bytes, too many for a JSON file of a model",
                where=f"source `{folder}`",
                fix="copy the folder again from its origin",
            )
        return parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(
            f"`{name}` cannot be read as JSON: {' '.join(str(error).split())[:120]}",
            where=f"source `{folder}`",
            fix="copy the folder again from its origin",
        ) from error


def parsed(text: str) -> Any:
    """A value of JSON. Raises ValueError for what is none, and for halves of surrogate pairs, which no file holds."""
    found = json.loads(text)
    if "\\ud" in text.lower():
        json.dumps(found, ensure_ascii=False).encode()
    return found


def write_json(value: Any, path: Path) -> None:
    """Whole or not at all: written beside, then renamed."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
