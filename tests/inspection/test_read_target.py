"""Tables written by hand, whose columns, task, splits and notes are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.core import Target, Unfit, Unreadable
from headstart.inspection import outer_targets, read_rows, read_target
from headstart.numerics.folds import in_test

WORDS = ["where is my card", "I want my money back", "the app does not open", "what are your fees"]


def texts(n: int, start: int = 0) -> list[str]:
    return [f"{WORDS[i % 4]} number {i}" for i in range(start, start + n)]


def table(n: int, **columns: Any) -> dict[str, Any]:
    return {"text": texts(n), "label": ["a" if i % 2 else "b" for i in range(n)], **columns}


def csv(folder: Path, columns: dict[str, list[Any]], name: str = "tickets.csv") -> Path:
    lines = [",".join(columns)] + [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def opened(target: Target) -> set[str]:
    return set(target.seal.open().inputs["text"].to_pylist())


def test_subject_and_body_are_joined_and_the_rest_is_named_as_unused(tmp_path: Path) -> None:
    n = 40
    path = csv(
        tmp_path,
        {
            "id": list(range(n)),
            "created": ["2024-01-01"] * n,
            "subject": [f"about topic {i}" for i in range(n)],
            "body": [f"dear all I write to you because of case {i}" for i in range(n)],
            "intent": ["x", "y"] * 20,
        },
    )
    target = read_target(path)
    assert (target.modality, target.task.type, target.task.classes) == ("text", "single_label", ("x", "y"))
    assert target.columns.text == ("subject", "body")
    assert target.labelled.inputs["text"][0].as_py() == "about topic 0\ndear all I write to you because of case 0"
    assert any("`id`, `created`" in note for note in target.notes)
    assert read_target(path, text="body").columns.text == ("body",)
    assert read_target(path, text="body,subject").columns.text == ("body", "subject")
    assert read_target(path, pair="subject,body").task.pair


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1] * 20, "single_label"),
        ([f"{i / 7:.3f}" for i in range(40)], "regression"),
        ([i * 37 for i in range(40)], "regression"),
        (["a;b", "b", "a", "b;c"] * 10, "multi_label"),
        (["Books, Films", "Home, Garden"] * 20, "single_label"),
        ([["a"], ["a", "b"]] * 20, "multi_label"),
        (['["a"]', '["a", "b"]'] * 20, "multi_label"),
        ([True, False] * 20, "single_label"),
        ([0.5, 1.0] * 20, "single_label"),
    ],
)
def test_the_task_type_follows_from_the_labels(labels: list[Any], expected: str) -> None:
    assert read_target({"text": texts(40), "label": labels}).task.type == expected


def test_the_task_can_be_named_and_the_metric_decides_for_numbers() -> None:
    data = {"text": texts(40), "label": [1, 2, 3, 4] * 10}
    assert read_target(data).task.classes == ("1", "2", "3", "4")
    assert read_target(data, task="regression").task.type == "regression"
    assert read_target(data, metric="rmse").task.type == "regression"
    many = {"text": texts(40), "label": list(range(40))}
    with pytest.raises(Unfit, match="no class has two that differ"):
        read_target(many, task="single-label")
    with pytest.raises(Unfit, match="no task type"):
        read_target(data, task="guessing")
    with pytest.raises(Unfit, match="cannot be read as regression"):
        read_target(table(10), task="regression")
    assert read_target({"text": texts(4), "label": ["a;b", "a;b", "c", "c"]}, task="multi_label").task.classes == (
        "a",
        "b",
        "c",
    )


def test_whole_numbers_written_as_fractions_are_the_same_classes(tmp_path: Path) -> None:
    path = csv(tmp_path, {"text": texts(9), "label": ["1.0", "2.0", ""] * 3})
    assert read_target(path).task.classes == ("1", "2")


def test_blank_labels_are_unlabelled_rows() -> None:
    labels = ["a", "b", "", None, "  ", "NaN"] * 3
    target = read_target({"text": texts(18), "label": labels})
    assert (len(target.labelled), len(target.unlabelled)) == (6, 12)
    assert target.unlabelled.labels is None
    assert any("read as blank" in note for note in target.notes)
    numbers = read_target({"text": texts(20), "label": [float("nan"), 1.5, 2.5, 3.25] * 5}, task="regression")
    assert (len(numbers.labelled), len(numbers.unlabelled)) == (15, 5)


def test_label_variants_are_pointed_out_and_not_merged() -> None:
    target = read_target({"text": texts(12), "label": ["Refund ", "refund", "other"] * 4})
    assert target.task.classes == ("Refund ", "other", "refund")
    assert target.facts["label_variants"] == [["Refund ", "refund"]]
    assert any("`Refund `, `refund`" in note for note in target.notes)


@pytest.mark.parametrize(
    ("data", "settings", "what"),
    [
        ({"text": texts(4), "mark": list("abab")}, {}, "no column is clearly the label"),
        ({"text": texts(4), "label": list("abab"), "intent": list("abab")}, {}, "2 columns may be the label"),
        (table(4), {"label": "lable"}, "`lable` is not a column"),
        (table(4), {"text": "texts"}, "`texts` is not a column"),
        (table(4), {"group": "nobody"}, "`nobody` is not a column"),
        (table(4), {"label": "text", "text": "text"}, "named as label and as input"),
        (table(4), {"pair": "text"}, "a pair has two columns"),
        ({"text": texts(4), "label": ["a"] * 4}, {}, "only the class `a`"),
        ({"text": texts(4), "label": [None] * 4}, {}, "no row with a label"),
        ({"text": [], "label": []}, {}, "no rows"),
        (table(2), {}, "no class has two that differ"),
        ({"text": texts(4), "label": [2.5] * 4}, {"task": "regression"}, "all labels are 2.5"),
        ({"text": texts(4), "label": ["1", "2", "x", "3"]}, {"task": "regression"}, "cannot be read as regression"),
        (table(4), {"test": {"text": [], "label": []}}, "the test has no rows"),
        (table(4), {"test": {"text": ["a"], "label": [""]}}, "no labelled rows"),
        (table(4), {"test": {"text": ["a"]}}, "lacks `label`"),
        (table(4), {"test": {"label": ["a"]}}, "lacks `text`"),
        (table(4), {"labels": 0}, "labels is 0"),
        (table(4), {"metric": "acuracy"}, "no metric is called"),
        ({"tokens": [["a", "b"]] * 4, "tags": [["O"]] * 4}, {}, "2 tokens and 1 tags"),
        ({"label": list("abab")}, {}, "no column can be the input"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(data: Any, settings: dict[str, Any], what: str) -> None:
    with pytest.raises(Unfit) as caught:
        read_target(data, **settings)
    assert what in caught.value.what
    assert caught.value.fix


def test_a_misspelt_column_is_answered_with_the_nearest() -> None:
    with pytest.raises(Unfit) as caught:
        read_target(table(4), label="lable")
    assert "`label`" in caught.value.fix


def test_a_class_with_one_row_is_kept_and_never_scored() -> None:
    target = read_target({"text": texts(21), "label": ["a", "b"] * 10 + ["rare"]})
    row = target.labelled.labels.tolist().index(target.task.classes.index("rare"))  # type: ignore[union-attr]
    assert all(of[row] == -1 for of in target.folds.of)
    assert all("rare" not in _names(outer) for outer in outer_targets(target))


def _names(target: Target) -> set[str]:
    return {target.task.classes[i] for i in target.seal.open().labels.tolist()}  # type: ignore[union-attr]


def test_empty_and_huge_texts_are_kept() -> None:
    data = table(10)
    data["text"][3], data["text"][4] = "", "x" * 10**6
    target = read_target(data)
    assert len(target.labelled) == 10
    assert any("no text" in note for note in target.notes)


def test_few_rows_have_no_test_of_their_own() -> None:
    target = read_target(table(50))
    assert (target.protocol, len(target.seal), len(target.labelled)) == ("outer_cv", 0, 50)


def test_a_thousand_rows_have_a_hashed_fifth_that_never_moves() -> None:
    target = read_target(table(1200))
    assert target.protocol == "holdout"
    assert abs(len(target.seal) - 240) < 50  # 3.6 standard deviations
    assert len(target.seal) + len(target.labelled) == 1200
    grown = read_target(table(1500))
    assert set(target.seal.content) <= set(grown.seal.content)
    assert not set(grown.seal.content) & set(grown.labelled.content)
    assert set(read_target(table(1200), seed=1).seal.content) != set(target.seal.content)


def test_the_order_of_rows_changes_neither_test_nor_folds() -> None:
    data = table(1100)
    order = np.random.default_rng(0).permutation(1100)
    one, other = read_target(data), read_target({k: [v[i] for i in order] for k, v in data.items()})
    assert set(one.seal.ids) == set(other.seal.ids)
    folds = [dict(zip(t.labelled.ids, t.folds.of[0], strict=True)) for t in (one, other)]
    assert folds[0] == folds[1]


def test_duplicates_in_other_writing_lie_on_one_side() -> None:
    data = table(1100)
    data["text"] += [f"  {t.upper()} " for t in data["text"]]
    data["label"] += data["label"]
    target = read_target(data)
    assert not set(target.seal.content) & set(target.labelled.content)
    assert len(set(target.labelled.groups)) == len(target.labelled) / 2
    for outer in outer_targets(read_target({k: v[:200] + v[1100:1300] for k, v in data.items()})):
        assert not set(outer.seal.content) & set(outer.labelled.content)


def test_groups_lie_on_one_side_and_links_between_sides_are_left_out_of_training() -> None:
    n = 1200
    group = [f"person {i % 300}" for i in range(n)]
    data = table(n, person=group)
    target = read_target(data, group="person")
    rows = dict(zip(data["text"], group, strict=True))
    test = {rows[t] for t in opened(target)}
    train = {rows[t] for t in target.labelled.inputs["text"].to_pylist()}
    assert test
    assert not test & train
    tested = next(i for i in range(n) if group[i] in test)
    trained = next(i for i in range(n) if group[i] in train)
    data["text"][trained] = data["text"][tested].upper()  # now their contents are equal
    linked = read_target(data, group="person")
    assert len(linked.seal) == len(target.seal)
    assert len(linked.labelled) == len(target.labelled) - 1
    assert any("1 training rows" in note for note in linked.notes)


def test_unlabelled_rows_that_stand_in_the_test_are_left_out() -> None:
    data = table(1100)
    data["text"] += data["text"]
    data["label"] += [None] * 1100
    target = read_target(data)
    assert not set(target.unlabelled.content) & set(target.seal.content)
    assert len(target.unlabelled) == len(target.labelled)


def test_a_test_of_your_own_never_changes() -> None:
    test = {
        "text": [texts(1)[0].upper(), "something quite new", "more of it", "no label"],
        "label": ["b", "a", "new", None],
    }
    target = read_target(table(20), test=test)
    assert (target.protocol, len(target.seal), len(target.labelled)) == ("user_test", 3, 19)
    assert target.task.classes == ("a", "b", "new")
    assert any("`new`" in note for note in target.notes)
    assert target.seal.open().labels.tolist() == [1, 0, 2]  # type: ignore[union-attr]


def test_the_latest_fifth_is_the_test() -> None:
    data = table(50, when=[f"2024-01-{1 + i // 2:02d}" for i in range(50)])
    target = read_target(data, time="when")
    assert target.protocol == "time"
    assert opened(target) == set(data["text"][40:])
    assert "when" not in target.columns.text
    with pytest.raises(Unfit, match="all rows have the same time"):
        read_target({**data, "when": [1] * 50}, time="when")
    with pytest.raises(Unfit, match="the time of row 3"):
        read_target({**data, "when": ["2024-01-01", "2024-01-02", "soon"] + ["2024-01-03"] * 47}, time="when")


def test_times_may_be_a_column_of_timestamps() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas comes with datasets")
    frame = pandas.DataFrame({**table(50), "when": pandas.date_range("2024-01-01", periods=50, tz="Europe/Berlin")})
    assert opened(read_target(frame, time="when")) == set(frame["text"][40:])


def test_small_classes_stay_in_training() -> None:
    data = table(1200)
    data["label"][:2] = ["rare", "rare"]
    targets = [read_target(data, seed=seed) for seed in range(6)]
    assert all("rare" not in _names(target) for target in targets)
    assert any("all rows of `rare`" in note for target in targets for note in target.notes)


def test_the_budget_of_labels_keeps_a_stratified_draw() -> None:
    target = read_target(table(400), labels=40)
    assert (len(target.labelled), len(target.unlabelled)) == (40, 360)
    assert np.bincount(target.labelled.labels).tolist() == [20, 20]  # type: ignore[arg-type]
    assert set(target.labelled.ids) <= set(read_target(table(400), labels=80).labelled.ids)


def test_the_seal_opens_once_and_shows_the_rows_of_its_hashes() -> None:
    target = read_target(table(1100))
    rows = target.seal.open()
    assert (rows.ids, rows.content, target.seal.opened) == (target.seal.ids, target.seal.content, 1)
    with pytest.raises(Exception, match="read before"):
        target.seal.open()


def test_the_fingerprint_follows_labels_rows_columns_and_seed() -> None:
    base = read_target(table(20)).fingerprint
    assert base == read_target(table(20), name="other").fingerprint
    changed = table(20)
    changed["label"][0] = "a"
    assert base != read_target(changed).fingerprint
    assert base != read_target(table(21)).fingerprint
    assert base != read_target(table(20), seed=1).fingerprint


def test_outer_targets_test_every_row_once() -> None:
    data = table(60)
    data["text"] += [*texts(10, start=100), data["text"][0]]
    data["label"] += [None] * 11
    target = read_target(data)
    outer = outer_targets(target)
    assert [o.protocol for o in outer] == ["holdout"] * 5
    assert sorted(i for o in outer for i in o.seal.ids) == sorted(target.labelled.ids)
    for o in outer:
        assert not set(o.seal.content) & {*o.labelled.content, *o.unlabelled.content}
        assert len(o.labelled) + len(o.seal) == 60
        assert o.folds.k == 5
    assert len({o.fingerprint for o in outer} | {target.fingerprint}) == 6


def test_columns_of_a_table_are_numbers_and_categories(tmp_path: Path) -> None:
    n = 40
    columns: dict[str, list[Any]] = {
        "id": [f"r{i:03d}" for i in range(n)], "size": [i / 3 for i in range(n)], "colour": ["red", "blue"] * 20,
        "blank": [""] * n, "count": ["NA", *range(1, n)], "label": ["x", "x", "y", "y"] * 10,
    }  # fmt: skip
    target = read_target(csv(tmp_path, columns))
    assert target.columns.features == (("size", "number"), ("colour", "category"), ("count", "number"))
    assert target.labelled.inputs["count"].null_count == 1
    new = read_rows([{"size": "7", "colour": "green", "count": ""}], target.columns, "table", target.task)
    assert new.inputs.to_pylist() == [{"size": 7.0, "colour": "green", "count": None}]
    with pytest.raises(Unfit, match="lacks `colour`"):
        read_rows([{"size": 1, "count": 2}], target.columns, "table", target.task)
    rows = [{"size": s, "colour": "red", "count": 1} for s in ("1", "big")]
    with pytest.raises(Unfit, match="`size` is `big` in row 2"):
        read_rows(rows, target.columns, "table", target.task)


def test_a_feature_that_tells_the_label_is_pointed_out() -> None:
    label = ["x", "y"] * 20
    data = {"good": np.arange(40.0) % 7, "leak": [float(v == "x") for v in label], "code": [v * 2 for v in label]}
    target = read_target({**data, "label": label})
    assert [leak["column"] for leak in target.facts["leaks"]] == ["leak", "code"]
    assert [name for name, _ in target.columns.features] == ["good", "leak", "code"]


def test_new_rows_are_read_as_the_old_ones_were() -> None:
    joined = read_target({"subject": texts(8), "body": texts(8), "label": list("abababab")}, text="subject,body")
    rows = read_rows([{"body": "B", "subject": "A"}], joined.columns, "text", joined.task)
    assert rows.inputs["text"].to_pylist() == ["A\nB"]
    assert rows.labels is None
    plain = read_target(table(8))
    known = read_rows({"text": ["x", "y", "z"], "label": ["a", "never seen", None]}, plain.columns, "text", plain.task)
    assert known.labels.tolist() == [0, -1, -1]  # type: ignore[union-attr]
    assert read_rows(["p", "q"], plain.columns, "text", plain.task).inputs["text"].to_pylist() == ["p", "q"]
    arrays = read_target((np.random.default_rng(0).normal(size=(30, 2)), [0, 1] * 15))
    assert read_rows(np.ones((2, 2)), arrays.columns, "table", arrays.task).inputs.column_names == ["x0", "x1"]
    number = read_target((np.random.default_rng(0).normal(size=(30, 1)), np.arange(30) * 0.7))
    values = read_rows(
        {"x0": [1, 2, 3], "label": ["1.5", "unheard of", ""]}, number.columns, "table", number.task
    ).labels
    assert np.array_equal(values, [1.5, np.nan, np.nan], equal_nan=True)  # type: ignore[arg-type]
    pair = read_target({"premise": texts(8), "hypothesis": texts(8, 9), "label": list("abababab")})
    two = read_rows([("p", "h")], pair.columns, "text", pair.task).inputs
    assert two.to_pylist() == [{"text": "p", "text_pair": "h"}]


def pictures(folder: Path, count: int = 8) -> Path:
    for i in range(count):
        path = folder / "äb"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (i * 9, 0, 0)).save(path)
    return folder


def test_a_folder_of_images_and_one_broken_among_them(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos")
    (folder / "b" / "broken.png").write_bytes(b"\x89PNG nonsense")
    target = read_target(folder)
    assert (target.modality, target.name, target.task.classes, len(target.labelled)) == (
        "image",
        "photos",
        ("b", "ä"),
        8,
    )
    assert "broken.png" in target.facts["unreadable"]["train"]["first"][0]["what"]
    assert any("broken.png" in note for note in target.notes)
    assert len(read_rows(pictures(tmp_path / "photos2"), target.columns, "image", target.task)) == 8
    with pytest.raises(Unreadable, match="broken"):
        read_rows(folder, target.columns, "image", target.task)
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("L", (2, 2)).save(flat / "new.png")
    assert len(read_rows(flat, target.columns, "image", target.task)) == 1
    assert len(read_rows(flat / "new.png", target.columns, "image", target.task)) == 1
    assert len(read_rows([Image.new("L", (2, 2))], target.columns, "image", target.task)) == 1


def test_only_broken_images_are_unreadable(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"no")
    with pytest.raises(Unreadable, match="none of 2 images"):
        read_target(tmp_path)


def test_images_without_classes_say_how_to_give_them(tmp_path: Path) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "x.png")
    with pytest.raises(Unfit, match="no labels"):
        read_target(tmp_path)


def test_equal_pixels_in_other_files_are_one_content(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "photos")
    Image.open(folder / "b" / "1.png").save(folder / "b" / "copy.bmp")
    target = read_target(folder)
    assert len(set(target.labelled.content)) == len(target.labelled) - 1


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname.png", "link.png"])
def test_a_table_of_paths_may_not_leave_its_folder(tmp_path: Path, path: str) -> None:
    folder = pictures(tmp_path / "data")
    Image.new("L", (2, 2)).save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    good = csv(folder, {"file": ["b/1.png", "ä/0.png", "b/3.png", "ä/2.png"], "label": list("xyxy")}, "index.csv")
    assert read_target(good).modality == "image"
    csv(folder, {"file": ["b/1.png", "ä/0.png", "b/3.png", path], "label": list("xyxy")}, "bad.csv")
    with pytest.raises(Unreadable, match="leads out of the folder") as caught:
        read_target(folder / "bad.csv")
    assert "row 4" in caught.value.where


def test_tokens_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "train.conll"
    path.write_text("\n\n".join(f"Word{i} O\nParis B-LOC" for i in range(10)), encoding="utf-8")
    target = read_target(path)
    assert (target.task.type, target.task.classes, target.metric.name) == ("tagging", ("B-LOC", "O"), "span_f1")
    assert target.labelled.inputs.column_names == ["tokens"]


def test_class_names_of_datasets_are_used_and_minus_one_is_blank() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": texts(9), "label": [0, 1, -1] * 3}, features=features)
    target = read_target(data)
    assert (target.task.classes, len(target.labelled), len(target.unlabelled)) == (("no", "yes"), 6, 3)


def test_hostile_names_and_labels_are_only_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\x1b[31m"
    data = {evil: texts(8), "label": [evil, "b"] * 4}
    target = read_target(data)
    assert target.columns.text == (evil,)
    assert evil in target.task.classes
    json.dumps(target.facts)


def test_membership_is_the_published_rule() -> None:
    target = read_target(table(1100), seed=3)
    assert all(in_test(target.seal.content, 3))
    assert not any(in_test(target.labelled.content, 3))
