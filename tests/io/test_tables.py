"""Files and objects written by hand in every form; what comes back is what was put in, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.core import Problem, Unfit, Unreadable
from headstart.io.tables import read

ROWS = {"text": ["where is my card?", "naïve, “quoted” „text“", 'a "b"\nc'], "label": ["card", "other", "card"]}


def file(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def as_csv(delimiter: str) -> str:
    quoted = [[f'"{v.replace(chr(34), chr(34) * 2)}"' for v in row] for row in zip(*ROWS.values(), strict=True)]
    return "\n".join(delimiter.join(row) for row in [list(ROWS), *quoted]) + "\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_any_sane_delimiter_and_encoding(tmp_path: Path, delimiter: str, encoding: str, line_end: str) -> None:
    data = as_csv(delimiter).replace("\n", line_end).encode(encoding)
    found = read(file(tmp_path, "größe.csv", data))
    assert [t.replace("\r\n", "\n") for t in found.table["text"].to_pylist()] == ROWS["text"]
    assert found.table["label"].to_pylist() == ROWS["label"]
    assert bool(found.notes) == (encoding == "cp1252")


@given(
    st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=8),
    st.sampled_from([",", ";", "\t", "|"]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_quoted_comes_back_whole(tmp_path_factory: Any, rows: list[tuple[str, str]], delimiter: str) -> None:
    lines = [delimiter.join('"' + v.replace('"', '""') + '"' for v in row) for row in [("one", "two"), *rows]]
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    try:
        path.write_bytes("\r\n".join(lines).encode())
    except UnicodeEncodeError:
        return  # a lone surrogate, which no file holds
    if "\0" in "".join(lines):
        with pytest.raises(Unreadable):
            read(path)
        return
    found = read(path).table
    assert list(zip(found["one"].to_pylist(), found["two"].to_pylist(), strict=True)) == rows


def test_a_single_column_of_texts_is_not_cut_at_its_commas(tmp_path: Path) -> None:
    found = read(file(tmp_path, "new.csv", "text\nHello, world\nyes\n"))
    assert found.table.to_pydict() == {"text": ["Hello, world", "yes"]}


@pytest.mark.parametrize(
    ("name", "bad"), [("t.csv", "text,label\na,b\n\nc,d,e\n"), ("t.tsv", "text\tlabel\na\tb\n\nc\n")]
)
def test_a_ragged_row_is_one_error_with_file_and_line(tmp_path: Path, name: str, bad: str) -> None:
    with pytest.raises(Unreadable, match="line 4 has") as caught:
        read(file(tmp_path, name, bad))
    assert name in caught.value.where


def test_the_line_of_a_ragged_row_counts_quoted_line_breaks(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="line 5 has 1 field"):
        read(file(tmp_path, "t.csv", 'text,label\n"a\nb\nc",d\ne\n'))


def test_blank_fields_at_the_end_are_no_error(tmp_path: Path) -> None:
    found = read(file(tmp_path, "t.csv", "text,label,\na,b,\nc,d,,\n"))
    assert found.table.to_pydict() == {"text": ["a", "c"], "label": ["b", "d"]}


def test_quotation_marks_that_do_not_pair_up_stand_as_they_are_in_tab_files(tmp_path: Path) -> None:
    found = read(file(tmp_path, "t.tsv", 'text\tlabel\n"open\ta\nplain\tb\n'))
    assert found.table["text"].to_pylist() == ['"open', "plain"]
    assert found.notes


def test_a_quotation_mark_that_never_closes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"none closes it|fields"):
        read(file(tmp_path, "t.csv", 'text,label\na,"b\nc,d\n'))


def test_a_decimal_comma_is_a_point_where_semicolons_delimit(tmp_path: Path) -> None:
    found = read(file(tmp_path, "t.csv", "size;text\n1,5;a,b\n2;c\n"))
    assert found.table.to_pydict() == {"size": ["1.5", "2"], "text": ["a,b", "c"]}


def test_a_text_of_a_million_characters_is_read(tmp_path: Path) -> None:
    long = "x" * 10**6
    assert read(file(tmp_path, "t.csv", f"text,label\n{long},a\n")).table["text"][0].as_py() == long


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.xlsx", "t.arrow", "t.npz", "t.conll"])
@pytest.mark.parametrize("data", [b"", b"\0\1\2\3" * 50, b"PK\x03\x04" + b"x" * 50, b"\xff\xfe\xff"])
def test_damaged_files_are_problems_and_not_crashes(tmp_path: Path, name: str, data: bytes) -> None:
    path = file(tmp_path, name, data)
    if name in ("t.csv", "t.tsv", "t.jsonl", "t.conll") and data.startswith(b"PK"):
        return  # letters: a table of one column, or an error, as it comes
    if (name == "t.jsonl" and not data) or (name == "t.conll" and not data):
        assert read(path).table.num_rows == 0
        return
    with pytest.raises(Problem) as caught:
        read(path)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["m.pkl", "m.pickle", "m.joblib", "m.pt", "m.bin"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreadable, match="pickle"):
        read(file(tmp_path, name, b"\x80\x04."))


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    with pytest.raises(Unreadable, match="objects"):
        read(tmp_path / "t.npz")


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    file(tmp_path, "tickets.csv", "a,b\n1,2\n")
    with pytest.raises(Unreadable) as caught:
        read(tmp_path / "ticket.csv")
    assert "`tickets.csv`" in caught.value.fix


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="two columns are called `a`"):
        read(file(tmp_path, "t.csv", "a,a\n1,2\n"))


def test_json_lines_and_arrays(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": ["x", "y"]}\n\n{"text": "b", "n": 1}\n'
    found = read(file(tmp_path, "t.jsonl", lines)).table
    assert found.to_pydict() == {"text": ["a", "b"], "label": [["x", "y"], None], "n": [None, 1]}
    assert read(file(tmp_path, "t.json", '[{"a": 1}, {"a": "q"}]')).table["a"].to_pylist() == ["1", "q"]
    assert read(file(tmp_path, "u.json", '{\n"data": [{"a": 1}]}')).table["a"].to_pylist() == [1]
    with pytest.raises(Unreadable, match="line 2 is not JSON"):
        read(file(tmp_path, "bad.jsonl", '{"a": 1}\n{"a": \n'))
    with pytest.raises(Unreadable, match="row 1 is a list"):
        read(file(tmp_path, "bad2.jsonl", "[1]\n".replace("[1]", '[["a"]]')))


def test_a_lone_surrogate_in_json_becomes_a_replacement_mark(tmp_path: Path) -> None:
    assert read(file(tmp_path, "t.jsonl", '{"text": "a\\ud800"}')).table["text"].to_pylist() == ["a\ufffd"]


def test_json_as_deep_as_a_well_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        read(file(tmp_path, "t.json", "[" * 100000))


def test_a_spreadsheet_gives_its_first_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["text", "label", "n"])  # type: ignore[union-attr]  # a new workbook has a sheet
    book.active.append(["a", "x", 1])  # type: ignore[union-attr]
    book.active.append([None, None, None])  # type: ignore[union-attr]
    book.active.append(["b", "y", 2.5])  # type: ignore[union-attr]
    book.create_sheet("more")
    book.save(tmp_path / "t.xlsx")
    found = read(tmp_path / "t.xlsx")
    assert found.table.to_pydict() == {"text": ["a", "b"], "label": ["x", "y"], "n": [1.0, 2.5]}
    assert "of 2" in found.notes[0]


def test_parquet_keeps_types_and_class_names(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    table = pa.table(
        {"text": pa.array(["a"]).dictionary_encode(), "label": [1], "image": [{"bytes": b"x", "path": None}]}
    )
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet")
    assert found.classes == {"label": ("no", "yes")}
    assert found.table.schema.types[0] == pa.string()


def test_sentences_with_tags(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\nPeter NNP B-PER\n"
    found = read(file(tmp_path, "t.conll", text))
    assert found.kind == "tokens"
    assert found.table.to_pydict() == {"tokens": [["EU", "rejects"], ["Peter"]], "tags": [["B-ORG", "O"], ["B-PER"]]}
    assert read(file(tmp_path, "t.txt", text)).kind == "tokens"
    with pytest.raises(Unreadable, match="line 2 has no tag"):
        read(file(tmp_path, "bad.conll", "EU B\nrejects\n"))


def test_a_text_file_is_one_text_a_line(tmp_path: Path) -> None:
    assert read(file(tmp_path, "t.txt", "one text\nanother\n")).table["text"].to_pylist() == ["one text", "another"]


def picture(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), grey).save(path)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    for i, name in enumerate(["katze", "hünd"]):
        picture(tmp_path / name / "sub" / f"{i}.png")
        picture(tmp_path / name / f"{i}.JPG")
    file(tmp_path / "katze", "notes.txt", "x")
    file(tmp_path / "katze", ".hidden", "x")
    found = read(tmp_path)
    assert (found.kind, sorted(found.table["label"].to_pylist())) == ("images", ["hünd"] * 2 + ["katze"] * 2)
    assert all(Path(i["path"]).is_absolute() for i in found.table["image"].to_pylist())
    assert "notes.txt" in found.notes[0]
    assert ".hidden" not in found.notes[0]


def test_a_folder_that_is_split_already(tmp_path: Path) -> None:
    for side, count in (("train", 3), ("test", 2), ("valid", 1)):
        for i in range(count):
            picture(tmp_path / side / "a" / f"{i}.png")
    found = read(tmp_path)
    assert (found.table.num_rows, found.test.num_rows) == (4, 2)  # type: ignore[union-attr]
    assert "validation" in found.notes[0]


def test_classes_called_train_and_bus_are_classes(tmp_path: Path) -> None:
    for name in ("train", "bus"):
        picture(tmp_path / name / "0.png")
    assert sorted(read(tmp_path).table["label"].to_pylist()) == ["bus", "train"]


def test_tables_that_are_split_already(tmp_path: Path) -> None:
    file(tmp_path, "train-00000-of-00002.csv", "text,label\na,b\n")
    file(tmp_path, "train-00001-of-00002.csv", "text,label\nc,d\n")
    file(tmp_path, "test.csv", "text,label\ne,f\n")
    found = read(tmp_path)
    assert (found.table["text"].to_pylist(), found.test["text"].to_pylist()) == (["a", "c"], ["e"])  # type: ignore[index]


@pytest.mark.parametrize("inner", ["katze/out.png", "katze/sub"])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, inner: str) -> None:
    picture(tmp_path / "outside" / "x.png")
    picture(tmp_path / "data" / "katze" / "0.png")
    goal = tmp_path / "outside" / ("x.png" if inner.endswith(".png") else "")
    (tmp_path / "data" / inner).symlink_to(goal)
    with pytest.raises(Unreadable, match="leads out of the folder"):
        read(tmp_path / "data")


def test_a_class_folder_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "outside" / "x.png")
    picture(tmp_path / "data" / "katze" / "0.png")
    (tmp_path / "data" / "hund").symlink_to(tmp_path / "outside")
    with pytest.raises(Unreadable, match="leads out of the folder"):
        read(tmp_path / "data")


def test_folders_without_data_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="no images and no tables"):
        read(tmp_path)
    file(tmp_path, "a.csv", "x,y\n1,2\n")
    file(tmp_path, "b.csv", "x,y\n1,2\n")
    with pytest.raises(Unfit, match="2 tables"):
        read(tmp_path)


def test_objects_in_memory() -> None:
    frame = pytest.importorskip("pandas", reason="pandas comes with datasets").DataFrame
    assert read(frame({"a": [1, None], "b": ["x", None]})).table.to_pydict() == {"a": [1.0, None], "b": ["x", None]}
    assert read(frame({"a": [1, "q", None]})).table["a"].to_pylist() == ["1", "q", None]
    assert read(pa.table({"a": [1]})).table.to_pydict() == {"a": [1]}
    assert read((["a", "b"], [0, 1])).table.to_pydict() == {"text": ["a", "b"], "label": [0, 1]}
    assert read((np.zeros((2, 3)), ["a", "b"])).table.column_names == ["x0", "x1", "x2", "label"]
    assert read((np.zeros((2, 4, 4, 3), np.uint8), [0, 1])).kind == "images"
    assert read(np.zeros((2, 3, 4, 4))).kind == "images"
    assert read(["a", "b"]).kind == "texts"
    assert read([("a", "b")]).table.column_names == ["text", "text_pair"]
    assert read([{"a": 1}, {"b": 2}]).table.to_pydict() == {"a": [1, None], "b": [None, 2]}
    assert read({"text": ["a"], "label": np.array([1])}).table.to_pydict() == {"text": ["a"], "label": [1]}
    assert read([Image.new("RGB", (2, 2))]).kind == "images"
    assert read((["a"], np.array([[1, 0, 1]]))).table["label"].to_pylist() == [[0, 2]]


@pytest.mark.parametrize("data", [3, [object()], np.zeros(3), (["a"], [1, 2]), {"a": [1], "b": [1, 2]}])
def test_objects_that_are_no_data_are_unfit(data: Any) -> None:
    with pytest.raises(Unfit):
        read(data)


def test_datasets_objects_and_saved_folders(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    whole = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=features)
    found = read(whole.select([2, 1]))
    assert (found.table["text"].to_pylist(), found.classes) == (["c", "b"], {"label": ("no", "yes")})
    datasets.disable_progress_bars()
    datasets.DatasetDict(train=whole, test=whole.select([0])).save_to_disk(tmp_path / "both")
    whole.select([1]).save_to_disk(tmp_path / "one")
    both = read(tmp_path / "both")
    assert (both.table.num_rows, both.test.num_rows) == (3, 1)  # type: ignore[union-attr]
    assert read(tmp_path / "one").classes == {"label": ("no", "yes")}
    state = json.loads((tmp_path / "one" / "state.json").read_text())
    state["_data_files"][0]["filename"] = "../../elsewhere.arrow"
    (tmp_path / "one" / "state.json").write_text(json.dumps(state))
    with pytest.raises(Unreadable, match="leads out of the folder"):
        read(tmp_path / "one")
