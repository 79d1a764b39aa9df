"""`headstart predict`: what goes in, and the three kinds of file that come out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import headstart as hs
from cli.conftest import Shell, houses, table, tickets
from cli.test_json import validator
from journey import shelves


@pytest.fixture(scope="session")
def image_result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved result of light and dark images."""
    folder = tmp_path_factory.mktemp("images")
    for side, first in (("train", 0), ("test", 10)):
        for name, shade in (("day", 240), ("night", 10)):
            _images(folder / side / name, shade, first)
    target = hs.read_target(folder / "train", test=folder / "test")
    with pytest.MonkeyPatch.context() as patch:
        shelves.cheap_baselines(patch, "pixel_logistic")
        hs.solve(target, None, hs.Budget(trials=1), out=folder / "result", executor="in_process", show="none")
    return folder / "result"


def _images(folder: Path, shade: int, first: int, count: int = 6) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for at in range(first, first + count):
        Image.new("RGB", (16, 12 + at), (shade, shade - at % 5, at)).save(folder / f"{at}.png")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tickets(tmp_path / "new.csv", 6, seed=2)


def test_csv_on_stdout_and_a_word_on_stderr(shell: Shell, text_result: Path, new: Path) -> None:
    said = shell("predict", text_result, new)
    rows = list(csv.DictReader(said.out.splitlines()))
    assert list(rows[0]) == ["label", "card", "refund"]
    assert len(rows) == 6
    assert float(rows[0]["card"]) + float(rows[0]["refund"]) == pytest.approx(1, abs=1e-5)
    assert said.err == f"predicted 6 rows with `{text_result}`; --out FILE keeps them\n"


def test_three_kinds_of_file_hold_the_same(shell: Shell, text_result: Path, new: Path, tmp_path: Path) -> None:
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        assert shell("predict", text_result, new, "--out", f"made/{name}").out == f"saved `made/{name}` (6 rows)\n"
    made = tmp_path / "made"
    lines = [json.loads(line) for line in (made / "p.jsonl").read_text().splitlines()]
    assert pq.read_table(made / "p.parquet").to_pylist() == lines
    with (made / "p.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [line["label"] for line in lines]
    assert hs.load(text_result).predict(new).labels == tuple(line["label"] for line in lines)


def test_a_file_is_replaced_only_when_asked(shell: Shell, text_result: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("mine")
    said = shell("predict", text_result, new, "--out", "p.csv")
    assert (said.code, said.out, (tmp_path / "p.csv").read_text()) == (1, "", "mine")
    assert "--overwrite" in said.err
    assert shell("predict", text_result, new, "--out", "p.csv", "--overwrite").code == 0
    said = shell("predict", "no result", "no file", "--out", "p.doc")  # told before anything is read
    assert "end it in .csv, .jsonl or .parquet" in said.err


def test_labels_that_are_new_are_no_matter(shell: Shell, text_result: Path, tmp_path: Path) -> None:
    rows = [("where is my card", "unheard of"), ("refund please", ""), ("", "card")]
    said = shell("predict", text_result, table(tmp_path / "n.csv", ("text", "intent"), rows), "--json")
    assert (said.code, said.document["rows"]) == (0, 3)
    assert {p["label"] for p in said.document["predictions"]} <= {"card", "refund"}


def test_a_missing_column_is_named(shell: Shell, text_result: Path, number_result: Path, tmp_path: Path) -> None:
    said = shell("predict", text_result, table(tmp_path / "n.csv", ("body", "id"), [("hello", 1)]))
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[0] == "error: the table lacks `text`; its columns are `body`, `id`"
    assert "as in the table that was trained on" in said.err
    said = shell("predict", number_result, table(tmp_path / "h.csv", ("area", "town"), [(40, "A")]))
    assert "lacks `city`" in said.err


def test_cells_that_were_never_seen_are_predicted_too(shell: Shell, number_result: Path, tmp_path: Path) -> None:
    file = table(tmp_path / "h.csv", ("city", "area", "more"), [("Z", 50, 1), ("", "", 2), ("A", 100, 3)])
    said = shell("predict", number_result, file, "--json")
    assert said.code == 0, said.out
    assert all(isinstance(p["label"], float) for p in said.document["predictions"])


def test_no_rows_give_no_predictions(shell: Shell, text_result: Path, tmp_path: Path) -> None:
    said = shell("predict", text_result, table(tmp_path / "n.csv", ("text",), []), "--json")
    assert (said.code, said.document["predictions"]) == (0, [])


def test_a_folder_of_images(shell: Shell, image_result: Path, tmp_path: Path) -> None:
    _images(tmp_path / "new", 250, 20, 3)
    said = shell("predict", image_result, tmp_path / "new", "--json")
    validator("predict").validate(said.document)
    assert [(p["image"], p["label"]) for p in said.document["predictions"]] == [(f"2{i}.png", "day") for i in range(3)]
    assert shell("predict", image_result, "new").out.splitlines()[:1] == ["image,label,day,night"]
    file = table(tmp_path / "list.csv", ("image",), [("new/21.png",)])
    assert shell("predict", image_result, file).out.splitlines()[1].startswith("new/21.png,day,")
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    said = shell("predict", image_result, tmp_path / "new")
    assert (said.code, said.out) == (1, "")
    assert "1 of 4 images cannot be read" in said.err
    assert "broken.png" in said.err


def test_numbers_are_predicted_as_numbers(shell: Shell, number_result: Path, tmp_path: Path) -> None:
    said = shell("predict", number_result, houses(tmp_path / "h.csv", 4, seed=5))
    rows = said.out.splitlines()
    assert (said.code, rows[0], len(rows)) == (0, "label", 5)
    assert all(float(row) > 0 for row in rows[1:])
