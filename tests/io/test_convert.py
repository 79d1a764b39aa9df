"""Pickles become safetensors in a limited process; pickles that run code never do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from headstart.core import Refused, Unreadable
from headstart.io import sources
from headstart.io.convert import convert

Shelf = Callable[..., Path]


class Evil:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.place,)


def pickled(shelf: Shelf, folder: Path) -> Path:
    """The tiny model with its weights as `pytorch_model.bin`."""
    folder.mkdir()
    for path in shelf("bert").iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(shelf("bert") / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


def test_a_converted_model_is_the_same_model(shelf: Shelf, tmp_path: Path) -> None:
    folder = pickled(shelf, tmp_path / "model")
    assert [p.name for p in convert(folder)] == ["model.safetensors"]
    assert sources.scan(folder)[0][0].weights == sources.scan(shelf("bert"))[0][0].weights
    assert (folder / "pytorch_model.bin").exists()
    assert not list(folder.glob("*.part"))
    with pytest.raises(Refused):
        convert(folder)


def test_shards_become_shards_and_tied_tensors_are_kept_once(shelf: Shelf, tmp_path: Path) -> None:
    folder = pickled(shelf, tmp_path / "model")
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    names = sorted(tensors)
    tensors["tied"] = tensors[names[0]]
    where = {}
    for number, some in enumerate((["tied", *names[:5]], names[5:]), start=1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({n: tensors[n] for n in some}, folder / file)
        where |= dict.fromkeys(some, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    assert len(convert(folder)) == 2
    assert sources.scan(folder)[0][0].weights == sources.scan(shelf("bert"))[0][0].weights


def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(shelf: Shelf, tmp_path: Path) -> None:
    folder = pickled(shelf, tmp_path / "model")
    torch.save({"x": Evil(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(Unreadable, match="more than tensors"):
        convert(folder)
    assert not (tmp_path / "ran").exists()
    assert not (folder / "model.safetensors").exists()
    assert not list(folder.glob("*.part"))


def test_a_damaged_pickle_is_unreadable(shelf: Shelf, tmp_path: Path) -> None:
    folder = pickled(shelf, tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(Unreadable):
        convert(folder)


def test_values_that_are_no_tensors_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    folder = pickled(shelf, tmp_path / "model")
    torch.save({"x": torch.zeros(2), "epoch": 3}, folder / "pytorch_model.bin")
    with pytest.raises(Unreadable, match="more than tensors"):
        convert(folder)
