"""Format 1: written whole or not at all, read with its damage named, and a stored result of it that stays readable."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core import Columns, Measured, Problem, Receipt, Refused, Task, Unreadable
from headstart.io import results
from headstart.numerics.artifacts import Table
from headstart.numerics.steps import constant

GOLDEN = Path(__file__).parents[1] / "data"
TASK = Task(type="single_label", classes=("no", "yes"))
COLUMNS = Columns(label="y", features=(("size", "number"), ("colour", "category")))
RECEIPT = Receipt(step="solve", method="majority", seeds=(0,), scores={"macro_f1": Measured(0.5, 0.4, 0.6, 99)})
ROWS = pa.table({"size": [1.0, 2.0], "colour": ["red", None]})


def member(*row: float, weight: float = 1.0) -> results.Member:
    return results.Member(artifact=Table((constant(np.array(row)),)), weight=weight, name="majority")


def write(out: Path, *members: results.Member, **more: Any) -> Path:
    given: dict[str, Any] = {"task": TASK, "modality": "table", "metric": "macro_f1", "columns": COLUMNS}
    given |= {"receipt": RECEIPT, "summary": {"verdict": "no-evidence", "seconds": float("inf")}}
    return results.write(out, members=members or (member(0.25, 0.75),), **(given | more))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    saved = results.read(write(tmp_path / "out", rows={"train": ["aa"], "test": ["bb", "cc"]}, name="ключ"))
    assert (saved.task, saved.columns, saved.modality, saved.receipt) == (TASK, COLUMNS, "table", RECEIPT)
    assert (saved.meta["verdict"], saved.meta["name"], saved.meta["format"]) == ("no-evidence", "ключ", 1)
    assert saved.meta["summary"]["seconds"] is None  # not finite, which JSON cannot say
    assert results.rows_of(saved.folder) == {"train": ("aa",), "test": ("bb", "cc")}
    np.testing.assert_array_equal(saved.predict_rows(ROWS), [[0.25, 0.75]] * 2)


def test_an_ensemble_is_the_weighted_mean(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", member(1.0, 0.0, weight=3), member(0.0, 1.0, weight=1))
    np.testing.assert_allclose(results.read(folder).predict_rows(ROWS), [[0.75, 0.25]] * 2)


def test_a_copy_elsewhere_predicts_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    wanted = results.read(folder).predict_rows(ROWS)
    shutil.move(folder, tmp_path / "ünï cödé")
    np.testing.assert_array_equal(results.read(tmp_path / "ünï cödé").predict_rows(ROWS), wanted)


def test_others_write_beside_it(tmp_path: Path) -> None:
    def beside(staging: Path) -> None:
        (staging / "report.html").write_text("<p>")
        write(staging / "candidate", member(0.5, 0.5))

    table = pa.table({"id": ["a"], "yes": [0.5]})
    folder = write(tmp_path / "out", beside=beside, predictions=table)
    assert (folder / "report.html").read_text() == "<p>"
    assert results.read(folder / "candidate").predict_rows(ROWS)[0, 0] == 0.5
    assert pq.read_table(folder / "predictions.parquet").equals(table)
    assert not list(folder.rglob(".staging-*"))


def test_a_result_is_replaced_only_when_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", beside=lambda s: (s / "README.md").write_text("old"))
    before = content(folder)
    with pytest.raises(Refused, match="--overwrite"):
        write(folder, member(1.0, 0.0))
    with pytest.raises(Refused, match="holds something"):
        results.admit(folder)
    assert content(folder) == before
    write(folder, member(1.0, 0.0), overwrite=True)
    assert results.read(folder).predict_rows(ROWS)[0, 0] == 1.0
    assert not (folder / "README.md").exists()


def test_a_folder_with_other_files_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "run" / "journal.jsonl").write_text("{}")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    folder = write(tmp_path / "out")
    assert (folder / "run" / "journal.jsonl").exists()
    assert (folder / "notes.txt").read_text() == "mine"


def test_somebody_elses_files_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(Refused):
        write(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused):
        write(tmp_path / "file")


def test_what_a_kill_left_is_cleared_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "run").mkdir(parents=True)
    (out / "members" / "07").mkdir(parents=True)  # moved before the kill
    (out / ".staging-dead" / "members").mkdir(parents=True)
    with pytest.raises(Unreadable, match="only an unfinished run"):
        results.read(out)
    write(out)
    assert sorted(p.name for p in out.iterdir()) == ["headstart.json", "members", "receipt.json", "run"]
    assert [p.name for p in (out / "members").iterdir()] == ["00"]


def events(tmp_path: Path) -> list[str]:
    seen: list[str] = []
    write(tmp_path / "events", event=seen.append, rows={"train": []}, predictions=ROWS)
    return seen


@pytest.mark.parametrize("fault", ["crash", "full"])
def test_a_fault_at_any_write_leaves_no_half_result(fault: str, tmp_path: Path) -> None:
    for number, name in enumerate(events(tmp_path)[:-1]):
        out = tmp_path / f"{number}"
        (out / "run").mkdir(parents=True)

        def stop(event: str, at: str = name) -> None:
            if event == at:
                raise KeyboardInterrupt if fault == "crash" else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(KeyboardInterrupt if fault == "crash" else Unreadable) as caught:
            write(out, event=stop, rows={"train": []}, predictions=ROWS)
        if isinstance(caught.value, Problem):
            assert "disk is full" in caught.value.what
        assert [p.name for p in out.iterdir()] == ["run"], name
        write(out)
        assert results.read(out).predict_rows(ROWS).shape == (2, 2)


def test_a_new_folder_is_taken_away_again(tmp_path: Path) -> None:
    def full(event: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Unreadable, match="disk is full"):
        write(tmp_path / "out", event=full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_folder_is_one_clear_problem(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", refused)
    for call in (lambda: write(tmp_path / "out"), lambda: results.admit(tmp_path)):
        with pytest.raises(Unreadable, match="cannot be written to"):
            call()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreadable, match="no place to write to"):
        results.admit(tmp_path / "file" / "out")


def test_admit_leaves_nothing(tmp_path: Path) -> None:
    results.admit(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("harm", ["gone", "cut", "same size"])
def test_damage_names_the_file(harm: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    for name in ("members/00/arrays.safetensors", "members/00/artifact.json", "receipt.json"):
        path, before = folder / name, (folder / name).read_bytes()
        if harm == "gone":
            path.unlink()
        else:
            path.write_bytes(before[:-1] + (b"" if harm == "cut" else b"!"))
        with pytest.raises(Unreadable, match=f"`{Path(name).name}` is damaged"):
            results.read(folder)
        path.write_bytes(before)
    results.read(folder)


def changed(folder: Path, **values: Any) -> None:
    said = json.loads((folder / "headstart.json").read_text())
    (folder / "headstart.json").write_text(json.dumps(said | values))


def test_a_newer_format_says_how_to_upgrade(tmp_path: Path) -> None:
    changed(write(tmp_path / "out"), format=2)
    with pytest.raises(Unreadable, match="pip install --upgrade headstart"):
        results.read(tmp_path / "out")


@pytest.mark.parametrize(
    "values",
    [
        {"members": [{"folder": "../../evil", "kind": "table", "weight": 1}]},
        {"members": [{"folder": "/etc", "kind": "table", "weight": 1}]},
        {"members": []},
        {"members": [{"folder": "members/00", "kind": "table", "weight": -1}]},
        {"members": [{"folder": "members/00", "kind": "code", "weight": 1}]},
        {"files": {"../../../etc/passwd": {"bytes": 1, "sha256": ""}}},
        {"task": {"type": "single_label", "classes": None}},
        {"columns": {"unknown": 1}},
    ],
)
def test_hostile_manifests_are_refused(values: dict[str, Any], tmp_path: Path) -> None:
    changed(write(tmp_path / "out"), **values)
    with pytest.raises(Unreadable):
        results.read(tmp_path / "out").predict_rows(ROWS)


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    shutil.move(folder / "members" / "00", tmp_path / "elsewhere")
    (folder / "members" / "00").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unreadable, match="leads out"):
        results.read(folder)


def test_no_result_there(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"no `headstart\.json`"):
        results.read(tmp_path)


def test_the_stored_table_result_of_format_1_predicts_its_stored_numbers() -> None:
    """Made once by `column_linear` and `lightgbm` on a drawn table; must be readable for good."""
    saved = results.read(GOLDEN / "format1-table")
    expected = json.loads((GOLDEN / "format1-table.json").read_text(encoding="utf-8"))
    rows = pa.table({"size": pa.array(expected["size"], pa.float64()), "colour": pa.array(expected["colour"])})
    np.testing.assert_allclose(saved.predict_rows(rows), expected["predictions"], rtol=1e-9)
    assert saved.receipt.scores["macro_f1"].rows == 60


def test_the_stored_text_result_of_format_1_predicts_its_stored_numbers() -> None:
    """Made once by `word_char_tfidf`; its n-grams must be cut and weighted in the same way for good."""
    saved = results.read(GOLDEN / "format1-text")
    expected = json.loads((GOLDEN / "format1-text.json").read_text(encoding="utf-8"))
    found = saved.predict_rows(pa.table({"text": expected["text"]}))
    np.testing.assert_allclose(found, expected["predictions"], rtol=1e-9)
