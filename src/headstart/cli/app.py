"""The commands. Data goes to stdout, everything else to stderr; `--json` gives the same content as one document."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from headstart.cli import show, target_card

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
# no markup: plain help needs no Rich, which takes longer to import than all the rest
app = typer.Typer(name="headstart", add_completion=False, rich_markup_mode=None, context_settings=HELP)
shelf = typer.Typer(rich_markup_mode=None)
app.add_typer(shelf, name="inventory")
changes = typer.Typer(rich_markup_mode=None)
app.add_typer(changes, name="delta")
low_rank = typer.Typer(rich_markup_mode=None)
app.add_typer(low_rank, name="adapter")


class WhenUnsure(StrEnum):
    """What is returned where nothing is proven."""

    NO_TRANSFER = "no-transfer"
    BEST = "best"


class RaceRule(StrEnum):
    """Who leaves the race of a ranking."""

    PAIRED = "paired"
    BERNSTEIN = "bernstein"
    NONE = "none"


class HeadsRule(StrEnum):
    """What becomes of the heads of classifiers."""

    AVERAGE = "average"
    CONCATENATE = "concatenate"
    SEPARATE = "separate"
    REFUSE = "refuse"


class UnmatchedRule(StrEnum):
    """What becomes of tensors that not all models have."""

    REFUSE = "refuse"
    DROP = "drop"


class VocabularyRule(StrEnum):
    """Whose tokens the result has where those of the models differ."""

    REFUSE = "refuse"
    UNION = "union"
    BASE = "base"
    FIRST = "first"


class SavedHeads(StrEnum):
    """What becomes of modules that adapters keep whole."""

    SAME = "same"
    AVERAGE = "average"
    SEPARATE = "separate"


class TrimPer(StrEnum):
    """Of what a share is kept."""

    TENSOR = "tensor"
    MODEL = "model"


class ProjectSide(StrEnum):
    """Whose directions a delta is projected on."""

    COLUMNS = "columns"
    ROWS = "rows"


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
Settings = Annotated[
    Optional[list[str]], typer.Option("--set", metavar="NAME=VALUE", help="a setting of the method; may be repeated")
]


def command() -> Any:
    """All commands as one object of Typer's own click."""
    return typer.main.get_command(app)


def _help_alone(context: typer.Context) -> None:
    """Without a command: its help on stderr, as wrong usage."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.callback(invoke_without_command=True)
def headstart(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Give a new task a head start from everything that has already been learned."""
    if version:
        from headstart import __version__

        typer.echo(f"headstart {__version__}")
        raise typer.Exit
    _help_alone(context)


@shelf.callback(invoke_without_command=True)
def inventory(context: typer.Context) -> None:
    """The bank of sources and past runs."""
    _help_alone(context)


@changes.callback(invoke_without_command=True)
def delta(context: typer.Context) -> None:
    """What a fine-tune changed in its base, as a file of its own."""
    _help_alone(context)


@low_rank.callback(invoke_without_command=True)
def adapter(context: typer.Context) -> None:
    """LoRA adapters in peft's folders: merged exactly, and to and from deltas."""
    _help_alone(context)


def _target(data: str, **options: Any) -> Any:
    from headstart.inspection import read_target

    return read_target(data, **options)


def _columns(text: str | None, pair: str | None) -> dict[str, Any]:
    return {"text": text.split(",") if text else None, "pair": tuple(pair.split(",")) if pair else None}


def _budget(minutes: float | None, memory: str | None, disk: str | None = None, trials: int | None = None) -> Any:
    from math import inf

    from headstart.core import Budget

    return Budget(
        minutes=inf if minutes is None else minutes,
        memory=inf if memory is None else memory,
        disk=inf if disk is None else disk,
        trials=trials,
    )


def _gather(wanted: list[str] | None, bank: str | None) -> tuple[Any, list[Any] | None, list[Any]]:
    """The bank, the sources of the named folders (None: the bank's own), and those that could not be read."""
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    if wanted is None:
        return inventory, None, []
    found, failed = [], []
    for place in wanted:
        added, broken = inventory.add(place)
        if not added and not place.startswith("hub:") and not Path(place).expanduser().exists():
            raise broken[0][1]  # a folder that is not there is a slip of the keyboard, and no broken source
        found += added
        failed += broken
    return inventory, found, failed


@app.command()
def inspect(
    data: Data,
    label: Label = None,
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    group: Group = None,
    time_column: Time = None,
    test: Test = None,
    metric: MetricOption = None,
    task: TaskOption = None,
    seed: Seed = 0,
    labels: Labels = None,
    json: Json = False,
) -> None:
    """The target card: what is in the table, and what it can show.

    Nothing is spent, and no label of a test row is shown.
    """
    from headstart.inspection import inspect as card

    target = _target(
        data, label=label, image=image, group=group, time=time_column, test=test, metric=metric, task=task, seed=seed,
        labels=labels, **_columns(text, pair),
    )  # fmt: skip
    target_card.card(card(target), machine=json)


@app.command()
def solve(
    context: typer.Context,
    data: Data,
    out: Out,
    label: Label = None,
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    group: Group = None,
    time_column: Time = None,
    test: Test = None,
    metric: MetricOption = None,
    task: TaskOption = None,
    sources: SourcesOption = None,
    minutes: Minutes = None,
    memory: Memory = None,
    disk: Disk = None,
    trials: Trials = None,
    labels: Labels = None,
    bank: Bank = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in the folder")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the result in the folder")] = False,
    when_unsure: Annotated[WhenUnsure, typer.Option(help="what is returned without evidence")] = WhenUnsure.NO_TRANSFER,
    no_examples: Annotated[bool, typer.Option("--no-examples", help="leave inputs out of the report")] = False,
    json: Json = False,
) -> int:
    """From a table and a shelf of models to a verified model.

    Or to the finding that nothing on the shelf helps, with the evidence for either. Without --sources the bank's own
    are used. Exit code 3: the budget ended before the verdict; what was best so far is saved.
    """
    import headstart as hs
    from headstart.outcome import refuse_folder

    started = show.process_start()
    budget = _budget(minutes, memory, disk, trials)
    refuse_folder(out, resume=resume, overwrite=overwrite)
    target = _target(
        data, label=label, image=image, group=group, time=time_column, test=test, metric=metric, task=task, seed=seed,
        labels=labels, **_columns(text, pair),
    )  # fmt: skip
    inventory, found, failed = _gather(sources, bank)
    show.unread(failed)
    result = hs.solve(
        target,
        inventory,
        budget,
        out=out,
        sources=found,
        failed=failed,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        when_unsure=when_unsure.value,
        examples=not no_examples,
        started=started,
        show="none" if json else "auto",
        asked=show.command_line(context.find_root().obj),
    )
    return show.solved(result, machine=json)


@app.command()
def predict(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="folder of a result, or of a merge with parts")],
    rows: Annotated[str, typer.Argument(metavar="ROWS", help="new rows: a table, or a folder of images")],
    task: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="of a merge with parts that stay apart; else its router says")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="CSV, JSONL or parquet file; stdout without it")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the file")] = False,
    json: Json = False,
) -> None:
    """Labels and probabilities of new rows."""
    import headstart as hs
    from headstart.outcome import admit_predictions

    if out is not None:
        admit_predictions(out, overwrite=overwrite)
    loaded = hs.load(result, task=task)
    show.predicted(loaded, loaded.predict(rows), out, overwrite=overwrite, machine=json)


@app.command()
def rank(
    data: Data,
    label: Label = None,
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    group: Group = None,
    metric: MetricOption = None,
    task: TaskOption = None,
    sources: SourcesOption = None,
    datasets: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER",
            help="rank labelled data sets instead: which to train on first; with --sets, what sources of their names "
            "learned from",
        ),
    ] = None,
    maps: Annotated[
        Optional[str],
        typer.Option(metavar="BASE", help="id, name or folder: rank by maps from it, and open no other source"),
    ] = None,
    experts: Annotated[
        Optional[str],
        typer.Option(
            metavar="ENCODER", help="id, name or folder: order sources by what they were trained on, as it sees it"
        ),
    ] = None,
    method: Annotated[
        Optional[str],
        typer.Option(
            help="what to report: estimators (logme,parc,…), methods for --sets, divergences or similarities for "
            "--datasets; `headstart methods ranking` lists them, and some are taken without it"
        ),
    ] = None,
    sets: Annotated[Optional[int], typer.Option(help="also the best set of up to so many sources", min=2)] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="with --sets: look at all of them, for 12 sources at most")
    ] = False,
    layers: Annotated[
        Optional[str],
        typer.Option(help="layers that compete too: all, or numbers, 0 the embeddings, -1 the last: 0,6,-1"),
    ] = None,
    pooling: Annotated[Optional[str], typer.Option(help="poolings that compete too: mean,cls,…")] = None,
    race: Annotated[
        RaceRule, typer.Option(help="who leaves early; bernstein is slow to say so, and sure")
    ] = RaceRule.PAIRED,
    expect: Annotated[
        bool, typer.Option("--expect", help="also what to expect of each source by every route, from past runs")
    ] = False,
    fusion: Annotated[str, typer.Option(help="what learns from past runs: ridge, isotonic or boosting")] = "ridge",
    minutes: Minutes = None,
    memory: Memory = None,
    labels: Labels = None,
    bank: Bank = None,
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Which source will help: a race on growing samples.

    Hopeless sources leave early; those that stay come in the order of one predicted score: that of a cross-validated
    probe, or what the bank's past runs on nine targets or more let expect of a better route. Layers and poolings of one
    source compete as sources of their own, and share its passes. With --datasets, labelled data sets take the place of
    sources: those nearest to the target's rows come first, without a model, or in the space of the first of --sources;
    with --sets they are rows that sources learned from, each called like its source, for methods that read such rows.
    With --maps, sources that `inventory map` has mapped are told from one pass of their base. With --experts, sources
    that `inventory sample` knows are ordered by how like the target's inputs their own training rows are. Ctrl-C or the
    end of --minutes leaves a table of all sources, with exit code 130 or 3; the same command then goes on.
    """
    from headstart.core import Unfit
    from headstart.ranking import by_kind, rank_sets

    started = time.monotonic()
    budget = _budget(minutes, memory)
    ways = {"datasets": None if sets else datasets, "maps": maps, "experts": experts}
    asked = [f"--{name}" for name, given in ways.items() if given is not None]
    if len(asked) > 1:
        raise Unfit(f"{' and '.join(asked)} are two rankings", where="`headstart rank`", fix="ask for one at a time")
    if asked and (layers or pooling or sets or exhaustive or expect):
        raise Unfit(
            f"layers, poolings, sets and expectations are of sources in a race, and {asked[0]} runs none",
            where=f"`headstart rank {asked[0]}`",
            fix="leave --layers, --pooling, --sets, --exhaustive and --expect out",
        )
    if exhaustive and sets is None:
        raise Unfit(
            "all sets are to be looked at, and no size was asked for",
            where="`headstart rank --exhaustive`",
            fix="add --sets 3",
        )
    words = [] if method is None else method.split(",")
    estimators, gathering = by_kind([] if "--datasets" in asked else words, sets)
    depths, poolings = show.layers(layers), None if pooling is None else [p.strip() for p in pooling.split(",")]
    target = _target(
        data, label=label, image=image, group=group, metric=metric, task=task, seed=seed, labels=labels,
        **_columns(text, pair),
    )  # fmt: skip
    if datasets is not None and sets is None:
        _rank_datasets(target, data, datasets, budget, words, sources, bank, seed, started, json=json)
        return 0
    if maps is not None:
        _rank_maps(target, maps, budget, estimators if words else ("logme",), sources, bank, started, json=json)
        return 0
    if experts is not None:
        _rank_experts(target, experts, budget, words, sources, bank, started, json=json)
        return 0
    inventory, found, failed = _gather(sources, bank)
    at_hand = inventory.sources(target.modality) if found is None else found
    if failed and not at_hand:
        raise failed[0][1]
    learned = [] if datasets is None else _data_sets(datasets, target, data, seed)
    ranked, gathered = rank_sets(
        target, at_hand, budget, sets or 2, gathering, estimators=estimators, exhaustively=exhaustive,
        datasets=learned, layers=depths, pooling=poolings, rule=race.value, bank=inventory, fusion=fusion,
    )  # fmt: skip
    return show.ranking(ranked, failed, target, time.monotonic() - started, gathered, routes=expect, machine=json)


def _data_sets(folder: Path, target: Any, data: str, seed: int) -> list[Any]:
    """Those of a folder that can be read; the others are told. Raises the problem of the first where none can."""
    from headstart.core import Unfit
    from headstart.inspection import read_datasets

    read, failed = read_datasets(folder, label=target.columns.label, apart_from=data, seed=seed)
    show.unread(failed, "data set")
    if not read:
        nothing = Unfit("it holds no data set", where=f"`{folder}`", fix="put tables or folders of images there")
        raise failed[0][1] if failed else nothing
    return read


def _rank_datasets(
    target: Any,
    data: str,
    folder: Path,
    budget: Any,
    words: list[str],
    sources: list[str] | None,
    bank: str | None,
    seed: int,
    started: float,
    *,
    json: bool,
) -> None:
    from headstart.catalogue import entry
    from headstart.inspection import read_datasets
    from headstart.ranking.datasets import DIVERGENCES, kind_of, rank_datasets

    methods = tuple(entry(kind_of(word), word).name for word in words) or DIVERGENCES
    read, failed = read_datasets(folder, label=target.columns.label, apart_from=data, seed=seed)
    if failed and not read:
        show.unread(failed, "data set")
        raise failed[0][1]
    found, broken = _gather(sources, bank)[1:] if sources else ([], [])
    show.unread(broken)
    if broken and not found:
        raise broken[0][1]
    ranked = rank_datasets(target, read, budget, methods, sources=found or (), seed=seed)
    show.datasets(ranked, failed, time.monotonic() - started, machine=json)


def _rank_maps(
    target: Any,
    maps: str,
    budget: Any,
    words: tuple[str, ...],
    sources: list[str] | None,
    bank: str | None,
    started: float,
    *,
    json: bool,
) -> None:
    from headstart.ranking.maps import rank_by_maps

    inventory, found, failed = _gather(sources, bank)
    (base,) = _on_shelf(inventory, [maps], one=True)
    given = None if found is None else [base, *(s for s in found if s.identity != base.identity)]
    ranked = rank_by_maps(target, given, budget, words, base=base, inventory=inventory)
    show.by_maps(ranked, failed, base, time.monotonic() - started, machine=json)


def _rank_experts(
    target: Any,
    experts: str,
    budget: Any,
    words: list[str],
    sources: list[str] | None,
    bank: str | None,
    started: float,
    *,
    json: bool,
) -> None:
    from headstart.core import Unfit
    from headstart.recall.experts import recall_experts

    if words:
        raise Unfit("experts are ordered by votes alone", where="`headstart rank --experts`", fix="leave --method out")
    inventory, found, failed = _gather(sources, bank)
    (encoder,) = _on_shelf(inventory, [experts], one=True)
    ranked = recall_experts(target, found, budget, encoder=encoder, inventory=inventory)
    show.experts(ranked, failed, encoder, time.monotonic() - started, machine=json)


def _on_shelf(inventory: Any, words: list[str], *, one: bool = False) -> list[Any]:
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


@app.command()
def adapt(
    data: Data,
    source: Annotated[str, typer.Option(help="folder of one model, or hub:org/name@revision")],
    out: Out,
    label: Label = None,
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    group: Group = None,
    metric: MetricOption = None,
    task: TaskOption = None,
    method: Annotated[str, typer.Option(help="linear_probe, lp_ft, lora or full_finetune")] = "lp_ft",
    settings: Settings = None,
    minutes: Minutes = None,
    memory: Memory = None,
    labels: Labels = None,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
    json: Json = False,
) -> None:
    """Fit one source to the target, scored out of fold, and save it."""
    from headstart.adaptation import adapt as verb
    from headstart.core import Unreadable
    from headstart.io.sources import scan

    budget = _budget(minutes, memory)
    given = show.settings(settings or [])
    target = _target(
        data, label=label, image=image, group=group, metric=metric, task=task, seed=seed, labels=labels,
        **_columns(text, pair),
    )  # fmt: skip
    found, failed = scan(source)
    if len(found) != 1:
        if failed and not found:
            raise failed[0][1]
        raise Unreadable(
            f"{len(found)} sources lie here, and one is adapted at a time",
            where=f"`{source}`",
            fix=f"name one of: {', '.join(s.where for s in found) or 'a folder with config.json and safetensors'}",
        )
    made = verb(target, found, budget, method, out=out, settings=given, overwrite=overwrite)
    show.adapted(made[0], target, out, machine=json)


@app.command()
def merge(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD MODEL...", help="a method, or auto, and folders of models; or RECIPE.yaml and OUT"
        ),
    ],
    base: Annotated[Optional[str], typer.Option(metavar="FOLDER", help="what the models were fine-tuned from")] = None,
    settings: Settings = None,
    out: Annotated[Optional[Path], typer.Option(help="folder for the merged model")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and its cost, and write nothing")] = False,
    heads: Annotated[
        Optional[HeadsRule],
        typer.Option(
            help="of classifiers: rows averaged by their labels' names, put side by side, one kept for each model, or "
            "refused where they differ; average without it"
        ),
    ] = None,
    unmatched: Annotated[
        UnmatchedRule, typer.Option(help="what becomes of tensors that not all models have")
    ] = UnmatchedRule.REFUSE,
    vocabulary: Annotated[
        VocabularyRule, typer.Option(help="whose tokens the result has, where those of the models differ")
    ] = VocabularyRule.REFUSE,
    dtype: Annotated[
        Optional[str],
        typer.Option(help="of the result: bfloat16, float16 or float32; as the base, or the first model, without it"),
    ] = None,
    shard: Annotated[str, typer.Option(help="the most bytes of one file of weights")] = "5GB",
    target: Annotated[
        Optional[list[str]],
        typer.Option(metavar="[MODEL=]FILE", help="rows for methods that read them; may be repeated, one a model"),
    ] = None,
    label: Label = None,
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    metric: MetricOption = None,
    minutes: Minutes = None,
    trials: Trials = None,
    methods: Annotated[
        Optional[str], typer.Option(help="of auto: who may take part: ties,regmean,…; all that fit without it")
    ] = None,
    load: Annotated[
        bool, typer.Option("--load", help="keep the result only if transformers loads and runs it")
    ] = False,
    no_check: Annotated[bool, typer.Option("--no-check", help="also keep what would not load whole")] = False,
    seed: Annotated[Optional[int], typer.Option(help="of methods that draw; 0 without it")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
    json: Json = False,
) -> None:
    """Merge models into one, by a method, a recipe, or what does best on rows.

    `headstart methods combination` lists the methods. auto tries those that fit, and keeps what does best on the rows
    of --target. A recipe is a YAML file of ours or of mergekit. --dry-run shows what any of them would do.
    """
    from headstart.cli import merging
    from headstart.combination.merging import carried_out, planned, planned_recipe, with_rows
    from headstart.combination.writing import check_loadable
    from headstart.core import Unfit, bytes_of

    method, *models = what
    most = int(bytes_of(shard, "--shard"))
    rules: dict[str, Any] = {
        "base": base, "unmatched": unmatched.value, "vocabulary": vocabulary.value, "dtype": dtype, "seed": seed or 0,
    }  # fmt: skip
    options = {"label": label, "image": image, "metric": metric, "seed": seed or 0, **_columns(text, pair)}

    def read(data: str) -> Any:
        return _target(data, **options)

    if method == "auto":
        if settings or (out is None and not dry_run):
            raise Unfit(
                "auto finds the settings itself, and writes a folder",
                where="merge auto",
                fix="add --out FOLDER, or look first with --dry-run, and leave out --set",
            )
        budget = _budget(minutes, None, trials=trials)
        if out is None or dry_run:
            merging.auto_plan(
                models, target or [], read, out, methods, budget, machine=json, heads=heads.value if heads else None,
                load=load, check=not no_check, **rules,
            )  # fmt: skip
            return
        merging.auto(
            models, target or [], read, out, methods, budget,
            started=show.process_start(), machine=json,
            heads=heads.value if heads else None, shard_bytes=most, overwrite=overwrite, load=load,
            check=not no_check, **rules,
        )  # fmt: skip
        return
    if method.endswith((".yaml", ".yml")):
        ruled = heads or (unmatched, vocabulary) != (UnmatchedRule.REFUSE, VocabularyRule.REFUSE)
        if len(models) > 1 or (models and out is not None) or base or settings or dtype or ruled:
            raise Unfit("a recipe says all of this itself", where="merge", fix=f"type: headstart merge {method} OUT")
        out = Path(models[0]) if models else out
        plan = planned_recipe(method, seed=seed)
    else:
        plan = planned(
            models, method, settings=show.settings(settings or []), heads=heads.value if heads else None, **rules
        )
    check_loadable(plan, check=not no_check, load=load)
    targets = merging.targets(target or [], [m.name for m in plan.models], read)
    if dry_run:
        from headstart.combination.forecasts import forecast
        from headstart.combination.likeness import compared
        from headstart.combination.merging import tasks_of

        place = out.expanduser().absolute() if out else None
        merging.unread(plan, targets)
        merging.plan(compared(plan), forecast(plan, place, load=load, tasks=tasks_of(plan, targets)), machine=json)
        return
    if out is None:
        what_fits = "add --out FOLDER, or look first with --dry-run"
        raise Unfit("no folder is named for the result", where="merge", fix=what_fits)
    merging.unread(plan, targets)
    if plan.search is not None:
        budget = _budget(minutes, None, trials=trials)
        tell, close = merging.searching(budget, show.process_start())
        try:
            plan = with_rows(plan, targets, budget=budget, started=show.process_start(), tell=tell)
        finally:
            close()
    told, close = merging.reading()
    try:
        plan = with_rows(plan, targets, told=told)
    finally:
        close()
    report, close = merging.reporter()
    try:
        made = carried_out(
            plan, out, shard_bytes=most, overwrite=overwrite, check=not no_check, load=load, report=report
        )
    finally:
        close()
    merging.merged(made, machine=json)


@app.command()
def methods(
    words: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="STAGE", help="recall, ranking, adaptation, combination, evidence, or a kind"),
    ] = None,
    fits: Annotated[
        Optional[list[str]],
        typer.Option(metavar="SOURCE…", help="only those that work on these sources (id, name or folder)"),
    ] = None,
    bank: Bank = None,
    json: Json = False,
) -> None:
    """What there is, what each needs, and where it comes from."""
    stage, sources = show.stage_and_sources(words or [], fits)
    show.methods(stage, sources, bank, machine=json)


@app.command()
def report(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="folder of a result")],
    no_examples: Annotated[bool, typer.Option("--no-examples", help="leave inputs out")] = False,
    open_it: Annotated[bool, typer.Option("--open", help="show it in the browser")] = False,
    json: Json = False,
) -> None:
    """Rewrite the HTML report and the model card of a result."""
    from headstart.outcome import rewrite_report

    path = rewrite_report(result, examples=not no_examples)
    if open_it:
        typer.launch(str(path))
    show.made(
        {"report": str(path), "card": str(path.with_name("README.md"))},
        f"wrote `{path}` and `{path.with_name('README.md')}`",
        machine=json,
    )


@app.command()
def doctor(json: Json = False) -> None:
    """What this machine can do, and what to install for the rest."""
    show.doctor(machine=json)


@app.command()
def demo(
    context: typer.Context,
    out: Out = Path("demo-result"),
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in the folder")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the result in the folder")] = False,
    minutes: Minutes = None,
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Solve the embedded task with the starter shelf, offline.

    It takes a few minutes, and keeps a bank of its own in the folder.
    """
    from headstart.demonstration import demonstrate

    result = demonstrate(
        out,
        minutes=minutes,
        resume=resume,
        overwrite=overwrite,
        seed=seed,
        started=show.process_start(),
        show="none" if json else "auto",
        asked=show.command_line(context.find_root().obj),
    )
    return show.solved(result, machine=json, story=True)


@shelf.command("add")
def inventory_add(
    places: Annotated[list[str], typer.Argument(metavar="PLACE…", help="folders, results, or hub:org/name@revision")],
    bank: Bank = None,
    json: Json = False,
) -> int:
    """Put sources on the shelf.

    A folder that cannot be read is listed, and costs the others nothing.
    """
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    added, failed = [], []
    for place in places:
        found, broken = inventory.add(place)
        added += found
        failed += broken
    return show.added(added, failed, inventory.where, machine=json)


@shelf.command("map")
def inventory_map(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="ids, names or folders of sources")],
    base: Annotated[str, typer.Option(metavar="BASE", help="id, name or folder of the model that they start from")],
    on: Annotated[str, typer.Option(metavar="ROWS", help="texts or images, without labels; a table or a folder")],
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    rows: Annotated[int, typer.Option(help="the most rows that are read", min=1)] = 2000,
    bank: Bank = None,
    json: Json = False,
) -> int:
    """Learn what sources would say from what their base says.

    Each map is fitted once and kept in the bank; `rank --maps BASE` then ranks all of them by one pass of the base. A
    source that cannot be mapped is listed with the reason.
    """
    from headstart.inspection import read_unlabelled
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    (here,) = _on_shelf(inventory, [base], one=True)
    sources = [s for s in _on_shelf(inventory, models) if s.identity != here.identity]
    found, failed = inventory.map(sources, here, read_unlabelled(on, image=image, **_columns(text, pair)), most=rows)
    return show.mapped(found, failed, sources, here, inventory.where, machine=json)


@shelf.command("ask")
def inventory_ask(
    models: Annotated[list[str], typer.Argument(metavar="MODEL…", help="ids, names or folders of sources with a head")],
    on: Annotated[str, typer.Option(metavar="PROBES", help="texts or images, the same for all; a table or a folder")],
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    bank: Bank = None,
    json: Json = False,
) -> int:
    """Ask sources about probes, once, and keep what each decides.

    Which probes a source holds for alike is kept, without the names of its classes; `recall` by `know2vec` reads it. A
    source that cannot answer is listed with the reason.
    """
    from headstart.inspection import read_unlabelled
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    sources = _on_shelf(inventory, models)
    answered, failed = inventory.ask(sources, read_unlabelled(on, image=image, **_columns(text, pair)))
    return show.asked(answered, failed, sources, inventory.where, machine=json)


@shelf.command("sample")
def inventory_sample(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="id, name or folder of one source")],
    encoder: Annotated[str, typer.Option(metavar="ENCODER", help="id, name or folder of the model that sees the rows")],
    on: Annotated[str, typer.Option(metavar="ROWS", help="texts or images that the source was trained on")],
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    most: Annotated[int, typer.Option(help="instances that are kept")] = 100,
    centres: Annotated[bool, typer.Option("--centres", help="keep means of clusters in place of single rows")] = False,
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Keep what a source was trained on, as an encoder sees it.

    No row is kept. `rank --experts ENCODER` then finds the sources whose rows are like those of a new target.
    """
    from headstart.inspection import read_unlabelled
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    (source,), (eyes,) = (_on_shelf(inventory, [name], one=True) for name in (model, encoder))
    rows = read_unlabelled(on, image=image, **_columns(text, pair))
    kept = inventory.sample(source, rows, eyes, most=most, centres=centres)
    what = "centres" if centres else "instances"
    show.made(
        {"source": {"id": source.id, "name": source.name}, "encoder": {"id": eyes.id, "name": eyes.name}, "kept": kept},
        f"saved {kept} {what} of `{source.name}`, as `{eyes.name}` sees them, in {inventory.where}",
        machine=json,
    )


@shelf.command("import")
def inventory_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSONL or parquet, one run a row")],
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Keep records of transfer runs that were made elsewhere.

    All rows are checked first; one that cannot be is named, and nothing is kept. Importing a file again adds nothing.
    """
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    show.imported(inventory.import_records(file), inventory.where, machine=json)


@shelf.command("list")
def inventory_list(
    records: Annotated[bool, typer.Option("--records", help="what was imported, in place of sources")] = False,
    bank: Bank = None,
    json: Json = False,
) -> None:
    """What is on the shelf."""
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    if records:
        show.origins(inventory.origins(), inventory.where, machine=json)
        return
    show.sources(inventory.sources(), inventory.where, machine=json)


@shelf.command("show")
def inventory_show(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="id, its beginning, or name")],
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Everything that is known of one source."""
    from headstart.inventory import Inventory

    show.source(Inventory(bank).show(wanted), machine=json)


@shelf.command("verify")
def inventory_verify(bank: Bank = None, json: Json = False) -> int:
    """Read every source again; exit code 1 on damage."""
    from headstart.inventory import Inventory

    inventory = Inventory(bank)
    return show.damage(inventory.verify(), len(inventory.sources()), machine=json)


@shelf.command("remove")
def inventory_remove(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="id, its beginning, or name")],
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Take a source off the shelf; its files and records stay."""
    from headstart.inventory import Inventory

    gone = Inventory(bank).remove(wanted)
    show.made({"removed": {"id": gone.id, "name": gone.name}}, f"removed `{gone.name}` ({gone.id})", machine=json)


@shelf.command("similar")
def inventory_similar(
    data: Data,
    label: Label = None,
    text: Text = None,
    pair: Pair = None,
    image: Image = None,
    metric: MetricOption = None,
    task: TaskOption = None,
    labels: Labels = None,
    bank: Bank = None,
    json: Json = False,
) -> None:
    """Past targets that look like this one, and what worked there.

    Compared by their rows alone, without a model. Figures are of validation rows.
    """
    from headstart.inventory import Inventory

    target = _target(data, label=label, image=image, metric=metric, task=task, labels=labels, **_columns(text, pair))
    inventory = Inventory(bank)
    show.similar(inventory.similar(target), inventory.where, machine=json)


@shelf.command("convert")
def inventory_convert(
    place: Annotated[Path, typer.Argument(metavar="PATH", help="folder, or a .bin or .pt file of pickled weights")],
    json: Json = False,
) -> None:
    """Turn pickled weights into safetensors.

    A limited worker reads the tensors, and runs no code from the file.
    """
    from headstart.io.convert import convert

    show.converted(convert(place), machine=json)


DeltaFile = Annotated[Path, typer.Argument(metavar="DELTA", help="file that `delta diff` wrote")]
DeltaOut = Annotated[Path, typer.Option(metavar="FILE", help="file for the delta, like d.safetensors")]


def _hashes() -> Path:
    from headstart.io.places import hash_folder

    return hash_folder()


@changes.command("diff")
def delta_diff(
    base: Annotated[str, typer.Argument(metavar="BASE", help="folder of the base")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="folder of the fine-tune")],
    out: DeltaOut,
    exact: Annotated[bool, typer.Option("--exact", help="applied, it gives the fine-tune bit for bit")] = False,
    json: Json = False,
) -> None:
    """Take what a fine-tune changed."""
    from headstart.cli import merging
    from headstart.combination.deltas import diff

    merging.delta(diff(base, tuned, out=out, exact=exact, cache=_hashes()), machine=json)


@changes.command("apply")
def delta_apply(
    file: DeltaFile,
    base: Annotated[str, typer.Argument(metavar="BASE", help="folder of the base that it was made from")],
    out: Out,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
    json: Json = False,
) -> None:
    """Make the fine-tune again from its base."""
    from headstart.cli import merging
    from headstart.combination.deltas import apply

    merging.made_folder(apply(file, base, out=out, overwrite=overwrite, cache=_hashes()), machine=json)


@changes.command("revert")
def delta_revert(
    file: DeltaFile,
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="folder of the fine-tune that it was taken from")],
    out: Out,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
    json: Json = False,
) -> None:
    """Make the base again from its fine-tune."""
    from headstart.cli import merging
    from headstart.combination.deltas import revert

    merging.reverted(revert(file, tuned, out=out, overwrite=overwrite, cache=_hashes()), machine=json)


@changes.command("info")
def delta_info(file: DeltaFile, json: Json = False) -> None:
    """What a delta holds, and of which base it is."""
    from headstart.cli import merging
    from headstart.combination.deltas import described
    from headstart.io.deltas import read

    merging.delta_info(described(read(file), file.stat().st_size), machine=json)


@changes.command("compress")
def delta_compress(
    file: DeltaFile,
    form: Annotated[str, typer.Option(help="sparse:0.05, lowrank:16, onebit, onebit:rows, int8 or int4")],
    out: DeltaOut,
    json: Json = False,
) -> None:
    """Keep less of a delta."""
    from headstart.cli import merging
    from headstart.combination.deltas import compress

    merging.delta(compress(file, form, out=out), machine=json)


@changes.command("compare")
def delta_compare(first: DeltaFile, second: DeltaFile, json: Json = False) -> None:
    """How alike two deltas of one base are."""
    from headstart.cli import merging
    from headstart.combination.deltas import compare

    merging.likeness(compare(first, second), machine=json)


@changes.command("stack")
def delta_stack(
    files: Annotated[list[Path], typer.Argument(metavar="DELTA...", help="deltas of one base")],
    out: DeltaOut,
    weights: Annotated[
        Optional[str], typer.Option(help="one number a delta: 0.7,0.3; each counts 1 without it")
    ] = None,
    json: Json = False,
) -> None:
    """Add deltas up."""
    from headstart.cli import merging
    from headstart.combination.deltas import stack

    merging.delta(stack(files, _numbers(weights), out=out), machine=json)


@changes.command("scale")
def delta_scale(
    file: DeltaFile,
    by: Annotated[float, typer.Argument(metavar="NUMBER", help="what every change is multiplied by, like 0.5")],
    out: DeltaOut,
    json: Json = False,
) -> None:
    """Multiply a delta."""
    from headstart.cli import merging
    from headstart.combination.deltas import scale

    merging.delta(scale(file, by, out=out), machine=json)


@changes.command("mask")
def delta_mask(
    file: DeltaFile,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="a delta of the same base")],
    out: DeltaOut,
    outside: Annotated[bool, typer.Option("--outside", help="keep what the other leaves alone")] = False,
    json: Json = False,
) -> None:
    """Keep the changes where another delta has one, too."""
    from headstart.cli import merging
    from headstart.combination.deltas import mask

    merging.delta(mask(file, other, out=out, outside=outside), machine=json)


@changes.command("trim")
def delta_trim(
    file: DeltaFile,
    density: Annotated[float, typer.Option(help="the share of entries that stay, like 0.2")],
    out: DeltaOut,
    per: Annotated[TrimPer, typer.Option(help="the share is of every tensor, or of all together")] = TrimPer.TENSOR,
    json: Json = False,
) -> None:
    """Keep the largest changes."""
    from headstart.cli import merging
    from headstart.combination.deltas import trim

    merging.delta(trim(file, density, out=out, per=per.value), machine=json)


@changes.command("project")
def delta_project(
    file: DeltaFile,
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="a delta of the same base")],
    rank: Annotated[int, typer.Option(help="how many of the other's directions")],
    out: DeltaOut,
    side: Annotated[ProjectSide, typer.Option(help="columns are outputs, rows inputs")] = ProjectSide.COLUMNS,
    off: Annotated[bool, typer.Option("--off", help="keep what lies in none of these directions")] = False,
    json: Json = False,
) -> None:
    """Keep the part of a delta that lies in first singular directions of another."""
    from headstart.cli import merging
    from headstart.combination.deltas import project

    merging.delta(project(file, other, rank, out=out, side=side.value, off=off), machine=json)


AdapterFolder = Annotated[Path, typer.Argument(metavar="ADAPTER", help="folder that peft's `save_pretrained` wrote")]


@low_rank.command("merge")
def adapter_merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="folders of adapters of one base")],
    out: Out,
    weights: Annotated[
        Optional[str], typer.Option(help="one number an adapter: 0.7,0.3; their mean without it")
    ] = None,
    rank: Annotated[Optional[int], typer.Option(min=1, help="the nearest adapter of this smaller rank")] = None,
    heads: Annotated[SavedHeads, typer.Option(help="of modules that are kept whole and differ")] = SavedHeads.SAME,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
    json: Json = False,
) -> None:
    """Add adapters up, exactly: the ranks add up, too."""
    from headstart.cli import merging
    from headstart.combination.adapters import merge_adapters

    made = merge_adapters(
        adapters, out=out, weights=_numbers(weights), rank=rank, heads=heads.value, overwrite=overwrite, cache=_hashes()
    )
    merging.made_folder(made, machine=json)


@low_rank.command("to-delta")
def adapter_to_delta(
    folder: AdapterFolder,
    base: Annotated[str, typer.Option(metavar="FOLDER", help="the model that it was trained on")],
    out: DeltaOut,
    json: Json = False,
) -> None:
    """What an adapter changes in its base, as a delta."""
    from headstart.cli import merging
    from headstart.combination.adapters import to_delta

    merging.delta(to_delta(folder, base, out=out, cache=_hashes()), machine=json)


@low_rank.command("from-delta")
def adapter_from_delta(
    file: DeltaFile,
    base: Annotated[str, typer.Option(metavar="FOLDER", help="the base of the delta")],
    out: Out,
    rank: Annotated[int, typer.Option(min=1, help="of every matrix")] = 16,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the folder")] = False,
    json: Json = False,
) -> None:
    """An adapter that comes nearest to a delta."""
    from headstart.cli import merging
    from headstart.combination.adapters import from_delta

    told = from_delta(file, base, out=out, rank=rank, overwrite=overwrite, cache=_hashes())
    merging.approximated(told, machine=json)


def _numbers(text: str | None) -> list[float]:
    from math import isfinite

    from headstart.core import Unfit

    wrong = Unfit(f"`{text}` is no list of numbers", where="--weights", fix="write it like --weights 0.7,0.3")
    try:
        found = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise wrong from None
    if not all(map(isfinite, found)):
        raise wrong
    return found
