"""Bad and hostile input at the level of the shell, from the first look to the saved result.

What a room tests by itself is not repeated here: pickles, `auto_map`, links and paths out of a folder in
`io/test_sources.py`, `io/test_members.py`, `io/test_tables.py` and `io/test_results.py`; kinds of broken images in
`io/test_images.py`; every string of a report in `evidence/test_report.py`, also in a browser.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

import headstart as hs
import tiny_models
from cli.conftest import Shell, houses, table, tickets

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\u202egnp.exe",
    "two\nlines",
    "[click](javascript:alert(1))",
    ": - # yaml",
    "[bold red]markup[/]",
    "{{7*7}}",
)
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
TAGS = re.compile(r"<script>|<img src=x", re.IGNORECASE)


def rows_of(kind: str) -> list[tuple[object, object]]:
    """Rows of text and label that are wrong in one way."""
    fine = [(f"a good word {i}", "yes" if i % 2 else "no") for i in range(20)]
    return {
        "one class": [(text, "yes") for text, _ in fine],
        "no labels": [(text, "") for text, _ in fine],
        "all NaN": [(text, "NaN") for text, _ in fine],
        "some NaN": [(text, "nan" if i < 5 else label) for i, (text, label) in enumerate(fine)],
        "one row of a class": [*fine, ("another word", "rare")],
        "two rows": fine[:2],
        "empty texts": [("" if i % 2 else "  ", label) for i, (_, label) in enumerate(fine)],
        "some empty texts": [("" if i < 4 else text, label) for i, (text, label) in enumerate(fine)],
        "a long text": [("word " * 200_000, "yes"), *fine],
        "no rows": [],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("one class", "only the class `yes`"),
        ("no labels", "no"),
        ("all NaN", "no"),
        ("no rows", "no"),
        ("empty texts", "no class has two that differ"),
    ],
)
def test_a_table_to_learn_nothing_from_is_refused_in_a_sentence(
    shell: Shell, tmp_path: Path, kind: str, said: str
) -> None:
    file = table(tmp_path / "t.csv", ("text", "label"), rows_of(kind))
    for words in (("inspect", file, "--label", "label"), ("solve", file, "--label", "label", "--out", "out")):
        told = shell(*words)
        assert (told.code, told.out) == (1, "")
        assert said in told.err.splitlines()[0]
        assert len(told.err.splitlines()) == 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["one row of a class", "some NaN", "some empty texts", "a long text"])
def test_a_table_with_odd_rows_is_solved(shell: Shell, tmp_path: Path, kind: str) -> None:
    train = table(tmp_path / "train.csv", ("text", "label"), rows_of(kind))
    test = table(tmp_path / "test.csv", ("text", "label"), [(f"one good word {i}", "yes") for i in range(6)])
    given = ("--label", "label", "--text", "text")
    card = shell("inspect", train, *given, "--json").document
    expected = {"some NaN": (15, 5), "one row of a class": (21, 0), "a long text": (21, 0), "some empty texts": (20, 0)}
    assert (card["labelled"], card["unlabelled"]) == expected[kind]
    said = shell("solve", train, *given, "--test", test, "--trials", 1, "--out", "out", "--json")
    assert said.code == 0, said.out
    assert hs.load(tmp_path / "out").predict(["a good word"]).labels[0] in ("yes", "no", "rare")


def test_two_rows_are_told_what_is_missing(shell: Shell, tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", ("text", "label"), rows_of("two rows"))
    said = shell("solve", file, "--out", "out", "--trials", 1)
    assert (said.code, said.out) == (1, "")
    assert "two of each class at least" in said.err


def test_the_label_column_is_missing_or_in_doubt(shell: Shell, tmp_path: Path) -> None:
    tickets(tmp_path / "tickets.csv")
    assert "did you mean `intent`" in shell("inspect", "tickets.csv", "--label", "intents").err
    table(tmp_path / "two.csv", ("text", "label", "target"), [(f"word {i}", i % 2, i % 3) for i in range(20)])
    said = shell("inspect", "two.csv")
    assert (said.code, said.err.splitlines()[0][:31]) == (1, "error: 2 columns may be the lab")
    assert "--label label" in said.err
    table(tmp_path / "none.csv", ("a", "b"), [(f"word {i}", f"text {i}") for i in range(20)])
    assert "no column is clearly the label" in shell("inspect", "none.csv").err


def test_a_split_without_rows_is_told(shell: Shell, tmp_path: Path) -> None:
    tickets(tmp_path / "tickets.csv")
    table(tmp_path / "test.csv", ("text", "intent"), [])
    said = shell("inspect", "tickets.csv", "--label", "intent", "--test", "test.csv")
    assert (said.code, said.out) == (1, "")
    shutil.copy(tmp_path / "tickets.csv", tmp_path / "same.csv")
    said = shell("inspect", "tickets.csv", "--label", "intent", "--test", "same.csv")
    assert (said.code, said.out) == (1, "")
    assert "40 stand in the test too" in said.err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1", "cp1252"])
def test_any_encoding_is_read_or_refused_in_a_sentence(shell: Shell, tmp_path: Path, encoding: str) -> None:
    text = "text;intent\n" + "".join(f"größe straße {i};{'ja' if i % 2 else 'né'}\n" for i in range(20))
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    said = shell("inspect", "t.csv", "--label", "intent")
    assert said.code == 0
    assert re.search("^né +10", said.out, re.MULTILINE)


def test_bytes_that_are_no_text_are_refused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(bytes(range(256)) * 40)
    said = shell("inspect", "t.csv")
    assert (said.code, said.out, len(said.err.splitlines())) == (1, "", 3)


def test_broken_tiny_and_enormous_images(shell: Shell, tmp_path: Path) -> None:
    from PIL import Image

    for name, shade in (("day", 250), ("night", 5)):
        folder = tmp_path / "sky" / name
        folder.mkdir(parents=True)
        for at in range(8):
            Image.new("RGB", (20 + at, 20), (shade, shade - at % 5, at)).save(folder / f"{at}.png")
    Image.new("RGB", (1, 1), (200, 200, 200)).save(tmp_path / "sky" / "day" / "one.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "sky" / "day" / "bomb.png")
    (tmp_path / "sky" / "night" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    card = shell("inspect", "sky", "--json").document
    assert (card["labelled"], card["unreadable"]["train"]["rows"]) == (17, 2)
    assert any("too many pixels" in one["what"] for one in card["unreadable"]["train"]["first"])
    assert card["sizes"]["width"][0] == 1
    (tmp_path / "new").mkdir()
    shutil.copy(tmp_path / "sky" / "day" / "bomb.png", tmp_path / "new")
    (tmp_path / "bombs" / "a").mkdir(parents=True)
    shutil.copy(tmp_path / "sky" / "day" / "bomb.png", tmp_path / "bombs" / "a")
    said = shell("inspect", "bombs")
    assert (said.code, len(said.err.splitlines())) == (1, 3)


def test_folders_in_any_script(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "élève 文件 📁"
    folder.mkdir()
    train, test = tickets(folder / "train ü.csv"), tickets(folder / "test.csv", 20, seed=1)
    out = folder / "résultat"
    said = shell("solve", train, "--label", "intent", "--test", test, "--trials", 1, "--out", out)
    assert said.code == 0, said.err
    assert f"saved `{out}`" in said.out
    told = shell("predict", out, test, "--out", folder / "prédit.jsonl")
    assert told.out == f"saved `{folder / 'prédit.jsonl'}` (20 rows)\n"


def test_a_read_only_folder_is_told_before_anything_is_spent(
    shell: Shell, ticket_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0o500)
    if os.geteuid() == 0:  # permission bits do not bind root
        import tempfile

        def refuse(*given: object, **more: object) -> str:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    read: list[object] = []
    monkeypatch.setattr("headstart.inspection.read_target", lambda *given, **more: read.append(given))
    said = shell("solve", ticket_file, "--label", "intent", "--out", tmp_path / "closed" / "out")
    assert (said.code, said.out, read) == (1, "", [])
    assert "cannot be written to (Permission denied)" in said.err


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_leaves_no_half_result(
    shell: Shell, ticket_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    from headstart.io import atomic, results

    write, made, saving = atomic.write_bytes, [0], [False]
    whole = results.write

    def full(path: Path, data: bytes) -> None:
        if saving[0]:
            made[0] += 1
            if made[0] > after:
                with atomic.writing(path.parent):
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    def save(*given: Any, **more: Any) -> Any:
        saving[0] = True
        return whole(*given, **more)

    monkeypatch.setattr(atomic, "write_bytes", full)
    monkeypatch.setattr(results, "write", save)
    said = shell(
        "solve", ticket_file, "--label", "intent", "--test", tickets(tmp_path / "test.csv", 20, seed=1),
        "--trials", 1, "--out", "out", "--json",
    )  # fmt: skip
    error = said.document["error"]
    assert (said.code, error["class"]) == (1, "Unreadable")
    assert "the disk is full" in error["what"]
    assert not (tmp_path / "out" / "headstart.json").exists()
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(atomic.PART)]


def test_a_folder_with_a_result_is_replaced_only_when_asked(shell: Shell, tmp_path: Path, text_result: Path) -> None:
    shutil.copytree(text_result, tmp_path / "out")
    train, test = houses(tmp_path / "train.csv"), houses(tmp_path / "test.csv", 20, seed=1)
    words = ("solve", train, "--label", "price", "--test", test, "--trials", 1, "--out", "out")
    said = shell(*words)
    assert (said.code, said.out) == (1, "")
    assert "--overwrite" in said.err
    assert hs.load(tmp_path / "out").summary["metric"] == "macro_f1"
    assert shell(*words, "--overwrite").code == 0
    assert hs.load(tmp_path / "out").summary["metric"] == "rmse"


@pytest.fixture
def nasty(tmp_path: Path, models: Path) -> tuple[Path, str]:
    """A folder with a hostile name in each field, and the name of the label column."""
    label, text = "label <script>alert(1)</script>\x1b[31m", "text [bold red]x[/]\u202e"
    name = '"><img src=x onerror=alert(1)>\x1b[31m[bold]{{7*7}}'
    columns = (text, label, "{{7*7}}\x1b]0;x\x07")
    for file, seed in (("train", 0), ("test", 1)):
        rows = [
            (
                f"{NASTY[i % 10]} {'good' if i % 2 else 'bad'} {'test' * seed}{i}",
                NASTY[i % 2] + ("\x1b[0m" if i % 2 else ""),
                i,
            )
            for i in range(40)
        ]
        table(tmp_path / f"{name} {file}.csv", columns, rows)
    model = tmp_path / "shelf" / "<script>alert(1)<b>\x1b[31m[bold]{{7*7}}"
    shutil.copytree(models / "tiny", model)
    card = '---\nlicense: "<script>alert(1)</script> [bold]x \\e[31m"\nbase_model: "<b>{{7*7}}</b>"\n---\n'
    (model / "README.md").write_text(card, encoding="utf-8")
    return tmp_path, label


def test_hostile_strings_in_every_field_stay_text(shell: Shell, nasty: tuple[Path, str]) -> None:
    folder, label = nasty
    train, test = sorted(folder.glob("*train.csv"))[0], sorted(folder.glob("*test.csv"))[0]
    words = (train, "--label", label, "--text", "text [bold red]x[/]\u202e", "--test", test)
    said = [
        shell("inspect", *words),
        shell("inventory", "add", folder / "shelf"),
        shell("inventory", "list"),
        shell("rank", *words[:5], "--sources", folder / "shelf", "--method", "nmc"),
        shell("solve", *words, "--sources", folder / "shelf", "--trials", 1, "--out", folder / "out"),
        shell("predict", folder / "out", test, "--out", folder / "p.parquet"),
        shell("inspect", train, "--label", "\x1b[31m[bold]"),
        shell("inspect", "\x1b]0;x\x07.csv"),
        shell("adapt", *words[:5], "--source", folder / "shelf", "--out", folder / "a", "--set", "\x1b[31m=1"),
        shell("inventory", "show", "\x1b[31m[bold]"),
    ]
    said.append(shell("inventory", "show", shell("inventory", "list", "--json").document["sources"][0]["id"]))
    assert [one.code for one in said] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0]
    for one in said:
        assert not STEERING.search((one.out + one.err).replace("\n", "")), one
    everything = " ".join(one.out for one in said)
    assert "[bold]" in everything
    assert "{{7*7}}" in everything
    assert r"\x1b[31m" in everything
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    written = (folder / "out" / "README.md").read_text(encoding="utf-8")
    assert not TAGS.search(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not STEERING.search(page.replace("\n", "").replace("\t", ""))
    assert not STEERING.search(written.replace("\n", ""))
    _, head, body = written.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "headstart"
    assert not TAGS.search(MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(body))
    assert json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))["classes"][0] in (
        NASTY[0],
        NASTY[1] + "\x1b[0m",
    )


def test_a_model_of_numbers_that_are_none_costs_the_others_nothing(
    shell: Shell, ticket_file: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    for seed, name in enumerate(("good", "spoilt")):
        tiny_models.save_model(tmp_path / "shelf" / name, "bert", num_hidden_layers=1, seed=seed)
    file = tmp_path / "shelf" / "spoilt" / "model.safetensors"
    tensors = load_file(file)
    tensors[max(name for name in tensors if name.endswith("output.dense.weight"))][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    for more in ((), ("--layers", "all"), ("--sets", 2)):
        said = shell("rank", ticket_file, "--sources", tmp_path / "shelf", "--method", "nmc", *more)
        assert said.code == 0
        assert "`good` looks best" in said.out or "`good@" in said.out
        assert "`spoilt` was not ranked: its features are not finite numbers on" in said.err


def test_a_class_that_no_fold_scores_is_told(shell: Shell, models: Path, tmp_path: Path) -> None:
    words = tiny_models.WORDS
    rows = [(f"{words[i % 20]} {i}", "ab"[i % 2] if i else "c") for i in range(31)]
    said = shell("rank", table(tmp_path / "thin.csv", ("text", "label"), rows), "--sources", models, "--method", "nmc")
    assert "it saw 30 labelled rows, each predicted by a probe that had not seen it; no row of `c` was" in said.err
    assert "warning: no row of `c` was predicted, which has one row or group alone; the scores are of" in said.err
    tags = [{0: "B-ONE", 1: "B-TWO"}.get(at, "B-X") for at in range(24)]
    sentences = [f"{words[at]} {tag}\n{words[at % 5]} O\n" for at, tag in enumerate(tags)]
    (tmp_path / "thin.conll").write_text("\n".join(sentences))
    said = shell("rank", tmp_path / "thin.conll", "--sources", models, "--method", "nmc")
    assert "it saw 24 labelled rows, each predicted by a probe that had not seen it; " in said.err
    assert "was predicted" not in said.err


def test_hostile_names_in_records_stay_text(shell: Shell, tmp_path: Path) -> None:
    columns = ("target", "source", "method", "metric", "value", "origin")
    rows = [[f"{one}{i}", one, one, one, 0.5, one] for i, one in enumerate(NASTY)]
    said = [
        shell("inventory", "import", table(tmp_path / "[bold]\x1b[31m.csv", columns, rows)),
        shell("inventory", "list", "--records"),
        shell("inventory", "import", table(tmp_path / "bad.csv", columns, [[*rows[0][:4], "\x1b[31m[b]", ""]])),
        shell("inventory", "import", table(tmp_path / "worse.csv", ("\x1b[31m[b]", *columns), [["", *rows[0]]])),
    ]
    assert [one.code for one in said] == [0, 0, 1, 1]
    for one in said:
        assert not STEERING.search((one.out + one.err).replace("\n", "")), one


def test_predictions_for_a_pipe_are_the_labels_themselves(shell: Shell, tmp_path: Path) -> None:
    import csv

    labels = [NASTY[2], NASTY[5]]
    train = table(tmp_path / "t.csv", ("text", "label"), [(f"{'ab'[i % 2]} {i}", labels[i % 2]) for i in range(20)])
    test = table(tmp_path / "e.csv", ("text", "label"), [(f"{'ab'[i % 2]} t{i}", labels[i % 2]) for i in range(8)])
    assert shell("solve", train, "--label", "label", "--test", test, "--trials", 1, "--out", "out").code == 0
    rows = list(csv.reader(shell("predict", "out", test).out.splitlines(keepends=True)))
    assert set(rows[0]) == {"label", *labels}
    assert {row[0] for row in rows[1:]} <= set(labels)
