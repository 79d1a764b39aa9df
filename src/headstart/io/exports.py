"""ONNX Runtime in place of torch: an encoder is exported once, kept in the cache, and run as the module it was made of.

Only files that were exported here are ever opened, from modules whose weights were read from safetensors.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headstart.core import Problem, Refused

from .atomic import PART, new_folder
from .modules import DENSE
from .places import cache_folder

PACKAGES = ("onnxruntime", "onnx", "onnxscript")
VERSION = 1
FILE = "encoder.onnx"
LAST, LAYER = "last_hidden_state", "hidden_state_"  # names of outputs
CLOSE = 1e-3  # how far a layer of an export may be from the module's, of the largest value in it
EXPORT_BYTES = 10e9  # that all exports together may take; those that were not used for longest leave first
STALE_SECONDS = 3600.0  # an unfinished export this old has lost its writer


@cache
def installed() -> bool:
    """Whether the packages of the extra `onnx` are here."""
    return {one.name for one in distributions()} >= set(PACKAGES)


def key_of(identity: str) -> str:
    """What an export is kept under: the fingerprint of its source, and all that writes exports."""
    makers = [f"{name} {version(name)}" for name in ("torch", "transformers", *PACKAGES)]
    return hashlib.sha256("\n".join([f"export {VERSION}", identity, *makers]).encode()).hexdigest()


def export_folder() -> Path:
    """Exports by key, beside the feature cache."""
    return cache_folder().parent / "exports"


def is_kept(key: str, *, int8: bool) -> bool:
    """Whether this export is in the cache."""
    return _file(key, int8).is_file()


def exported(module: nn.Module, example: Mapping[str, torch.Tensor], key: str, *, int8: bool) -> Exported:
    """The module in ONNX Runtime, from the cache, or exported and kept there.

    example: what the module is called with, at least two rows of at least two tokens, one row padded. int8: weights
    of matrix products by output channel, inputs by batch. Raises `Refused` where the module cannot be exported, or
    where its export is not near it.
    """
    file = _file(key, int8)
    with _hushed():
        if not file.is_file():
            with _refused("cannot be exported to ONNX"):
                _make(module, example, key, int8=int8)
        made = Exported(file, getattr(module, DENSE, None))
        try:
            made.run(example)
        except Refused:  # damaged; the next call makes it anew
            shutil.rmtree(file.parent, ignore_errors=True)
            raise
        with suppress(OSError):  # when it was last used is a hint
            os.utime(file.parent)
    return made


@dataclass(frozen=True, eq=False, slots=True)
class Hidden:
    """What a forward pass gives, by transformers' names."""

    last_hidden_state: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...]


class Exported(nn.Module):
    """An export that is called as the transformers module it was made of.

    dense: layers after pooling, which stay in torch.
    """

    def __init__(self, file: Path, dense: nn.Module | None = None) -> None:
        super().__init__()
        if dense is not None:
            self.add_module(DENSE, dense)
        self._file, self._threads, self._session = file, 0, None

    def forward(self, output_hidden_states: bool = False, return_dict: bool = True, **tensors: torch.Tensor) -> Hidden:
        assert return_dict
        last, *hidden = self.run(tensors, layers=output_hidden_states)
        return Hidden(last, tuple(hidden))

    def run(self, tensors: Mapping[str, torch.Tensor], *, layers: bool = True) -> list[torch.Tensor]:
        """The last hidden state, and those of all layers where they are asked for; nothing else is computed."""
        with _refused("cannot be run by ONNX Runtime"):
            session = self._opened(torch.get_num_threads())
            takes = {one.name for one in session.get_inputs()}
            gives = [one.name for one in session.get_outputs()] if layers else [LAST]
            found = session.run(gives, {name: tensor.numpy() for name, tensor in tensors.items() if name in takes})
        return [torch.from_numpy(one) for one in found]

    def _opened(self, threads: int) -> Any:
        """A session of as many threads as torch has."""
        if self._session is None or self._threads != threads:
            import onnxruntime

            onnxruntime.disable_telemetry_events()
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others want the cores too
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(self._file, options, providers=["CPUExecutionProvider"])
            self._threads = threads
        return self._session


class _Layers(nn.Module):
    """A module with its tensors in a fixed order, that gives all layers in a fixed order."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = dict(zip(self.names, tensors, strict=True))
        out = self.module(**named, output_hidden_states=True, return_dict=True)
        return (out.last_hidden_state, *out.hidden_states)


def _file(key: str, int8: bool) -> Path:
    return export_folder() / (f"{key}-int8" if int8 else key) / FILE


def _make(module: nn.Module, example: Mapping[str, torch.Tensor], key: str, *, int8: bool) -> None:
    """An export in its place: whole, or not there."""
    if int8 and not is_kept(key, int8=False):
        _make(module, example, key, int8=False)
    place = _file(key, int8).parent
    _sweep(place.parent, keep=key)
    with new_folder(place, overwrite=True) as folder:
        if int8:
            _quantise(_file(key, False), folder / FILE)
        else:
            _export(module, example, folder / FILE)
            _compare(module, example, Exported(folder / FILE))


def _export(module: nn.Module, example: Mapping[str, torch.Tensor], file: Path) -> None:
    layers = _Layers(module, tuple(example))
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        depth = len(layers(*example.values())) - 1
        torch.onnx.export(
            layers,
            tuple(example.values()),
            file,
            input_names=list(example),
            output_names=[LAST, *(f"{LAYER}{at}" for at in range(depth))],
            dynamic_shapes=(tuple(free for _ in example),),
            dynamo=True,
            external_data=True,
            verbose=False,
        )


def _quantise(exact: Path, file: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        exact,
        file,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )


def _compare(module: nn.Module, example: Mapping[str, torch.Tensor], made: Exported) -> None:
    """Raises `Refused` where a layer differs from the module's: on the example, on one row of it, and on more rows."""
    longest = int(example["attention_mask"].sum(dim=1).argmax())
    alone = {name: tensor[longest : longest + 1] for name, tensor in example.items()}
    more = {name: torch.cat([tensor, tensor.flip(0), tensor])[:, :-1] for name, tensor in example.items()}
    layers = _Layers(module, tuple(example))
    for tensors in (example, alone, more):
        seen = tensors["attention_mask"] > 0
        with torch.no_grad():
            exact = layers(*tensors.values())
        for one, other in zip(exact, made.run(tensors), strict=True):
            off = float((one - other)[seen].abs().max() / one[seen].abs().max().clamp(min=1e-12))
            if not off <= CLOSE:
                raise _refusal(f"is off by {off:.2g} of a layer's largest value when it is exported to ONNX")


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Turns the errors of exporters and of ONNX Runtime into a refusal."""
    try:
        yield
    except Problem:
        raise
    except Exception as error:  # classes of three libraries, some without any other base
        said = " ".join(str(error).split())[:160]
        raise _refusal(f"{what}: {said or type(error).__name__}") from error


def _refusal(what: str) -> Refused:
    return Refused(
        f"the encoder {what}", where="features by ONNX Runtime", fix="compute them in float32, bfloat16 or int8"
    )


def _sweep(folder: Path, keep: str) -> None:
    """Removes what killed writers left, and the exports that were not used for longest, until the rest fit."""
    now, held = time.time(), 0
    found = sorted(((p.stat().st_mtime, p) for p in folder.glob("*") if p.is_dir()), reverse=True)
    for used, place in found:
        held += sum(f.stat().st_size for f in place.glob("*"))
        lost = place.name.startswith(PART) and now - used > STALE_SECONDS
        if lost or (held > EXPORT_BYTES and not place.name.startswith((PART, keep))):
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the notes of exporters, some of which give the root logger a handler."""
    root, below = logging.getLogger(), logging.root.manager.disable
    handlers = root.handlers[:]
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(below)
        root.handlers[:] = handlers
