"""Merging: models become one set of weights. A file here is a method on one tensor; `merge` runs all kinds of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import catalogue
from headstart.core import Budget, Receipt, Refused, Target, Unfit
from headstart.io.shards import SHARD_BYTES

if TYPE_CHECKING:
    from headstart.combination.live import TaskRows
    from headstart.combination.plans import Heads, Plan, Unmatched
    from headstart.combination.recipes import Ranged, Recipe, Said
    from headstart.combination.vocabularies import VocabularyRule
    from headstart.combination.writing import Report
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Kind

STREAMS: dict[str, Kind] = {
    "combination.weighting": "weighting",
    "combination.trimming": "trimming",
    "combination.merging": "merging",
}
Tell = Callable[[str, str], None]
Told = Callable[[int], None]
Targets = Mapping[str, Target] | Sequence[Target]
ROUTING = "combination.routing"
READ_ROWS = ("combination.matching", "combination.learning", "combination.loops", ROUTING)
KINDS = (*STREAMS, *READ_ROWS)
ELSEWHERE = {  # what the field calls a method, and is none here
    "passthrough": "stack layers by a recipe with `slices`: headstart merge recipe.yaml OUT; see docs/how-to/merge.md",
}


@dataclass(frozen=True, eq=False, slots=True)
class Merged:
    """A merged model: its folder, what was planned, and the account of it, which is also in the folder."""

    where: Path
    plan: Plan
    receipt: Receipt


def planned(
    models: Sequence[str | Path], method: Any = "linear", *, base: str | Path | None = None,
    settings: Mapping[str, Any] | None = None, heads: Heads | None = None, unmatched: Unmatched = "refuse",
    vocabulary: VocabularyRule = "refuse", dtype: str | None = None, seed: int = 0,
) -> Plan:  # fmt: skip
    """What `merge` would do; headers and configurations are read, and weights only to see whether the base is the true
    one, and whether what is stored twice is equal.

    models: folders with safetensors, the first of which gives the result its configuration and files. method: a name of
    any kind of merge, or an instance. base: what the models were fine-tuned from. settings: of the method.
    heads: of classifiers: `average` by the names of the labels, `concatenate` one after the other, `separate` for a
    folder with its own head for each model and one body for all, or `refuse` heads that differ; None is `separate` for
    methods that keep parts apart, and `average` for others. unmatched: what becomes of tensors that not all models
    have. vocabulary: whose tokens the result has where those of the models differ: the `union` of all, the `base`'s,
    those of the `first` model, or `refuse`; rows are matched by token. dtype: of the result; else that of the base, or
    of the first model. seed: of methods that draw.

    Raises `Refused` where the models do not fit together.
    """
    from headstart.combination.ancestry import doubted
    from headstart.combination.plans import plan

    kind = kind_of(method)
    chosen = _instance(kind, method, settings or {})
    folders, root = _opened(models, base)
    if heads not in (None, "separate") and kind == ROUTING:
        raise Refused(
            f"`{catalogue.name_of(chosen)}` keeps parts of the models apart, and their heads with them",
            where=f"--heads {heads}",
            fix="leave out --heads",
        )
    heads = heads or ("separate" if kind == ROUTING else "average")
    if kind in READ_ROWS:
        return doubted(_until_rows_are_read(chosen, folders, root, heads, unmatched, vocabulary, dtype, seed))
    found = plan(
        folders, root, chosen, STREAMS[kind], heads=heads, unmatched=unmatched, vocabulary=vocabulary, dtype=dtype,
        seed=seed,
    )  # fmt: skip
    return doubted(found)


def _until_rows_are_read(
    method: Any, folders: list[ModelFolder], root: ModelFolder | None, heads: Heads, unmatched: Unmatched,
    vocabulary: VocabularyRule, dtype: str | None, seed: int,
) -> Plan:  # fmt: skip
    """The plan of a mean, or of task arithmetic where there is a base, which stands in for what rows will tell."""
    from headstart.combination.plans import check, check_words, plan, renamed

    check(folders, root, method, heads, unmatched, dtype, vocabulary)
    stand_in = catalogue.make("combination.weighting", "linear" if root is None else "task_arithmetic")
    found = plan(
        folders, root, stand_in, "weighting", heads=heads, unmatched=unmatched, vocabulary=vocabulary, dtype=dtype,
        seed=seed,
    )  # fmt: skip
    check_words(found)
    named = renamed(found, catalogue.name_of(method), catalogue.settings(method))
    return dataclasses.replace(named, reads=method)


def merge(
    models: Sequence[str | Path], method: Any = "linear", *, out: str | Path, base: str | Path | None = None,
    settings: Mapping[str, Any] | None = None, heads: Heads | None = None, unmatched: Unmatched = "refuse",
    vocabulary: VocabularyRule = "refuse", dtype: str | None = None, seed: int = 0, shard_bytes: int = SHARD_BYTES,
    threads: int | None = None, overwrite: bool = False, check: bool = True, load: bool = False,
    report: Report | None = None, targets: Targets = (),
) -> Merged:  # fmt: skip
    """One model of several, written as a new folder; the inputs stay as they are.

    The arguments are those of `planned`; and shard_bytes: the most of one file. threads: side by side; else all
    processors. check: the result appears only if all its tensors have their places in transformers' class and none
    would be made up, told by names and shapes; load: and if it runs on one batch, and all outputs are finite. report:
    is told of bytes done and in all, and stops the merge by saying False; called again, it goes on. targets: rows for
    methods that read them: one target for all models, or one for each by the model's name.

    Raises `Refused` where the models do not fit together or the folder holds something, `OverBudget` where the disk has
    too little room, `Unreadable` for damaged files and for a result that would not load whole.
    """
    from headstart.combination.chains import check_place

    plan = planned(
        models, method, base=base, settings=settings, heads=heads, unmatched=unmatched, vocabulary=vocabulary,
        dtype=dtype, seed=seed,
    )  # fmt: skip
    check_place(plan, out, overwrite=overwrite)
    plan = with_rows(plan, targets)
    return carried_out(
        plan, out, shard_bytes=shard_bytes, threads=threads, overwrite=overwrite, check=check, load=load,
        report=report,
    )  # fmt: skip


def with_rows(
    plan: Plan, targets: Targets, *, rows: int | None = None, steps: int | None = None, told: Told | None = None,
    budget: Budget | None = None, started: float | None = None, tell: Tell | None = None,
) -> Plan:  # fmt: skip
    """The plan, once its method has read the rows that it asks for; a plan that asks for none, as it is.

    rows: the most that passes look at. steps: how many a method learns for, in place of its own number. told: is called
    with the number of rows whenever some have gone through the model. budget: its minutes, from started on, and its
    trials bound the search for numbers of a recipe; without both, 60 trials. tell: is told how far that is.
    """
    if plan.search is not None:
        from headstart.combination.searches import found
        from headstart.execution.meter import Meter

        meter = Meter(budget or Budget(), started=started)
        return _doubted(found(plan, tasks_of(plan, targets), meter, tell or (lambda *_: None)))
    if plan.reads is None:
        return plan
    from headstart.combination.learned import ROWS, learned_from

    return learned_from(plan, tasks_of(plan, targets), rows=rows or ROWS, steps=steps, told=told)


def tasks_of(plan: Plan, targets: Targets) -> list[TaskRows]:
    """The rows of targets as the models of a plan predict them."""
    from headstart.combination.live import task_rows

    named = targets.items() if isinstance(targets, Mapping) else [(None, t) for t in targets]
    return [task_rows(t, plan, None if name is None else _number(plan, name)) for name, t in named]


def _number(plan: Plan, name: str) -> int:
    """Of the model that a target belongs to."""
    names = [m.name for m in plan.models]
    if name not in names:
        raise Unfit(f"no model is called `{name}`", where="targets", fix=f"use one of: {', '.join(names)}")
    return names.index(name)


def merge_auto(
    models: Sequence[str | Path], targets: Targets, *, out: str | Path, base: str | Path | None = None,
    methods: Sequence[str] | None = None, heads: Heads | None = None, unmatched: Unmatched = "refuse",
    vocabulary: VocabularyRule = "refuse", dtype: str | None = None, budget: Budget | None = None,
    started: float | None = None, seeds: int = 3, seed: int = 0, shard_bytes: int = SHARD_BYTES,
    threads: int | None = None, overwrite: bool = False, check: bool = True, load: bool = False,
    page: Callable[[str, Mapping[str, Any]], str] | None = None, tell: Callable[[str, str, str], None] | None = None,
    report: Report | None = None,
) -> Merged:  # fmt: skip
    """The merge that does best on rows of the targets, chosen among all methods that fit, and written as a new folder.

    targets: one, of the labels that all models give; or one for each model, by its name: then every model keeps its own
    head, and what counts is the mean over the tasks of the score over that of the task's own model. methods: names of
    those that may take part; None is all. budget: its minutes, from started on, and its trials bound the choice.
    seeds: with how many a finalist that draws is made. page: makes `report.html` of a title and the facts. tell: is
    told what is going on, with whom, and which is the best so far. The other arguments are those of `merge`.

    Each model alone and the mean of all take part too; where one of them is best, that is what is written, and said.

    Raises `Refused` where the models do not fit together or there are too few rows to choose by.
    """
    from headstart.combination.auto import choose
    from headstart.combination.chains import check_place
    from headstart.combination.writing import check_loadable
    from headstart.io.atomic import refuse_occupied

    place = Path(out).expanduser().absolute()
    refuse_occupied(place, overwrite=overwrite)
    plan, named = planned_choice(
        models, targets, base=base, heads=heads, unmatched=unmatched, vocabulary=vocabulary, dtype=dtype, seed=seed
    )
    check_place(plan, place, overwrite=overwrite)
    check_loadable(plan, check=check, load=load)
    chosen = choose(
        plan, named, methods=methods, budget=budget, started=started, seeds=seeds, tell=tell or (lambda *_: None)
    )
    title = " and ".join(m.name for m in plan.models[:3]) + (", …" if len(plan.models) > 3 else "")
    texts = {**chosen.plan.texts, **({"report.html": page(title, chosen.facts)} if page else {})}
    found = dataclasses.replace(chosen.plan, texts=texts)
    return carried_out(
        found, place, shard_bytes=shard_bytes, threads=threads, overwrite=overwrite, check=check, load=load,
        report=report,
    )  # fmt: skip


def planned_choice(
    models: Sequence[str | Path], targets: Targets, *, base: str | Path | None = None, heads: Heads | None = None,
    unmatched: Unmatched = "refuse", vocabulary: VocabularyRule = "refuse", dtype: str | None = None, seed: int = 0,
) -> tuple[Plan, Mapping[int, Target] | Target]:  # fmt: skip
    """What entrants of `merge_auto` are made from, and the targets by the numbers of their models.

    Raises `Refused` where no rows are named, or not whose they are.
    """
    several = isinstance(targets, Mapping)
    if not targets or (not several and len(targets) > 1):
        raise Refused(
            "no rows are named to choose by" if not targets else "several targets are named, and not whose they are",
            where="merge auto",
            fix="add --target FILE --label COLUMN, or --target MODEL=FILE for each model",
        )
    plan = planned(
        models, "linear" if base is None else "task_arithmetic", base=base,
        heads=heads or ("separate" if several else "average"), unmatched=unmatched, vocabulary=vocabulary, dtype=dtype,
        seed=seed,
    )  # fmt: skip
    return plan, {_number(plan, n): t for n, t in targets.items()} if isinstance(targets, Mapping) else targets[0]


def merge_recipe(
    recipe: str | Path, *, out: str | Path, targets: Targets = (), budget: Budget | None = None,
    seed: int | None = None, shard_bytes: int = SHARD_BYTES, threads: int | None = None, overwrite: bool = False,
    check: bool = True, load: bool = False, report: Report | None = None,
) -> Merged:  # fmt: skip
    """What a recipe says, ours or mergekit's, written as a new folder. The other arguments are those of `merge`.

    seed: in place of the recipe's. targets: rows for a method that reads them, or for numbers of the recipe that are
    ranges; what is found lies in the folder as `recipe.yaml`. budget: its minutes and trials bound that search.
    """
    from headstart.combination.chains import check_place

    plan = planned_recipe(recipe, seed=seed)
    check_place(plan, out, overwrite=overwrite)
    plan = with_rows(plan, targets, budget=budget)
    return carried_out(
        plan, out, shard_bytes=shard_bytes, threads=threads, overwrite=overwrite, check=check, load=load,
        report=report,
    )  # fmt: skip


def planned_recipe(recipe: str | Path, *, seed: int | None = None) -> Plan:
    """What `merge_recipe` would do; what is read is what `planned` reads."""
    from headstart.combination import recipes

    said = recipes.read(recipe)
    place = Path(recipe).expanduser().absolute().parent
    if isinstance(said, recipes.Ranged):
        return _doubted(_planned_ranged(said, place, seed))
    return _doubted(_planned_said(said, place, seed))


def _planned_said(said: Said, place: Path, seed: int | None) -> Plan:
    from headstart.combination import layer_recipes, recipes
    from headstart.combination.mergekit import documents, several

    if isinstance(said, recipes.Mergekit):
        return documents.plan_of(said, place, seed=seed or 0)
    if isinstance(said, recipes.Several):
        return several.plan_of(said, place, seed=seed or 0)
    if isinstance(said, recipes.LayerRecipe):
        return layer_recipes.plan_of(said, place, seed=said.seed if seed is None else seed)
    return _planned_own(said, place, said.seed if seed is None else seed)


def _planned_ranged(said: Ranged, place: Path, seed: int | None) -> Plan:
    """The plan at the start of the search, with what the search needs."""
    from headstart.combination.searches import Search

    def planned(values: Mapping[str, float]) -> Plan:
        return _planned_said(said.at(values), place, seed)

    search = Search(said.ranges, planned, lambda values: said.text(values, place, seed))
    plan = planned(search.start)
    if plan.reads is not None:
        raise Refused(
            f"`{plan.method}` learns from rows itself, and `{said.ranges[0].name}` is a range to search on rows",
            where="recipe",
            fix="write a number there, or search the numbers of a method that reads no rows",
        )
    return dataclasses.replace(plan, search=search)


def _doubted(plan: Plan) -> Plan:
    """With a warning where the base is doubtful; models that are yet to be made are not looked at."""
    from headstart.combination.ancestry import doubted

    return plan if plan.reads is not None or plan.again is not None else doubted(plan)


def _planned_by_rows(said: Recipe, models: Sequence[str], base: str | None, seed: int) -> Plan:
    """What the command of the same words would do."""
    if said.rules:
        raise Refused(
            f"`{said.method}` reads rows and makes all tensors itself, and rules name other methods for some",
            where="recipe, `rules`",
            fix="leave the rules out, or use a method that reads no rows",
        )
    return planned(
        models, said.method, base=base, settings=said.settings, unmatched=said.unmatched, vocabulary=said.vocabulary,
        heads=said.heads if "heads" in said.model_fields_set else None, dtype=said.dtype, seed=seed,
    )  # fmt: skip


def _planned_own(said: Recipe, place: Path, seed: int) -> Plan:
    """One method for all tensors, and others for those that a rule matches."""
    from headstart.combination.plans import check, planned_by
    from headstart.combination.references import found_at

    models = [found_at(m, place) for m in said.models]
    base = found_at(said.base, place) if said.base is not None else None
    if kind_of(said.method) in READ_ROWS:
        return _planned_by_rows(said, models, base, seed)
    folders, root = _opened(models, base)
    kind, method = made_of(said.method, said.settings)
    check(folders, root, method, said.heads, said.unmatched, said.dtype, said.vocabulary)
    rules = []
    for rule in said.rules:
        other = said.method if rule.method is None else rule.method
        settings = {**said.settings, **rule.settings} if rule.method is None else rule.settings
        rules.append((rule.tensors, made_of(other, settings)))
        check(folders, root, rules[-1][1][1], said.heads, said.unmatched, said.dtype, said.vocabulary)

    def choose(name: str, *_: Any) -> tuple[Kind, Any]:
        return next((found for patterns, found in rules if any(fnmatchcase(name, p) for p in patterns)), (kind, method))

    plan = planned_by(choose, folders, root, said.heads, said.unmatched, said.vocabulary, said.dtype)
    unused = [r.tensors for r in said.rules if not any(fnmatchcase(m.name, p) for m in plan.made for p in r.tensors)]
    if unused:
        raise Unfit(
            f"no tensor is called like `{unused[0][0]}`",
            where="recipe, `rules`",
            fix=f"tensors are called like `{plan.made[len(plan.made) // 2].name}`",
        )
    settings = {**catalogue.settings(method), "rules": [r.model_dump(exclude_defaults=True) for r in said.rules]}
    return dataclasses.replace(plan, method=said.method, settings=settings, seed=seed)


def carried_out(
    plan: Plan, out: str | Path, *, shard_bytes: int = SHARD_BYTES, threads: int | None = None,
    overwrite: bool = False, check: bool = True, load: bool = False, report: Report | None = None,
) -> Merged:  # fmt: skip
    """A plan, written as a new folder; one that is made of others, after them."""
    from headstart.combination import chains
    from headstart.combination.likeness import compared
    from headstart.combination.writing import write

    if plan.search is not None:
        from headstart.combination.searches import none_named

        raise none_named(plan.search)
    chains.check_place(plan, out, overwrite=overwrite)
    plan = compared(plan)
    place = Path(out).expanduser().absolute()

    def written(one: Plan, where: Path, replace: bool) -> Receipt:
        return write(
            compared(one), where, shard_bytes=shard_bytes, threads=threads, overwrite=replace, check=check, load=load,
            report=report,
        )  # fmt: skip

    if plan.before:
        return Merged(*chains.carried_out(plan, place, written, overwrite=overwrite))
    return Merged(place, plan, written(plan, place, overwrite))


def _opened(models: Sequence[str | Path], base: str | Path | None) -> tuple[list[ModelFolder], ModelFolder | None]:
    """Models and base as they lie on the disk, with names that tell them apart."""
    from headstart.io import model_folders
    from headstart.io.tied import once

    folders = _named([model_folders.read(m) for m in models])
    root = model_folders.read(base) if base is not None else None
    if root is not None and any(f.name == root.name for f in folders):
        root = dataclasses.replace(root, name=f"{root.where.parent.name}/{root.name}")
    return [once(f) for f in folders], once(root) if root is not None else None


def made_of(method: Any, settings: Mapping[str, Any]) -> tuple[Kind, Any]:
    """What the stream calls a method, and the method with its settings. Raises `Refused` for one that reads rows."""
    kind = kind_of(method)
    if kind in READ_ROWS:
        raise Refused(
            f"`{method}` reads rows, which a rule, a slice or another merge cannot give it",
            where="merge",
            fix=f"make it the method of a whole recipe, or type: headstart merge {method} MODEL… --target FILE",
        )
    return STREAMS[kind], _instance(kind, method, settings)


def _instance(kind: str, method: Any, settings: Mapping[str, Any]) -> Any:
    if settings and not isinstance(method, str):
        raise Unfit("a method that is made already takes no settings", where="merge", fix="set them where it is made")
    return catalogue.make(kind, method, **settings)


def kind_of(method: Any) -> str:
    """Which kind of merge a method is: by its name, or an instance by what its call takes."""
    if isinstance(method, str):
        return _kind_of_name(method)
    import inspect

    from headstart import core

    def returned(one: inspect.Signature) -> str:
        return str(getattr(one.return_annotation, "__name__", one.return_annotation))

    have = inspect.signature(type(method).__call__)
    shapes = {kind: inspect.signature(getattr(core, core.KINDS[kind]).__call__) for kind in KINDS}
    fit = [k for k, one in shapes.items() if list(one.parameters) == list(have.parameters)]
    if fit:
        return next((k for k in fit if returned(shapes[k]) == returned(have)), fit[0])
    raise Unfit(
        f"`{type(method).__name__}` is called with {', '.join(list(have.parameters)[1:]) or 'nothing'}, as no merge is",
        where="merge",
        fix="see `headstart methods combination.merging`",
    )


def _kind_of_name(name: str) -> str:
    known = {n: kind for kind in KINDS for n in catalogue.entries(kind)}
    plain = catalogue.known_as(name, known)
    if plain in ELSEWHERE:
        raise Unfit(f"`{name}` is a recipe, and no method of its own", where="merge", fix=ELSEWHERE[plain])
    if plain not in known:
        near = get_close_matches(plain, known, n=2)
        raise Unfit(
            f"no way to merge is called `{name}`",
            where="merge",
            fix=f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"use one of: {', '.join(known)}",
        )
    return known[plain]


def _named(folders: Sequence[ModelFolder]) -> list[ModelFolder]:
    """Names that tell the models apart: of equal ones, with the folder above, and then with a number."""
    seen: dict[str, int] = {}
    out = []
    for folder in folders:
        name = folder.name
        if sum(f.name == name for f in folders) > 1:
            name = f"{folder.where.parent.name}/{name}"
        seen[name] = seen.get(name, 0) + 1
        out.append(dataclasses.replace(folder, name=name if seen[name] == 1 else f"{name} ({seen[name]})"))
    return out
