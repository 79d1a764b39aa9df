"""How the shell behaves: streams, exit codes, colours, near names, and no traceback whatever happens."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
import tiny_models
from cli.conftest import Shell, houses, table, tickets
from headstart import cli
from headstart.cli import printing

SOURCE = str(Path(cli.__file__).parents[2])
HEAVY = ("torch", "transformers", "numpy", "pyarrow", "pandas", "sklearn", "scipy", "sqlalchemy", "PIL", "matplotlib")
ESCAPE = "\x1b"


def process(*words: object, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": SOURCE, **more.pop("environment", {})}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False, **more)


def test_help_loads_nothing_heavy_and_no_rich() -> None:
    code = (
        "import sys; from headstart.cli import main; code = main(['--help']); "
        f"print(sorted({{m.partition('.')[0] for m in sys.modules}} & {{*{HEAVY!r}, 'rich'}}), file=sys.stderr); "
        "sys.exit(code)"
    )
    done = process("-c", code)
    assert (done.returncode, done.stderr) == (0, b"[]\n")
    assert b"inventory" in done.stdout


@pytest.mark.parametrize(("code", "limit_seconds"), [("import headstart", 0.3), ("-m headstart --help", 0.5)])
def test_starting_is_quick(code: str, limit_seconds: float) -> None:
    def seconds() -> float:
        """Of the processor, which other work on the machine hardly changes."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process(*(code.split() if code.startswith("-m") else ("-c", code)))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) <= limit_seconds


def test_every_line_of_the_help_is_whole(shell: Shell) -> None:
    for words in (("--help",), ("inventory", "--help")):
        said = shell(*words)
        assert not [line for line in said.out.splitlines() if line.startswith("  ") and line.endswith("...")]
        assert said.code == 0


def test_no_command_is_wrong_usage_and_shows_the_help_on_stderr(shell: Shell) -> None:
    for words in ((), ("inventory",)):
        said = shell(*words)
        assert (said.code, said.out) == (2, "")
        assert "Commands:" in said.err


def test_the_version(shell: Shell) -> None:
    assert shell("--version").out == f"headstart {hs.__version__}\n"


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        (("inspct",), "no such command `inspct`", "did you mean `inspect`?"),
        (("inspect", "t.csv", "--lable", "x"), "no such option: `--lable`", "`--label`"),
        (("delta", "scale", "d", "-0.5", "--out", "e"), "`-0.5` begins with a dash", "write `--` and then -0.5"),
        (("inspect", "tikets.csv"), "there is no file or folder `tikets.csv`", "did you mean `tickets.csv`?"),
        (("inspect", "tickets.csv", "--label", "inten"), "`inten` is not a column", "did you mean `intent`?"),
        (("inspect", "tickets.csv", "--text", "txt"), "`txt` is not a column", "did you mean `text`?"),
        (("inspect", "tickets.csv", "--metric", "macrof1"), "no metric is called `macrof1`", "macro_f1"),
        (("inspect", "tickets.csv", "--task", "regresion"), "`regresion` is not one of", "did you mean `regression`?"),
        (("rank", "tickets.csv", "--sources", "shelv"), "there is no folder `shelv`", "did you mean `shelf`?"),
        (
            ("rank", "tickets.csv", "--sources", "shelf", "--method", "logm"),
            "is called `logm`",
            "did you mean `logme`?",
        ),
        (("rank", "tickets.csv", "--sources", "shelf", "--layers", "top"), "neither `all` nor numbers", "0,6,-1"),
        (("solve", "tickets.csv", "--out", "o", "--sources", "shelv"), "there is no folder `shelv`", "`shelf`"),
        (
            ("solve", "tickets.csv", "--out", "o", "--when-unsure", "bets"),
            "`bets` is not one of",
            "did you mean `best`?",
        ),
        (("methods", "rankin"), "no stage is called `rankin`", "did you mean `ranking` or"),
        (("methods", "zzz"), "no stage is called `zzz`", "the stages are: recall, ranking"),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(
    shell: Shell, ticket_file: Path, tmp_path: Path, words: tuple[str, ...], what: str, fix: str
) -> None:
    (tmp_path / "shelf").mkdir()
    said = shell(*words)
    assert said.code in (1, 2)
    assert said.out == ""
    first, place, hint = said.err.splitlines()
    assert first.startswith("error: ")
    assert what in first
    assert place.startswith("   in: ")
    assert hint.startswith(" hint: ")
    assert fix in hint


@pytest.mark.parametrize(
    ("given", "what", "fix"),
    [
        ("method=lpft", "is called `lpft`", "did you mean `lp_ft`?"),
        ("learning_rat=1", "no setting `learning_rat`", "did you mean `learning_rate`?"),
        ("epochs=many", "`epochs` is 'many', and takes a whole number", "write it like epochs="),
        ("epochs", "`epochs` is not a setting", "--set epochs=3"),
    ],
)
def test_settings_are_checked_against_the_method(
    shell: Shell, ticket_file: Path, models: Path, given: str, what: str, fix: str
) -> None:
    more = ("--method", given[7:]) if given.startswith("method=") else ("--set", given)
    said = shell("adapt", ticket_file, "--source", models / "tiny", "--out", "o", *more)
    assert said.code == 1
    assert what in said.err
    assert fix in said.err


def test_a_taken_folder_is_refused_before_anything_is_read(shell: Shell, models: Path, tmp_path: Path) -> None:
    tickets(tmp_path / "tickets.csv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    said = shell("adapt", "tickets.csv", "--source", models / "tiny", "--out", "mine")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[0] == "error: the output folder holds something already"


def test_the_card_is_prose(shell: Shell, tmp_path: Path) -> None:
    rows = [("good day", "yes"), ("bad day", "no"), ("good day", "no"), *((f"day {i}", "yes ") for i in range(9))]
    said = shell("inspect", table(tmp_path / "days.csv", ("text", "label"), [*rows, *rows[-4:]]))
    assert said.code == 0
    assert said.out.startswith("days: single-label over texts, measured by macro-F1\n")
    assert not re.search(r"[{}]|None|_rows|higher_is_better", said.out)
    assert "“good day”: no, yes" in said.out
    assert "`yes`, `yes `" in said.out
    assert "5 labelled rows repeat another row" in said.out
    assert re.search(r"^yes +13 +█+", said.out, re.MULTILINE)
    assert said.err == ""
    assert max(map(len, said.out.splitlines())) <= 100
    assert not any(one.endswith(" ") for one in said.out.splitlines())


def test_what_is_absent_takes_no_line(shell: Shell, tmp_path: Path) -> None:
    out = shell("inspect", houses(tmp_path / "h.csv"), "--label", "price").out
    assert "measured by RMSE (lower is better)" in out
    assert not re.search("duplicates|conflicting|variants|leaks|classes|pixels", out)


@pytest.mark.parametrize("words", [("methods",), ("methods", "ranking"), ("doctor",)])
def test_tables_keep_to_the_width_of_a_pipe(shell: Shell, words: tuple[str, ...]) -> None:
    out = shell(*words).out
    assert max(map(len, out.splitlines())) <= 100
    assert ESCAPE not in out


def test_rank_shows_who_looks_best(shell: Shell, models: Path, ticket_file: Path) -> None:
    said = shell("rank", ticket_file, "--sources", models)
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 100
    assert re.search(r"^source +macro-F1 +90 % interval +by +cost$", said.out, re.MULTILINE)
    assert "100%" not in said.out, "one alone is first of nothing"
    assert " cross-validated here " in said.out
    assert said.out.splitlines()[-1].startswith("ranked 1 source in ")


def test_rank_of_several_shows_how_often_each_is_first(
    shell: Shell, models: Path, ticket_file: Path, tmp_path: Path
) -> None:
    tiny_models.save_model(tmp_path / "other", "bert", num_hidden_layers=1, seed=1)
    said = shell("rank", ticket_file, "--sources", models, "--sources", tmp_path / "other", "--method", "nmc")
    assert re.search(r"^source +macro-F1 +90 % interval +by +is first +cost$", said.out, re.MULTILINE)
    assert len(re.findall(r" \d+% +\d", said.out)) == 2


def test_a_target_that_no_source_reads_is_told_what_to_do(
    shell: Shell, models: Path, ticket_file: Path, tmp_path: Path
) -> None:
    empty = shell("rank", ticket_file, "--label", "intent")
    assert "hint: add sources that read texts with `headstart inventory add FOLDER`" in empty.err
    said = shell("rank", houses(tmp_path / "h.csv"), "--label", "price", "--sources", models)
    assert said.code == 1
    assert "reads text, and the target's inputs are table" in said.err
    assert "hint: use `headstart solve`, which finds the best system without a source" in said.err
    assert "methods" not in said.err


def test_solve_ends_with_the_verdict_and_where_it_is_saved(shell: Shell, tmp_path: Path) -> None:
    train, test = houses(tmp_path / "train.csv"), houses(tmp_path / "test.csv", seed=1)
    (tmp_path / "empty").mkdir()
    said = shell(
        "solve", train, "--label", "price", "--test", test, "--sources", "empty", "--trials", 1, "--out", "out"
    )  # fmt: skip
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[-1].startswith("saved `out` (")
    assert lines[-2] == "report: `out/report.html`"
    assert "verdict: no-evidence" in lines
    assert re.search(r"^column_linear +[\d,]+ +[\d,]+ to [\d,]+ +returned$", said.out, re.MULTILINE)
    assert "warning: source `empty` is left out" in said.err
    assert hs.load("out").receipt.settings["command"].endswith("--trials 1 --out out")
    again = shell("solve", train, "--label", "price", "--out", "out")
    assert (again.code, again.out) == (1, "")
    assert "--overwrite" in again.err


def test_a_run_without_verify_ends_with_three(shell: Shell, text_result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    held = hs.load(text_result)
    cut = {"verdict": None, "candidate": None, "gain": None, "choice_gain": None, "baselines": []}
    unverified = dataclasses.replace(held, verdict=None, summary={**held.summary, **cut})
    monkeypatch.setattr(hs, "solve", lambda *given, **more: unverified)
    monkeypatch.chdir(text_result.parent)
    said = shell("solve", "train.csv", "--label", "intent", "--out", "elsewhere")
    assert said.code == 3
    assert "verdict: not verified" in said.out
    stopped = dataclasses.replace(unverified, summary={**unverified.summary, "interrupted": True})
    monkeypatch.setattr(hs, "solve", lambda *given, **more: stopped)
    said = shell("solve", "train.csv", "--label", "intent", "--out", "elsewhere")
    assert said.code == 130
    assert "the run was stopped before verify" in said.out.replace("\n", " ")


def test_the_demo_tells_its_story(shell: Shell, text_result: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.demonstration.demonstrate", lambda out, **settings: hs.load(text_result))
    said = shell("demo")
    assert said.code == 0
    assert "1. The ranking" in said.out
    assert "2. Adaptation" in said.out


def test_ctrl_c_is_130(shell: Shell, monkeypatch: pytest.MonkeyPatch, ticket_file: Path) -> None:
    def stop(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headstart.inspection.read_target", stop)
    said = shell("inspect", ticket_file)
    assert (said.code, said.out) == (130, "")
    assert said.err.startswith("error: stopped by Ctrl-C")
    assert shell("inspect", ticket_file, "--json").document["error"]["class"] == "Interrupted"


@pytest.mark.parametrize("error", [RuntimeError("a fault\nof ours"), MemoryError(), OSError(28, "No space left", "/x")])
def test_a_fault_of_ours_is_told_without_a_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, ticket_file: Path, error: Exception
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise error

    monkeypatch.setattr("headstart.inspection.read_target", fail)
    said = shell("inspect", ticket_file)
    assert (said.code, len(said.err.splitlines())) == (1, 3)
    assert "Traceback" not in said.err
    assert shell("inspect", ticket_file, "--json").document["error"]["what"]
    monkeypatch.setenv(cli.TRACEBACK, "1")
    assert ("Traceback" in shell("inspect", ticket_file).err) == isinstance(error, RuntimeError)


def test_a_damaged_bank_is_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "bank.db").write_bytes(b"\x00\x01 no bank" * 400)
    said = shell("inventory", "list", "--bank", "bank.db")
    assert (said.code, said.out) == (1, "")
    assert "damaged, or is no bank" in said.err


def test_a_folder_for_a_table_and_a_file_for_a_result_are_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for words in (("inspect", "empty"), ("predict", "file", "empty"), ("report", "file"), ("inventory", "add", "file")):
        said = shell(*words)
        assert said.code == 1, words
        assert "Traceback" not in said.err
        assert "hint:" in said.err or "warning:" in said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
def test_an_unreadable_file_is_told(shell: Shell, ticket_file: Path) -> None:
    ticket_file.chmod(0)
    assert shell("inspect", ticket_file).code == 1


def test_an_unreadable_file_is_told_to_root_too(
    shell: Shell, ticket_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied", str(ticket_file))

    monkeypatch.setattr("headstart.io.tables.read_delimited", refuse)
    said = shell("inspect", ticket_file)
    assert said.code == 1
    assert "ermission denied" in said.err
    assert "tickets.csv" in said.err


def test_a_pipe_that_closes_early_is_no_error() -> None:
    command = f"{sys.executable} -c 'import sys; from headstart.cli import main; sys.exit(main())' methods | head -1"
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    for more in ("", "; echo ${PIPESTATUS[0]}"):
        done = subprocess.run(
            ["bash", "-c", command + more], capture_output=True, env=environment, timeout=60, check=True, text=True
        )
        assert done.stderr == ""
    assert done.stdout.splitlines() == ["recall.sources", "0"]


def test_what_a_library_writes_to_stdout_is_not_in_the_document() -> None:
    code = (
        "import os, sys; from headstart import catalogue, cli; read = catalogue.entries; "
        "catalogue.entries = lambda kind: os.write(1, b'[Warning] of C\\n') and read(kind); "
        "sys.exit(cli.main(['methods', 'ranking', '--json']))"
    )
    done = process("-c", code)
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["methods"]) >= 6
    assert b"[Warning] of C" in done.stderr


def test_methods_that_fit_several_sources(shell: Shell, models: Path) -> None:
    names = (models / "tiny", models / "tiny")
    said = shell("methods", "adaptation", "--fits", *names, "--json")
    assert {m["name"] for m in said.document["methods"]} == {"full_finetune", "linear_probe", "lora", "lp_ft"}
    assert shell("methods", "--fits", *names, "--json").code == 0
    assert shell("methods", "ranking", "evidence").code == 1
    assert "no source has the id or name `nobody`" in shell("methods", "--fits", "nobody").err


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_and_no_color_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    held = Terminal()
    monkeypatch.setattr(sys, "stdout", held)
    printing.saved("saved `out`")
    assert held.getvalue() == f"{ESCAPE}[32msaved{ESCAPE}[0m `out`\n"
    monkeypatch.setenv("NO_COLOR", "1")
    held.truncate(0)
    held.seek(0)
    printing.saved("saved `out`")
    printing.draw(printing.table("head", rows=[("[red]cell[/]",)]))
    assert not re.search(ESCAPE + r"\[3\dm", held.getvalue())
    assert "[red]cell[/]" in held.getvalue()


def test_letters_that_the_locale_lacks_are_written_out(ticket_file: Path, home: Path) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "HEADSTART_HOME": str(home)}
    done = process("-m", "headstart", "inspect", table(ticket_file, ("text", "label"), [
        (f"é {i}", ("ü" if i % 2 else "x")) for i in range(20)
    ]), environment=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rb"\xfc" in done.stdout
    assert b"###" in done.stdout
    assert done.stdout.isascii()
