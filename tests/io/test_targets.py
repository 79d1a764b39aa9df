"""What is dumped is loaded again, to the bit; a crash while writing leaves what was there."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from headstart.core import Refused, Rows, Unfit, Unreadable
from headstart.inspection import read_target
from headstart.io import targets
from headstart.io.targets import dump, dump_rows, load, load_rows

TEXTS = [f"text number {i}" for i in range(30)]
DATA: dict[str, Any] = {
    "single_label": (TEXTS, ["ä" if i % 2 else "b" for i in range(30)]),
    "multi_label": {"text": TEXTS, "label": [["a"], ["a", "b"], []] * 10},
    "regression": ({"x": np.arange(30.0), "k": list("abc") * 10}, np.arange(30) * 0.7),
    "tagging": {
        "tokens": [["To", "Paris"]] * 15 + [[f"w{i}"] for i in range(15)],
        "tags": [["O", "B"]] * 15 + [["O"]] * 15,
    },
}


def same(one: Rows, other: Rows) -> None:
    assert (one.ids, one.content, one.groups) == (other.ids, other.content, other.groups)
    assert one.inputs.equals(other.inputs)
    assert (one.labels is None) == (other.labels is None)
    if one.labels is not None and other.labels is not None:
        assert one.labels.dtype == other.labels.dtype
        assert one.labels.tolist() == other.labels.tolist()


@pytest.mark.parametrize("kind", list(DATA))
def test_a_target_comes_back_without_its_test(tmp_path: Path, kind: str) -> None:
    target = read_target(DATA[kind])
    assert target.task.type == kind
    dump(target, tmp_path / "out" / "target")
    back = load(tmp_path / "out" / "target")
    for name in ("name", "task", "modality", "metric", "columns", "folds", "protocol", "fingerprint", "seed", "notes"):
        assert getattr(back, name) == getattr(target, name), name
    assert back.facts == json.loads(json.dumps(target.facts))
    same(back.labelled, target.labelled)
    same(back.unlabelled, target.unlabelled)
    with pytest.raises(Refused):
        back.seal.open()


def test_the_test_is_known_by_its_hashes_and_nothing_of_it_is_written(tmp_path: Path) -> None:
    test = ([f"hidden sentence {i}" for i in range(6)], ["ä", "b"] * 3)
    target = read_target(DATA["single_label"], test=test)
    dump(target, tmp_path / "target")
    back = load(tmp_path / "target")
    assert (back.seal.ids, back.seal.content) == (target.seal.ids, target.seal.content)
    assert len(back.seal) == 6
    written = b"".join(path.read_bytes() for path in (tmp_path / "target").rglob("*") if path.is_file())
    assert b"hidden sentence" not in written
    assert b"text number" in written


def test_images_by_path_stay_paths(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), i * 20).save(tmp_path / "data" / "ab"[i % 2] / f"{i}.png")
    target = read_target(tmp_path / "data")
    dump(target, tmp_path / "target")
    images = load(tmp_path / "target").labelled.inputs["image"].to_pylist()
    assert all(image["bytes"] is None and Path(image["path"]).is_file() for image in images)


def test_rows_are_replaced_whole(tmp_path: Path) -> None:
    rows = read_target(DATA["single_label"]).labelled
    dump_rows(rows, tmp_path / "rows")
    dump_rows(rows.take([2, 0]), tmp_path / "rows")
    same(load_rows(tmp_path / "rows"), rows.take([2, 0]))
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_target(DATA["single_label"]).labelled
    dump_rows(rows, tmp_path / "rows")

    def full(table: pa.Table, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(targets, "_write_table", full)
    with pytest.raises(Unreadable, match="No space left"):
        dump_rows(rows.take([1]), tmp_path / "rows")
    monkeypatch.undo()
    same(load_rows(tmp_path / "rows"), rows)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_damaged_and_newer_folders_are_problems(tmp_path: Path) -> None:
    target = read_target(DATA["single_label"])
    dump(target, tmp_path / "t")
    with pytest.raises(Unreadable):
        load(tmp_path / "nothing")
    held = json.loads((tmp_path / "t" / "target.json").read_text())
    (tmp_path / "t" / "target.json").write_text(json.dumps({**held, "format": 2}))
    with pytest.raises(Unfit, match="format 2"):
        load(tmp_path / "t")
    (tmp_path / "t" / "target.json").write_text(json.dumps(held))
    (tmp_path / "t" / "labelled" / "inputs.arrow").write_bytes(b"ARROW1")
    with pytest.raises(Unreadable):
        load(tmp_path / "t")
