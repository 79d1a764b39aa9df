"""The shell: parse, call, show. Every command has a Python verb of the same name; nothing is decided here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 a `Problem`, 2 wrong usage, 3 out of budget, 130 Ctrl-C."""
    import click

    from headstart.cli.app import app
    from headstart.core import Problem

    given = list(sys.argv[1:] if arguments is None else arguments)
    machine = "--json" in given
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        code = app(given, prog_name="headstart", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Problem as problem:
        return _tell(problem.as_dict(), machine, 1)
    except click.exceptions.NoArgsIsHelpError as usage:
        print(usage.format_message(), file=sys.stderr)
        return 2
    except click.UsageError as usage:
        where = f"`{usage.ctx.command_path}`" if usage.ctx else "the command line"
        what = usage.format_message().rstrip(".")
        fields = {
            "class": "Usage",
            "what": what[:1].lower() + what[1:],
            "where": where,
            "fix": f"see {where[:-1]} --help`",
        }
        return _tell(fields, machine, 2)
    except (KeyboardInterrupt, click.Abort):
        fields = {"class": "Interrupted", "what": "stopped by Ctrl-C", "where": "the shell", "fix": "run it again"}
        return _tell(fields, machine, 130)
    except BrokenPipeError:  # the reader of a pipe went away: not an error of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _tell(fields: dict[str, str], machine: bool, code: int) -> int:
    from headstart.numerics.plain_text import plain

    if machine:
        print(json.dumps({"error": fields}, ensure_ascii=False))
        return code
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    red, cyan, off = ("\x1b[31m", "\x1b[36m", "\x1b[0m") if colour else ("", "", "")
    print(f"{red}error:{off} {plain(fields['what'])}", file=sys.stderr)
    print(f"   in: {plain(fields['where'])}", file=sys.stderr)
    print(f" {cyan}hint:{off} {plain(fields['fix'])}", file=sys.stderr)
    return code
