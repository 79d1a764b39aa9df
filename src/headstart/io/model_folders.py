"""Folders of weights as a merge sees them: tensors by name, labels, and the files that belong to them.

Any folder of safetensors is read, also of models that headstart cannot run: a merge needs names, shapes and numbers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Refused, Unreadable

from .safe_files import inside, near_folder, read_any_json, read_json
from .safetensors_files import Entry, entries, weight_files

if TYPE_CHECKING:
    from headstart.numerics.delta import Form

CLASSIFIERS = ("ForSequenceClassification", "ForImageClassification", "ForTokenClassification",
               "ForAudioClassification", "ForVideoClassification")  # fmt: skip
# files that a model needs beside its weights; nothing that holds code is among them
CARRIED = (".json", ".txt", ".model", ".spm", ".codes", ".vocab", ".tiktoken", ".jinja", ".tsv")
MOST_CARRIED_BYTES = 256 * 2**20
LEFT = ("README.md", "trainer_state.json", "training_args.json", "all_results.json", "train_results.json",
        "eval_results.json", "merge.json", "delta.json")  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class ModelFolder:
    """One model on disk. name: what people call it.

    tensors: those of the main part by their own names, those of a part beside it (`2_Dense`) with its folder before.
    main: the folder of the main part, below `where`. labels: of a stored classification head, in its order, or None.
    carried: files without weights, below `where`. changes: of an adapter on it, by tensor; adapter: where that lies.
    copies: tensors of the files that are not in `tensors`, as each is one of those; notes: what is odd about the files.
    stored: name in the files, of tensors that are called otherwise here.
    """

    name: str
    where: Path
    main: str
    tensors: Mapping[str, Entry]
    config: Mapping[str, Any]
    labels: tuple[str, ...] | None
    carried: tuple[str, ...]
    changes: Mapping[str, Form] = field(default_factory=dict)
    adapter: Path | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stored: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return str(self.where) if self.adapter is None else f"{self.where}+{self.adapter}"

    @property
    def is_made(self) -> bool:
        """Whether its files are there; those of a model that another merge makes first are not yet."""
        return all(file.is_file() for file in {entry.file for entry in self.tensors.values()})

    def read_as(self, name: str) -> str:
        """The type in which a tensor's numbers come: what an adapter changes is not rounded before it is merged."""
        stored = self.tensors[name].dtype
        return "F32" if name in self.changes and stored != "F64" else stored

    @property
    def bytes(self) -> int:
        return sum(e.end - e.start for e in self.tensors.values())

    @property
    def tied(self) -> bool:
        """Whether the output embedding is the input embedding, and so is stored once."""
        return bool(self.config.get("tie_word_embeddings", True))


def read(where: str | Path, name: str | None = None) -> ModelFolder:
    """What the files say; no tensor is read.

    Raises `Unreadable` for a folder that is missing, damaged or unsafe, and `Refused` for an adapter.
    """
    folder = Path(where).expanduser().absolute()
    if not folder.is_dir():
        raise Unreadable(f"there is no folder `{where}`", where=f"model `{where}`", fix=near_folder(folder))
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise Refused(
            "this is an adapter, and a merge takes whole models",
            where=f"model `{where}`",
            fix="merge adapters with `headstart adapter merge`, or write the adapter into its base first",
        )
    main = _main(folder)
    tensors = {e.name: e for e in _entries(folder, main)}
    for beside in _beside(folder, main):
        tensors |= {f"{beside}{e.name}": e for e in _entries(folder, beside)}
    config = read_json(folder / main, "config.json", root=folder)
    return ModelFolder(
        name or folder.name, folder, main, tensors, config, _labels(config), tuple(sorted(_carried(folder)))
    )


def _entries(folder: Path, inner: str) -> list[Entry]:
    """Tensors of one part. Slashes are for parts of the folder: a name that brings its own could name another file."""
    found = entries(weight_files(folder / inner, root=folder))
    for entry in found:
        if "/" in entry.name:
            raise Unreadable(
                f"the name of the tensor `{entry.name[:80]}` holds a slash",
                where=f"model `{folder}`",
                fix="save the model again with dots in place of slashes",
            )
    return found


def _main(folder: Path) -> str:
    """Where sentence-transformers keeps the encoder; else the folder itself."""
    modules = read_any_json(folder, "modules.json")
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, dict) and str(module.get("type", "")).endswith("Transformer"):
            told = str(module.get("path") or ".")
            inside(folder, told, root=folder)
            place = os.path.normpath(told)
            if place.startswith(".."):  # into the folder again by its name, which a result has not
                raise Unreadable(
                    f"`{told}` leads out of the folder",
                    where=f"model `{folder}`",
                    fix="name the folders of modules by their own names in `modules.json`",
                )
            return "" if place == "." else f"{place}/"
    return ""


def _beside(folder: Path, main: str) -> list[str]:
    """Folders of further parts with weights, such as `2_Dense/`."""
    parts = [p for p in _parts(folder) if f"{p.name}/" != main]
    return [f"{p.name}/" for p in parts if (p / "model.safetensors").is_file()]


def _parts(folder: Path) -> list[Path]:
    """Folders inside it but for those of other models, as the checkpoints that a trainer leaves beside the last one."""
    modules = read_any_json(folder, "modules.json")
    named = [m.get("path") for m in modules if isinstance(m, dict)] if isinstance(modules, list) else []
    inner = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    return [p for p in inner if p.name in named or not _is_model(folder, p.name)]


def _is_model(folder: Path, inner: str) -> bool:
    return (folder / inner / "config.json").is_file() and "architectures" in read_json(folder, f"{inner}/config.json")


def _labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    architectures = config.get("architectures") or [""]
    if not isinstance(architectures, list) or not str(architectures[0]).endswith(CLASSIFIERS):
        return None
    named = config.get("id2label")
    if not isinstance(named, dict) or not named:
        return ("LABEL_0", "LABEL_1")  # what is not written where it is transformers' default
    try:
        return tuple(str(named[k]) for k in sorted(named, key=int))
    except ValueError:
        return tuple(str(v) for v in named.values())


def _carried(folder: Path) -> list[str]:
    found = []
    for inner in (".", *(p.name for p in _parts(folder))):
        place = folder / inner
        if inner != "." and not (place / "config.json").is_file():
            continue
        for path in sorted(place.iterdir()):
            small = path.is_file() and path.stat().st_size <= MOST_CARRIED_BYTES
            plain = path.name.endswith(CARRIED) and not path.name.endswith(".index.json") and path.name not in LEFT
            if small and plain:
                relative = os.path.normpath(f"{inner}/{path.name}")
                inside(folder, relative, root=folder)
                found.append(relative)
    return found


def carry(folder: ModelFolder, place: Path, *, without: Collection[str] = ()) -> None:
    """Copies the folder's files without weights to where a model made from it is written."""
    for name in folder.carried:
        if name in without:
            continue
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.where / name, place / name)


def shapes(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """(type, shape) of each tensor in a folder's own files, as their headers say now."""
    return {e.name: (e.dtype, e.shape) for e in entries(weight_files(folder))}
