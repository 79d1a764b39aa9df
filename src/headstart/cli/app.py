"""The commands. Data goes to stdout, everything else to stderr; `--json` gives the same content as one document."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from headstart.cli import rankings, show, target_card

from .changes import changes, low_rank
from .options import (
    Bank,
    Data,
    Disk,
    Group,
    Image,
    Json,
    Label,
    Labels,
    Memory,
    MetricOption,
    Minutes,
    Out,
    Overwrite,
    Pair,
    Seed,
    Settings,
    SourcesOption,
    TaskOption,
    Test,
    Text,
    Time,
    Trials,
    budget_of,
    columns_of,
    help_alone,
    on_shelf,
    target_of,
)
from .shelf import shelf

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
# no markup: plain help needs no Rich, which takes longer to import than all the rest
app = typer.Typer(name="headstart", add_completion=False, rich_markup_mode=None, context_settings=HELP)
app.add_typer(shelf, name="inventory")
app.add_typer(changes, name="delta")
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


def command() -> Any:
    """All commands as one object of Typer's own click."""
    return typer.main.get_command(app)


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
    help_alone(context)


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

    target = target_of(
        data, label=label, image=image, group=group, time=time_column, test=test, metric=metric, task=task, seed=seed,
        labels=labels, **columns_of(text, pair),
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
    budget = budget_of(minutes, memory, disk, trials)
    refuse_folder(out, resume=resume, overwrite=overwrite)
    target = target_of(
        data, label=label, image=image, group=group, time=time_column, test=test, metric=metric, task=task, seed=seed,
        labels=labels, **columns_of(text, pair),
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
    budget = budget_of(minutes, memory)
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
    depths, poolings = rankings.layers(layers), None if pooling is None else [p.strip() for p in pooling.split(",")]
    target = target_of(
        data, label=label, image=image, group=group, metric=metric, task=task, seed=seed, labels=labels,
        **columns_of(text, pair),
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
    return rankings.ranking(ranked, failed, target, time.monotonic() - started, gathered, routes=expect, machine=json)


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
    rankings.datasets(ranked, failed, time.monotonic() - started, machine=json)


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
    (base,) = on_shelf(inventory, [maps], one=True)
    given = None if found is None else [base, *(s for s in found if s.identity != base.identity)]
    ranked = rank_by_maps(target, given, budget, words, base=base, inventory=inventory)
    rankings.by_maps(ranked, failed, base, time.monotonic() - started, machine=json)


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
    (encoder,) = on_shelf(inventory, [experts], one=True)
    ranked = recall_experts(target, found, budget, encoder=encoder, inventory=inventory)
    rankings.experts(ranked, failed, encoder, time.monotonic() - started, machine=json)


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
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fit one source to the target, scored out of fold, and save it."""
    from headstart.adaptation import adapt as verb
    from headstart.core import Unreadable
    from headstart.io.sources import scan

    budget = budget_of(minutes, memory)
    given = show.settings(settings or [])
    target = target_of(
        data, label=label, image=image, group=group, metric=metric, task=task, seed=seed, labels=labels,
        **columns_of(text, pair),
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
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Merge models into one, by a method, a recipe, or what does best on rows.

    `headstart methods combination` lists the methods. auto tries those that fit, and keeps what does best on the rows
    of --target. A recipe is a YAML file of ours or of mergekit. --dry-run shows what any of them would do.
    """
    from headstart.cli import merging
    from headstart.combination.chains import check_place
    from headstart.combination.merging import carried_out, planned, planned_recipe, with_rows
    from headstart.combination.writing import check_loadable
    from headstart.core import Unfit, bytes_of

    method, *models = what
    most = int(bytes_of(shard, "--shard"))
    rules: dict[str, Any] = {
        "base": base, "unmatched": unmatched.value, "vocabulary": vocabulary.value, "dtype": dtype, "seed": seed or 0,
    }  # fmt: skip
    options = {"label": label, "image": image, "metric": metric, "seed": seed or 0, **columns_of(text, pair)}

    def read(data: str) -> Any:
        return target_of(data, **options)

    if method == "auto":
        if settings or (out is None and not dry_run):
            raise Unfit(
                "auto finds the settings itself, and writes a folder",
                where="merge auto",
                fix="add --out FOLDER, or look first with --dry-run, and leave out --set",
            )
        budget = budget_of(minutes, None, trials=trials)
        if out is None or dry_run:
            merging.auto_plan(
                models, target or [], read, out, methods, budget, machine=json, heads=heads.value if heads else None,
                load=load, check=not no_check, overwrite=overwrite, **rules,
            )  # fmt: skip
            return 0
        merging.auto(
            models, target or [], read, out, methods, budget,
            started=show.process_start(), machine=json,
            heads=heads.value if heads else None, shard_bytes=most, overwrite=overwrite, load=load,
            check=not no_check, **rules,
        )  # fmt: skip
        return 0
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
    if out is not None:
        check_place(plan, out, overwrite=overwrite)
    targets = merging.targets(target or [], [m.name for m in plan.models], read)
    of_rows = {"--label": label, "--text": text, "--pair": pair, "--image": image, "--metric": metric}
    of_time = {"--minutes": minutes, "--trials": trials}
    merging.unread(
        plan, targets, [n for n, v in of_rows.items() if v is not None],
        [n for n, v in of_time.items() if v is not None], methods,
    )  # fmt: skip
    if dry_run:
        from headstart.combination.forecasts import forecast
        from headstart.combination.likeness import compared
        from headstart.combination.merging import tasks_of

        place = out.expanduser().absolute() if out else None
        merging.plan(compared(plan), forecast(plan, place, load=load, tasks=tasks_of(plan, targets)), machine=json)
        return 0
    if out is None:
        what_fits = "add --out FOLDER, or look first with --dry-run"
        raise Unfit("no folder is named for the result", where="merge", fix=what_fits)
    if plan.search is not None:
        budget = budget_of(minutes, None, trials=trials)
        tell, close = merging.searching(budget, show.process_start())
        try:
            plan = with_rows(plan, targets, budget=budget, started=show.process_start(), tell=tell)
        finally:
            close()
        merging.ended(plan)
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
    return merging.merged(made, machine=json)


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
