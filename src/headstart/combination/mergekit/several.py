"""Several documents of mergekit in one file: models that are made on the way, and the one that is made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.combination import recipes
from headstart.combination.plans import Plan
from headstart.core import Refused, Unfit

from . import documents

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder

NAMING = ("model", "base_model", "tokenizer_source", "path")  # keys whose text names a model


def plan_of(several: recipes.Several, place: Path, *, seed: int = 0) -> Plan:
    """The plan of the last document, with those of all that are made before it; nothing of them lies on the disk yet.

    Raises what a single document's plan does, and `Unfit` for names that go round in a circle.
    """
    to_be: dict[str, ModelFolder] = {}
    plans: list[tuple[str, Plan]] = []
    ordered = _ordered(several.documents)
    for document in ordered:

        def again(made: Mapping[str, ModelFolder], document: recipes.Mergekit = document) -> Plan:
            return documents.plan_of(document, place, seed=seed, made=made)

        name = document.name or ""
        plan = dataclasses.replace(again(to_be), again=again)
        if document is not ordered[-1]:
            _check_words(name, plan)
        plans.append((name, plan))
        to_be[name] = _to_be(plan, name)
    *before, (name, last) = plans
    return dataclasses.replace(last, before=tuple(before), name=name)


def _check_words(name: str, plan: Plan) -> None:
    """What is made on the way is planned with the tokenizer files of its donor, whose vocabulary it must have."""
    if plan.words is not None and plan.donor.name in plan.words.rows:
        raise Refused(
            f"`{name}` gets a vocabulary of its own, and other documents need it before it is written",
            where=f"recipe, document `{name}`",
            fix="merge it by itself first, and name its folder in the others",
        )


def _ordered(given: Sequence[recipes.Mergekit]) -> list[recipes.Mergekit]:
    """Every document after those that it names; one without a name last, and then only what it is made of."""
    known = {d.name or "": d for d in given}
    names = {name: [n for n in dict.fromkeys(_named(d)) if n in known] for name, d in known.items()}
    wanted, todo = set[str](), [""] if "" in known else list(known)
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += names[name]
    try:
        order = list(TopologicalSorter({n: names[n] for n in known if n in wanted}).static_order())
    except CycleError as error:
        raise Unfit(
            f"the documents go round in a circle: {' needs '.join(f'`{n}`' for n in reversed(error.args[1]))}",
            where="recipe, `name`",
            fix="let no model be made of itself",
        ) from error
    return [known[n] for n in order]


def _named(document: recipes.Mergekit) -> Iterator[str]:
    """Models that a document names, without revisions and adapters."""
    todo: list[Any] = [document.model_dump(mode="json")]
    while todo:
        at = todo.pop(0)
        if isinstance(at, dict):
            yield from (v.partition("+")[0] for k, v in at.items() if k in NAMING and isinstance(v, str))
            todo += at.values()
        elif isinstance(at, list):
            todo += at


def _to_be(plan: Plan, name: str) -> ModelFolder:
    """A planned model as something to plan with: its tensors, and its donor's files."""
    from headstart.combination.writing import config_of
    from headstart.io.safetensors_files import Entry

    file = plan.donor.where / f"{name} is not made yet"
    tensors = {m.name: Entry(m.name, m.dtype, m.shape, file, 0, m.bytes) for m in plan.made}
    config = config_of(plan, plan.donor, plan.labels)
    return dataclasses.replace(
        plan.donor, name=name, tensors=tensors, config=config, labels=plan.labels, changes={}, adapter=None,
        copies={}, notes=(),
    )  # fmt: skip
