"""Pickled weights to safetensors, in a process of its own with limits, which may read tensors and nothing else.

`torch.load(weights_only=True)` builds tensors and plain containers only; the limits on memory and time are for files
that are made to exhaust the reader. The pickles stay where they are; the new files appear whole, beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.core import Problem, Refused, Unreadable

from .safe_files import inside, read_json, write_json

SINGLE = ("pytorch_model.bin", "model.bin", "pytorch_model.pt", "model.pt", "pytorch_model.pth", "model.pth")
INDEX = "pytorch_model.bin.index.json"
LIMIT_SECONDS = 600
MEMORY_FACTOR = 4  # address space for each byte of the pickle
MEMORY_BYTES = 12 * 2**30  # and for torch itself, which maps far more than it uses
DEEPEST = 4


def convert(folder: str | Path, *, limit_seconds: int = LIMIT_SECONDS) -> list[Path]:
    """Writes `model.safetensors` beside every pickle of weights in a folder (or of one file's); the new files.

    Raises `Refused` when there is nothing to convert, `Unreadable` when a pickle holds more than tensors, is
    damaged, or needs more than the limits.
    """
    top = Path(folder).expanduser().absolute()
    if top.is_file():
        top = top.parent  # people name the pickle itself, too
    if not top.is_dir():
        raise Unreadable(f"there is no folder `{folder}`", where=f"`{top}`", fix="check the path")
    made: list[Path] = []
    for home in [top, *_below(top, DEEPEST)]:
        made.extend(_home(home, top, limit_seconds))
    if not made:
        raise Refused(
            "there are no pickled weights to convert",
            where=f"`{top}`",
            fix="name a model's folder that holds `pytorch_model.bin` and no `model.safetensors`",
        )
    return made


def _below(folder: Path, depth: int) -> list[Path]:
    if depth == 0 or not folder.is_dir():
        return []
    inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith("."))
    return [found for p in inner for found in (p, *_below(p, depth - 1))]


def _home(home: Path, top: Path, limit_seconds: int) -> list[Path]:
    if (home / "model.safetensors").exists() or (home / "model.safetensors.index.json").exists():
        return []
    index = read_json(home, INDEX, root=top)
    if index:
        shards = {str(v) for v in index.get("weight_map", {}).values()}
        renamed = {s: s.replace("pytorch_model", "model").rpartition(".")[0] + ".safetensors" for s in sorted(shards)}
        made = _pickles({inside(home, old, root=top): home / new for old, new in renamed.items()}, limit_seconds)
        where = {name: new.name for new in made for name in _names(new)}
        write_json({"metadata": index.get("metadata", {}), "weight_map": where}, home / "model.safetensors.index.json")
        return made
    for name in SINGLE:
        if (home / name).is_file():
            return _pickles({inside(home, name, root=top): home / "model.safetensors"}, limit_seconds)
    return []


def _names(file: Path) -> list[str]:
    from .safetensors_files import entries

    return [e.name for e in entries([file])]


def _pickles(files: Mapping[Path, Path], limit_seconds: int) -> list[Path]:
    """Converts each file to its new place, all or none."""
    first = next(iter(files))
    for old in files:
        if not old.is_file():
            raise Unreadable(f"`{old.name}` is missing", where=f"source `{old.parent}`", fix="copy the folder again")
    parts = {new: new.with_name(f"{new.name}.{os.getpid()}.part") for new in files.values()}
    memory = MEMORY_BYTES + MEMORY_FACTOR * max(old.stat().st_size for old in files)
    pairs = [str(p) for old, new in files.items() for p in (old, parts[new])]
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(memory), str(limit_seconds), *pairs],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=limit_seconds * 2,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0 or not all(part.is_file() for part in parts.values()):
            said = (done.stderr.strip().splitlines() or ["it was stopped at its limits"])[-1]
            raise _refused(first, " ".join(said.split())[:200])
        for new, part in parts.items():
            os.replace(part, new)
    except subprocess.TimeoutExpired as error:
        raise _refused(first, f"it took more than {limit_seconds} seconds") from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return list(files.values())


def _refused(old: Path, said: str) -> Problem:
    return Unreadable(
        f"`{old.name}` could not be converted: {said}",
        where=f"source `{old.parent}`",
        fix="get the model as safetensors from its origin, or ask its author to save it with `save_pretrained`",
    )


def _tensors(loaded: Any) -> dict[str, Any]:
    """Tensors by name, contiguous, tied ones once."""
    import torch

    for key in ("state_dict", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise SystemExit("it holds more than tensors by name")
    seen: dict[tuple[Any, ...], str] = {}
    kept: dict[str, Any] = {}
    for name, tensor in sorted(loaded.items()):
        place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() and seen.setdefault((*place, tensor.dtype), name) != name:
            continue
        kept[str(name)] = tensor.detach().clone().contiguous()
    return kept


def _child(memory: int, seconds: int, files: list[str]) -> None:
    """What the limited process does."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    except (ImportError, ValueError):  # no such limits on this system; the time limit of the parent remains
        pass
    import pickle

    import torch
    from safetensors.torch import save_file

    for old, new in zip(files[::2], files[1::2], strict=True):
        try:
            loaded = torch.load(old, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            text = " ".join(str(error).split())
            raise SystemExit(f"it holds more than tensors ({text[:120]})") from error
        except (MemoryError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise SystemExit(f"it is damaged or too large ({' '.join(str(error).split())[:120]})") from error
        save_file(_tensors(loaded), new, metadata={"format": "pt"})


if __name__ == "__main__":
    _child(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
