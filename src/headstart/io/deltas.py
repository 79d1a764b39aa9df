"""Deltas on disk: one safetensors file, whose metadata says what each tensor is.

metadata `headstart.delta`: JSON with the format's number, the base's fingerprint, the form of each change with its
settings, and facts. Tensors are named `NUMBER.FIELD`, small ones of the base that are gone or replaced `kept.NUMBER`,
and numbers of the base that a change does not give back `mend.NUMBER.FIELD`, so that no name of a model is ever a path
or a key to be parsed. What is read is checked before it is used: shapes, types, places within bounds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from headstart.core import Refused, Unreadable
from headstart.numerics import delta as forms
from headstart.numerics.delta import FORMS, Delta, Form, Sum

from . import atomic, fingerprints
from .model_folders import ModelFolder
from .safe_files import parsed
from .safetensors_files import Entry, entries

# 2: places of sparse changes in 4 bytes or in bits. 3: `kept` and `mends`. 4: `kept` also of tensors that are replaced.
# Files of 1 to 3 are read
FORMAT = 4
KEY = "headstart.delta"
PLAIN: dict[str, tuple[str, ...]] = {  # fields that are no tensors
    "sparse": ("shape",), "lowrank": ("shape", "scale"), "onebit": ("shape",), "quantised": ("shape", "bits", "block"),
    "masked": ("shape",), "picked": ("shape", "scale"),
}  # fmt: skip
FAR = float(torch.finfo(torch.float32).max)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def refuse_other(path: Path) -> None:
    """Raises `Refused` where something lies that is no delta, such as the weights of a model."""
    if not path.exists():
        return
    try:
        with safe_open(path, framework="pt") as file:
            ours = KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        ours = False
    if not ours:
        raise Refused(
            "something lies there already, and it is no delta",
            where=f"`{path}`",
            fix="choose another file, or remove it",
        )


def write(delta: Delta, path: Path) -> int:
    """The delta as a file, whole or not at all, in place of a delta that lies there; gives its bytes."""
    refuse_other(path)
    tensors: dict[str, torch.Tensor] = {}
    said = {name: _described(change, f"{i}", tensors) for i, (name, change) in enumerate(delta.changes.items())}
    kept = {name: f"kept.{i}" for i, name in enumerate(delta.kept)}
    tensors |= {kept[name]: tensor.detach().cpu().contiguous().clone() for name, tensor in delta.kept.items()}
    head = {
        "format": FORMAT, "base": delta.base, "changes": said, "gone": list(delta.gone), "facts": delta.facts,
        "kept": kept, "mends": {n: _described(m, f"mend.{i}", tensors) for i, (n, m) in enumerate(delta.mends.items())},
    }  # fmt: skip
    data = save(tensors, metadata={KEY: json.dumps(atomic.plain(head), sort_keys=True)})
    atomic.write_bytes(path, data)
    return len(data)


def _described(form: Form, key: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    name = type(form).__name__.lower()
    if isinstance(form, Sum):
        return {"form": name, "parts": [_described(p, f"{key}.{i}", tensors) for i, p in enumerate(form.parts)]}
    held = forms.tensors_of(form)
    for field, tensor in held.items():
        tensors[f"{key}.{field}"] = tensor.detach().cpu().contiguous().clone()
    plain = {f: getattr(form, f) for f in PLAIN.get(name, ())}
    return {"form": name, "tensors": {f: f"{key}.{f}" for f in held}, **plain}


def read(path: str | Path) -> Delta:
    """Raises `Unreadable`, naming what is wrong, for a file that is missing, damaged, newer, or no delta."""
    place = Path(path)
    if not place.is_file():
        raise Unreadable(f"there is no file `{path}`", where="delta", fix="check the path")
    try:
        entries([place])  # the header, checked as strictly as that of any weights
    except Unreadable as error:
        raise _wrong(place, error.what.removeprefix(f"`{place.name}` is damaged: ")) from error
    try:
        with safe_open(place, framework="pt") as file:
            said = parsed((file.metadata() or {}).get(KEY, "null"))
            if not isinstance(said, dict):
                raise _wrong(place, "it is no delta of headstart")
            version = said.get("format")
            if not isinstance(version, int) or version < 1:
                raise _wrong(place, f"its format is {version!r}")
            if version > FORMAT:
                raise Unreadable(
                    f"`{place.name}` has format {version}, and this version reads up to {FORMAT}",
                    where=f"`{place.parent}`",
                    fix="upgrade with `pip install --upgrade headstart`",
                )
            changes = {str(n): _form(c, file) for n, c in said["changes"].items()}
            gone = tuple(str(n) for n in said["gone"])
            kept = {str(n): file.get_tensor(str(key)) for n, key in said.get("kept", {}).items()}
            names = dict(said["facts"]).get("tensors", {})
            replaced = {names.get(n) for n, change in changes.items() if isinstance(change, forms.Whole)}
            if not kept.keys() <= {*gone, *replaced}:
                raise ValueError("it keeps a tensor of the base that is neither gone nor replaced")
            mends = {str(n): _mend(m, file, changes[n]) for n, m in said.get("mends", {}).items()}
            return Delta(str(said["base"]), changes, gone, dict(said["facts"]), kept, mends)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise _wrong(place, f"{type(error).__name__}: {' '.join(str(error).split())[:120]}") from error


def _form(said: Mapping[str, Any], file: Any) -> Form:
    kind = FORMS[said["form"]]
    if kind is Sum:
        parts = tuple(_form(p, file) for p in said["parts"])
        simple = all(isinstance(p, forms.LINEAR) and not isinstance(p, Sum) and not forms.needs_base(p) for p in parts)
        if not parts or not simple or any(forms.shape_of(p) != forms.shape_of(parts[0]) for p in parts):
            raise ValueError("a sum of changes that do not fit together")
        return Sum(parts)
    held = {str(f): file.get_tensor(str(key)) for f, key in said["tensors"].items()}
    plain: dict[str, Any] = {f: said[f] for f in PLAIN.get(said["form"], ())}
    if "shape" in plain:
        plain["shape"] = tuple(int(n) for n in plain["shape"])
        if any(n < 0 for n in plain["shape"]):
            raise ValueError("a shape below nothing")
    made: Form = kind(**held, **plain)
    _check(made)
    return made


def _mend(said: Mapping[str, Any], file: Any, change: Form) -> forms.Sparse:
    found = _form(said, file)
    if not isinstance(found, forms.Sparse) or found.shape != tuple(forms.shape_of(change)):
        raise ValueError("what mends a change does not fit it")
    return found


def _check(form: Form) -> None:
    """Raises ValueError unless the parts of a change fit together: what is applied later touches memory."""
    size = prod(forms.shape_of(form))
    if isinstance(form, forms.Sparse):
        packed, numbers = form.places.dtype == torch.uint8, form.places.dtype in (torch.int32, torch.int64)
        if form.places.dim() != 1 or not (_holds(form.places, size) if packed else numbers):
            raise ValueError("places of a sparse change do not fit its shape")
        places = forms.places_of(form)
        if form.values.shape != places.shape:
            raise ValueError("a sparse change has not as many places as values")
        if len(places) and not (int(places.min()) >= 0 and int(places.max()) < size):
            raise ValueError("places of a sparse change lie outside its tensor")
        if len(places) > 1 and not bool((places[1:] > places[:-1]).all()):
            raise ValueError("places of a sparse change do not rise")
    elif isinstance(form, forms.LowRank):
        rows = form.shape[0] if form.shape else 0
        fits = form.left.dim() == form.right.dim() == 2 and form.left.shape[1] == form.right.shape[0]
        if not fits or form.left.shape[0] != rows or rows * form.right.shape[1] != size:
            raise ValueError("the factors of a low-rank change do not fit its shape")
        if form.magnitude is not None and form.magnitude.shape != (rows,):
            raise ValueError("the magnitudes of a low-rank change do not fit its shape")
        if not isinstance(form.scale, int | float) or abs(form.scale) > FAR:
            raise ValueError("the scale of a low-rank change is no number of float32")
    elif isinstance(form, forms.OneBit):
        rows = form.shape[0] if form.shape else 1
        flat = form.signs.dim() == form.sizes.dim() == 1
        if not flat or not _holds(form.signs, size) or len(form.sizes) not in (1, rows):
            raise ValueError("signs or sizes of a one-bit change do not fit its shape")
    elif isinstance(form, forms.Masked | forms.Picked):
        if isinstance(form, forms.Picked) and not isinstance(form.scale, int | float):
            raise ValueError("the scale of a picked change is no number")
        if form.kept.dim() != 1 or not _holds(form.kept, size):
            raise ValueError("the bits of a mask do not fit its shape")
    elif isinstance(form, forms.Quantised):
        if form.bits not in (8, 4) or not isinstance(form.block, int) or form.block < 1 or form.block % 2:
            raise ValueError("the bits or the block of a quantised change are none")
        blocks = -(-size // form.block)
        codes = blocks * form.block // (1 if form.bits == 8 else 2)
        kind = torch.int8 if form.bits == 8 else torch.uint8
        if form.codes.dtype != kind or form.codes.shape != (codes,) or form.scales.shape != (blocks,):
            raise ValueError("codes or scales of a quantised change do not fit its shape")
    for field, tensor in forms.tensors_of(form).items():
        number = field in ("values", "left", "right", "sizes", "scales", "magnitude")
        if number and not isinstance(form, forms.Whole) and tensor.dtype not in FLOATS:
            raise ValueError(f"`{field}` is stored as {tensor.dtype}")


def _holds(bits: torch.Tensor, size: int) -> bool:
    """Whether packed bits are as many as a tensor has entries."""
    return bits.dtype == torch.uint8 and len(bits) == -(-size // 8)


def fingerprint(folder: ModelFolder, *, cache: Path | None = None) -> str:
    """What a delta calls its base: the fingerprint of a folder's weights, the same however they are sharded."""
    return fingerprints.of_entries(list(folder.tensors.items()), str(folder.config.get("model_type", "")), cache=cache)


def tensor(folder: ModelFolder, name: str) -> torch.Tensor:
    """One tensor of a folder, in memory."""
    entry: Entry = folder.tensors[name]
    stored = name.rpartition("/")[2] if "/" in name else name
    with safe_open(entry.file, framework="pt") as file:
        found: torch.Tensor = file.get_tensor(stored)
        return found


def check_fit(delta: Delta, folder: ModelFolder, path: Path) -> None:
    """Raises `Unreadable` where a change has no tensor in the folder that it could be added to."""
    for name, form in delta.changes.items():
        entry = folder.tensors.get(name)
        if entry is None or tuple(forms.shape_of(form)) != entry.shape:
            raise _wrong(path, f"`{name}` is no tensor of `{folder.where.name}`, or has another shape there")


def check_base(delta: Delta, folder: ModelFolder, *, cache: Path | None = None) -> None:
    """Raises `Refused` for a base that the delta was not made from."""
    mark = fingerprint(folder, cache=cache)
    if mark != delta.base:
        raise Refused(
            f"the delta was made from another base than `{folder.name}`",
            where=f"delta of {delta.base[:12]}, weights {mark[:12]}",
            fix="name the model that it was made from; `headstart delta info` says what is known of it",
        )


def _wrong(path: Path, what: str) -> Unreadable:
    return Unreadable(
        f"`{path.name}` is damaged or no delta: {what}",
        where=f"`{path.parent}`",
        fix="copy the file again from its origin, or make it again with `headstart delta diff`",
    )
