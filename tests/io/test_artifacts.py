"""Artifacts come back from their folder bit for bit, and hostile folders are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart import catalogue
from headstart.core import Steps, Unreadable
from headstart.io import artifacts
from headstart.numerics.artifacts import Delta, Head, Model, Step, Table
from headstart.numerics.steps import apply, constant
from headstart.testing.adaptation_baselines import cells, draw

HEAD = Head(np.eye(2, 3, dtype=np.float32), np.array([0.5, -0.5], np.float32), "softmax")
BASELINES = {e.name: e.load()() for e in catalogue.entries("adaptation.baselines").values()}


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_folder_predicts_what_the_fitting_did(name: str, tmp_path: Path) -> None:
    method = BASELINES[name]
    for modality, task in cells(method.needs):
        view, _ = draw(modality, task, 7)
        made = method(view, None, Steps(horizon=2))
        place = tmp_path / f"{modality}-{task}"
        artifacts.write(made.artifact, place)
        again = artifacts.read(place)
        assert isinstance(again, Table)
        np.testing.assert_array_equal(apply(again, view.valid), made.predictions)


def test_a_head_comes_back(tmp_path: Path) -> None:
    artifacts.write(HEAD, tmp_path / "a")
    again = artifacts.read(tmp_path / "a")
    assert isinstance(again, Head)
    np.testing.assert_array_equal(again(np.ones((1, 3))), HEAD(np.ones((1, 3))))


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    tensors = {"out": tied, "in": tied, "half": torch.ones(3, dtype=torch.bfloat16), "turned": tied.T}
    artifacts.write(Model(tensors, HEAD), tmp_path / "a")
    again = artifacts.read(tmp_path / "a")
    assert isinstance(again, Model)
    assert {k: v.dtype for k, v in again.tensors.items()} == {k: v.dtype for k, v in tensors.items()}
    assert all(torch.equal(again.tensors[k], v) for k, v in tensors.items())
    assert again.tensors["in"].data_ptr() == again.tensors["out"].data_ptr()


def test_a_delta_keeps_its_base_and_configuration(tmp_path: Path) -> None:
    delta = Delta("f" * 64, "lora", {"a": torch.ones(2, 2)}, {"r": 8, "target_modules": ["q"]}, HEAD)
    artifacts.write(delta, tmp_path / "a")
    again = artifacts.read(tmp_path / "a")
    assert isinstance(again, Delta)
    assert (again.base, again.form, again.config) == (delta.base, "lora", delta.config)


def test_names_are_never_paths(tmp_path: Path) -> None:
    step = Step(kind="../../evil", arrays={"../x": np.ones(2)}, texts={"/etc/passwd": "root", "..": "up"})
    artifacts.write(Table((step,)), tmp_path / "in" / "a")
    assert sorted(p.name for p in (tmp_path / "in" / "a").iterdir()) == [
        "arrays.safetensors", "artifact.json", "text-00-0.txt", "text-00-1.txt",
    ]  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    again = artifacts.read(tmp_path / "in" / "a")
    assert isinstance(again, Table)
    assert again.steps[0].texts == step.texts


def test_texts_come_back_whatever_they_hold(tmp_path: Path) -> None:
    text = "a\r\nb\0\u2028\ud800 é 漢"
    artifacts.write(Table((Step(kind="x", texts={"t": text}),)), tmp_path / "a")
    again = artifacts.read(tmp_path / "a")
    assert isinstance(again, Table)
    assert again.steps[0].texts["t"] == text


def test_arrays_keep_shape_and_type(tmp_path: Path) -> None:
    arrays = {
        "none": np.zeros((0, 3)),
        "one": np.array(7, np.int64),
        "yes": np.array([True]),
        "turned": np.eye(3)[::-1].T,
    }
    artifacts.write(Table((Step(kind="x", arrays=arrays),)), tmp_path / "a")
    again = artifacts.read(tmp_path / "a")
    assert isinstance(again, Table)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again.steps[0].arrays[name], array, strict=True)


def test_python_objects_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    step = Step(kind="x", arrays={"bad": np.array([object()])})
    with pytest.raises(TypeError, match="cannot be saved"):
        artifacts.write(Table((step,)), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def changed(folder: Path, **values: object) -> None:
    said = json.loads((folder / "artifact.json").read_text())
    (folder / "artifact.json").write_text(json.dumps(said | values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": 2}, "format 2, and this version reads up to 1"),
        ({"format": "1"}, "its format is '1'"),
        ({"form": "pickle"}, "damaged"),
        ({"steps": [{"kind": "linear"}]}, "damaged"),
        ({"steps": [{"kind": "x", "settings": {}, "arrays": ["../../row"], "texts": []}]}, "damaged"),
        ({"steps": [{"kind": "x", "settings": {}, "arrays": [], "texts": ["../../t"]}]}, "`text-00-0.txt` is damaged"),
    ],
)
def test_hostile_descriptions_are_refused(values: dict[str, object], said: str, tmp_path: Path) -> None:
    artifacts.write(Table((constant(np.ones(2)),)), tmp_path / "a")
    changed(tmp_path / "a", **values)
    with pytest.raises(Unreadable, match=said):
        artifacts.read(tmp_path / "a")


@pytest.mark.parametrize("file", ["artifact.json", "arrays.safetensors"])
@pytest.mark.parametrize("harm", ["cut", "gone", "junk", "deep"])
def test_damage_names_the_file(file: str, harm: str, tmp_path: Path) -> None:
    artifacts.write(Table((constant(np.ones(2)),)), tmp_path / "a")
    path = tmp_path / "a" / file
    content = path.read_bytes()
    junk = {"cut": content[: len(content) // 2], "junk": b"\xff\x00\x80", "deep": b"[" * 100_000}
    path.unlink() if harm == "gone" else path.write_bytes(junk[harm])
    with pytest.raises(Unreadable, match=f"`{file}` is damaged"):
        artifacts.read(tmp_path / "a")


def test_no_pickle_anywhere(tmp_path: Path) -> None:
    artifacts.write(HEAD, tmp_path / "a")
    assert {p.suffix for p in (tmp_path / "a").iterdir()} == {".json", ".safetensors"}
