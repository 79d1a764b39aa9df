"""Options and arguments that several commands have, and what they become."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from headstart.cli import show


class TaskName(StrEnum):
    """The task types, as `--task` takes them."""

    SINGLE_LABEL = "single_label"
    REGRESSION = "regression"
    MULTI_LABEL = "multi_label"
    TAGGING = "tagging"


# Optional, not `| None`: Typer reads these at run time, also where it cannot evaluate unions
Data = Annotated[
    str, typer.Argument(metavar="DATA", help="CSV, TSV, XLSX, JSONL, parquet, CoNLL, or a folder of images")
]
Label = Annotated[Optional[str], typer.Option(help="column with the label; found by its name without it")]
Text = Annotated[Optional[str], typer.Option(help="text column, or several joined: subject,body")]
Pair = Annotated[Optional[str], typer.Option(help="two text columns: a,b")]
Image = Annotated[Optional[str], typer.Option(help="column with the paths of images")]
Group = Annotated[Optional[str], typer.Option(help="rows of one group never lie on two sides of a split")]
Time = Annotated[Optional[str], typer.Option("--time", help="the latest 20 % by this column are the test")]
Test = Annotated[Optional[str], typer.Option(metavar="FILE", help="test rows of your own")]
MetricOption = Annotated[
    Optional[str], typer.Option("--metric", help="macro_f1, accuracy, rmse, …; follows from the labels without it")
]
TaskOption = Annotated[Optional[TaskName], typer.Option("--task", help="the type of the task, where it is in doubt")]
Seed = Annotated[int, typer.Option(help="of splits, draws and trials")]
Labels = Annotated[Optional[int], typer.Option(help="the most labelled rows used; all without it")]
Minutes = Annotated[
    Optional[float], typer.Option(help="minutes of wall time from the start of the process; no limit without it")
]
Memory = Annotated[Optional[str], typer.Option(help="the most memory, like 8GB")]
Disk = Annotated[Optional[str], typer.Option(help="the most room on the disk, like 20GB")]
Trials = Annotated[Optional[int], typer.Option(help="how many trials may start: a limit without a clock")]
SourcesOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--sources", help="folder of models, or hub:org/name@revision; may be repeated; the bank's own without it"
    ),
]
Bank = Annotated[
    Optional[str],
    typer.Option(help="file of the bank, or postgresql://…; `headstart doctor` shows where it lies without it"),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]
Out = Annotated[Path, typer.Option(help="folder for the result")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace the folder")]
Settings = Annotated[
    Optional[list[str]], typer.Option("--set", metavar="NAME=VALUE", help="a setting of the method; may be repeated")
]


def help_alone(context: typer.Context) -> None:
    """Without a command: its help on stderr, as wrong usage."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def target_of(data: str, **options: Any) -> Any:
    from headstart.inspection import read_target

    return read_target(data, **options)


def columns_of(text: str | None, pair: str | None) -> dict[str, Any]:
    return {"text": text.split(",") if text else None, "pair": tuple(pair.split(",")) if pair else None}


def budget_of(minutes: float | None, memory: str | None, disk: str | None = None, trials: int | None = None) -> Any:
    from math import inf

    from headstart.core import Budget

    return Budget(
        minutes=inf if minutes is None else minutes,
        memory=inf if memory is None else memory,
        disk=inf if disk is None else disk,
        trials=trials,
    )


def on_shelf(inventory: Any, words: list[str], *, one: bool = False) -> list[Any]:
    """Sources by id, name or folder; those of a folder are put on the shelf. one: exactly one is meant."""
    from headstart.core import Unfit

    found: list[Any] = []
    for word in words:
        if word.startswith("hub:") or Path(word).expanduser().is_dir():
            added, broken = inventory.add(word)
            if broken and not added:
                raise broken[0][1]
            show.unread(broken)
            found += added
        else:
            found.append(inventory.show(word))
    if one and len(found) != 1:
        raise Unfit(
            f"{len(found)} sources lie here, and one is meant",
            where=f"`{words[0]}`",
            fix=f"name one of: {', '.join(s.id for s in found)}",
        )
    return found
