"""Artifacts on disk, without pickle: numbers as safetensors, the rest as JSON and text.

artifact.json        format, form (`head`, `model`, `delta` or `table`), and what describes it
arrays.safetensors   arrays of the head or of the steps, named `NUMBER.NAME`
model.safetensors    tensors of a model or a delta; tied ones once, with their other names in artifact.json
text-NUMBER.txt      a vocabulary, or LightGBM's text of its trees

No name inside these files is ever used as a path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from headstart.core import Unreadable
from headstart.numerics.artifacts import Array, Artifact, Delta, Head, Link, Model, Step, Table

from . import atomic

if TYPE_CHECKING:
    import torch

FORMAT = 1
HEAD_ARRAYS = ("weight", "bias")
KNOWN = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def write(artifact: Artifact, folder: str | Path) -> None:
    """The artifact as a new folder, whole or not at all; one that is there is replaced."""
    with atomic.new_folder(Path(folder), overwrite=True) as staging:
        write_into(artifact, staging)


def write_into(artifact: Artifact, folder: Path) -> None:
    """The artifact's files into a folder that its caller makes whole."""
    said: dict[str, Any] = {"format": FORMAT, "form": type(artifact).__name__.lower()}
    arrays: dict[str, Array] = {}
    if isinstance(artifact, Table):
        said["steps"] = []
        for number, step in enumerate(artifact.steps):
            texts = sorted(step.texts)
            said["steps"].append(
                {"kind": step.kind, "settings": dict(step.settings), "arrays": sorted(step.arrays), "texts": texts}
            )
            arrays |= {f"{number}.{name}": array for name, array in step.arrays.items()}
            for at, name in enumerate(texts):
                (folder / _text_file(number, at)).write_bytes(step.texts[name].encode("utf-8", "surrogatepass"))
    else:
        head = artifact if isinstance(artifact, Head) else artifact.head
        said["link"] = head.link
        arrays = {f"0.{name}": getattr(head, name) for name in HEAD_ARRAYS}
    if isinstance(artifact, Model | Delta):
        said["tied"] = _write_tensors(artifact.tensors, folder / "model.safetensors")
    if isinstance(artifact, Delta):
        said |= {"base": artifact.base, "delta": artifact.form, "config": dict(artifact.config)}
    save_file({k: _plain(k, v) for k, v in arrays.items()}, folder / "arrays.safetensors")
    (folder / "artifact.json").write_text(atomic.dumps(said), encoding="utf-8")


def read(folder: str | Path) -> Artifact:
    """The artifact in a folder. Raises `Unreadable`, naming the file, when it is damaged or newer."""
    place = Path(folder)
    said = read_described(place / "artifact.json", FORMAT)
    arrays = _arrays(place / "arrays.safetensors")
    try:
        if said["form"] == "table":
            return Table(tuple(_step(place, n, s, arrays) for n, s in enumerate(said["steps"])))
        if said["link"] not in get_args(Link):
            raise ValueError(f"the link is {said['link']!r}")
        head = Head(arrays["0.weight"], arrays["0.bias"], said["link"])
        if said["form"] == "head":
            return head
        tensors = _tensors(place / "model.safetensors", said["tied"])
        if said["form"] == "model":
            return Model(tensors, head)
        if said["form"] == "delta" and said["delta"] == "lora":
            return Delta(str(said["base"]), "lora", tensors, dict(said["config"]), head)
        raise ValueError(f"the form is {said['form']!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(place / "artifact.json", f"{type(error).__name__}: {error}") from error


def read_described(path: Path, newest: int, key: str = "format") -> dict[str, Any]:
    """A JSON object whose format number is one that this version knows."""
    try:
        said = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    except (ValueError, RecursionError, OSError) as error:
        raise damaged(path, " ".join(str(error).split())[:120]) from error
    version = said.get(key) if isinstance(said, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise damaged(path, f"its format is {version!r}")
    if version > newest:
        raise Unreadable(
            f"`{path.name}` has format {version}, and this version reads up to {newest}",
            where=f"`{path.parent}`",
            fix="upgrade with `pip install --upgrade headstart`",
        )
    return dict(said)


def damaged(path: Path, what: str) -> Unreadable:
    return Unreadable(
        f"`{path.name}` is damaged: {what}",
        where=f"`{path.parent}`",
        fix="copy the folder again from its origin, or make it again",
    )


def _text_file(number: int, at: int) -> str:
    return f"text-{number:02d}-{at}.txt"


def _plain(name: str, array: Array) -> Array:
    made = np.ascontiguousarray(array)
    if made.dtype.name not in KNOWN:
        raise TypeError(f"the array `{name}` holds {made.dtype}, which cannot be saved as plain numbers")
    return made.reshape(np.shape(array))


def _arrays(path: Path) -> dict[str, Array]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise damaged(path, " ".join(str(error).split())[:120]) from error


def _step(place: Path, number: int, said: Mapping[str, Any], arrays: Mapping[str, Array]) -> Step:
    texts = {}
    for at, name in enumerate(said["texts"]):
        file = place / _text_file(number, at)
        try:
            texts[str(name)] = file.read_bytes().decode("utf-8", "surrogatepass")
        except (OSError, ValueError) as error:
            raise damaged(file, " ".join(str(error).split())[:120]) from error
    kept = {str(name): arrays[f"{number}.{name}"] for name in said["arrays"]}
    return Step(kind=str(said["kind"]), settings=dict(said["settings"]), arrays=kept, texts=texts)


def _write_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, str]:
    """Each storage once; gives the other names of tied tensors."""
    from safetensors.torch import save_file as save_tensors

    first: dict[tuple[Any, ...], str] = {}
    kept: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and key in first:
            tied[name] = first[key]
            continue
        first[key] = name
        kept[name] = tensor.detach().cpu().contiguous().clone()  # a view of a larger tensor would be refused
    save_tensors(kept, path)
    return tied


def _tensors(path: Path, tied: Mapping[str, str]) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file as load_tensors

    try:
        found = load_tensors(path)
    except FileNotFoundError as error:
        raise damaged(path, "it is missing") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise damaged(path, " ".join(str(error).split())[:120]) from error
    return found | {name: found[same] for name, same in tied.items()}
