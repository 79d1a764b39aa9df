"""The shell: parse, call, show. Every command has a Python verb of the same name; nothing is decided here."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.core import Problem

TRACEBACK = "HEADSTART_TRACEBACK"  # in the environment: a fault of ours shows where it happened


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a `Problem`, 2 wrong usage, 3 out of budget, 130 Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    machine = "--json" in given
    try:
        with _stdout_of_our_own() if machine else nullcontext():
            code, problem = _run(given)
            if problem is not None:
                from headstart.cli.printing import tell

                tell(problem, machine=machine)
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe went away: not an error of ours
        _silence()
        return 0
    except KeyboardInterrupt:  # a second one, while the first was told
        return 130


@contextmanager
def _stdout_of_our_own() -> Iterator[None]:
    """What libraries in C write to the process's stdout goes to stderr, so that one JSON document stands alone there.

    Where Python's stdout is not the process's, as in a notebook, nothing is changed.
    """
    try:
        whole = sys.stdout.fileno() == 1
    except (OSError, ValueError):
        whole = False
    if not whole:
        yield
        return
    theirs, kept = sys.stdout, os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(kept, "w", encoding=theirs.encoding, errors=theirs.errors, closefd=False)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        sys.stdout = theirs


def _run(given: list[str]) -> tuple[int, dict[str, str] | None]:
    """The exit code, and what went wrong."""
    import typer

    from headstart.cli.app import command
    from headstart.core import Problem

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # click's UsageError; newer Typers carry a click of their own
    wrong_usage: type[Any] = typer.BadParameter.__bases__[0]
    try:
        with command().make_context("headstart", list(given), obj=given) as context:
            code = context.command.invoke(context)
        return (code if isinstance(code, int) else 0), None
    except typer.Exit as done:
        return done.exit_code, None
    except Problem as problem:
        return 1, problem.as_dict()
    except wrong_usage as usage:
        return 2, _usage(usage, given)
    except (KeyboardInterrupt, typer.Abort):
        fix = "run it again; `solve` and `demo` go on with `--resume`"
        return 130, {"class": "Interrupted", "what": "stopped by Ctrl-C", "where": "the shell", "fix": fix}
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  # the outermost boundary: whatever happens, the shell answers in its form
        return 1, _unforeseen(error).as_dict()


def _usage(error: Any, given: Sequence[str]) -> dict[str, str]:
    """Wrong usage in our words: what was typed, where, and the nearest right name."""
    where = str(error.ctx.command_path) if getattr(error, "ctx", None) else "headstart"
    said = re.sub(r"'([^'\s]+)'", r"`\1`", " ".join(error.format_message().split()))
    fix = f"see `{where} --help`"
    if found := re.fullmatch(r"Invalid value for (\S+?)(?: / \S+)?: (?:Value error, )?(.*)", said):
        name, said = found[1].strip("`"), found[2]
        where, value = f"{where} {name}", _typed(name, given)
        choices = re.fullmatch(r"(`\S+`) is not one of (.*)", said)
        if choices:
            named = choices[2].rstrip(".")
            near = get_close_matches(choices[1], named.split(", "), n=1)
            said = f"{choices[1]} is not one of its values"
            fix = f"did you mean {near[0]}?" if near else f"use one of: {named}"
        elif value is not None and ("number" in said or "integer" in said):
            said = f"`{value}` is not a {'whole number' if 'integer' in said else 'number'}"
    elif (found := re.match(r"No such option: (-[\d.])", said)) and (number := _negative(found[1], given)):
        said = f"`{number}` begins with a dash, and is read as an option"
        fix = f"write `--` and then {number}, behind all else"
    elif found := re.fullmatch(r"No such option: (\S+?)(?: \(Possible options: (.*)\)| Did you mean (.*)\?)?", said):
        said, near_names = f"no such option: `{found[1]}`", found[2] or found[3]
        fix = f"did you mean {_either(near_names)}?" if near_names else fix
    elif found := re.fullmatch(r"(No such command .*?)\. +Did you mean (.*)\?", said):
        said, fix = found[1], f"did you mean {_either(found[2])}?"
    return {"class": "Usage", "what": said[:1].lower() + said[1:].rstrip("."), "where": f"`{where}`", "fix": fix}


def _negative(begins: str, given: Sequence[str]) -> str | None:
    """The number that was typed, and read as options of one letter."""
    return next((word for word in given if word.startswith(begins)), None)


def _typed(option: str, given: Sequence[str]) -> str | None:
    """The value that was typed for an option."""
    for at, word in enumerate(given):
        if word == option and at + 1 < len(given):
            return given[at + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _either(names: str) -> str:
    return " or ".join(f"`{n}`" for n in re.findall(r"[\w-]+", names))


def _unforeseen(error: Exception) -> Problem:
    """An error that nobody raised on purpose: of the machine, or a fault of ours."""
    import traceback

    from headstart.core import OverBudget, Problem, Unreadable

    said = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError):
        return OverBudget("the memory is full", where="this process", fix="use fewer rows, or a machine with more")
    if isinstance(error, OSError) and error.strerror:
        return Unreadable(
            error.strerror[:1].lower() + error.strerror[1:],
            where=f"`{error.filename}`" if error.filename else "this machine",
            fix="check that the place is there, that you may use it, and that the disk has room",
        )
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((f for f in reversed(frames) if "headstart" in f.filename), frames[-1])
    place = f"{ours.filename.rpartition('headstart/')[2]}, line {ours.lineno}"
    fix = f"report it as a fault of headstart, with what {TRACEBACK}=1 shows"
    return Problem(f"{type(error).__name__}: {said}" if said else type(error).__name__, where=place, fix=fix)


def _silence() -> None:
    """What Python flushes at its end goes nowhere, instead of failing once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
