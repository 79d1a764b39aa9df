"""What became of every tensor of every input: in the result by some rule, or left out by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.io.lineage import Origin
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Made, Part

    from .plans import Fate, Plan


def given(made: Made) -> Iterator[Part]:
    """All parts that a tensor of the result is made of."""
    for part in (made.base, *made.tuned):
        if part is not None:
            yield part
            yield from part.owners


def used(made: Iterable[Made], folders: Sequence[ModelFolder]) -> set[tuple[str, str]]:
    """(model, tensor as its files call it) of all that is in the result."""
    return {(folders[p.model].name, folders[p.model].stored.get(p.name, p.name)) for m in made for p in given(m)}


def left_out(
    made: Iterable[Made], folders: Sequence[ModelFolder], models: Sequence[ModelFolder],
    lost: Mapping[tuple[str, str], Fate], nowhere: Fate,
) -> dict[tuple[str, str], Fate]:  # fmt: skip
    """What is lost of a model made of slices: what no slice takes, and what all slices drop that have it.

    folders: the slices' parts of the models, by the numbers of the parts; models: whole. nowhere: of what no slice has.
    """
    taken = used(made, folders)
    names = [(m.name, n) for m in models for n in (*m.tensors, *m.copies)]
    return {key: lost.get(key, replace(nowhere, model=key[0])) for key in names if key not in taken}


def by_rule(plan: Plan) -> list[dict[str, Any]]:
    """The tensors of the result, those of one rule and of the same models together.

    models: that gave numbers, the base among them. renamed: by model, name in the result -> name in its files, where
    the two differ.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], dict[str, Any]] = {}
    for made in plan.made:
        fate = plan.fates[made.name]
        parts = {plan.folders[p.model].name: plan.folders[p.model].stored.get(p.name, p.name) for p in given(made)}
        group = groups.setdefault(
            (fate.how, fate.rule, tuple(parts)),
            {"how": fate.how, "rule": fate.rule, "models": list(parts), "tensors": [], "renamed": {}},
        )
        group["tensors"].append(made.name)
        for model, name in parts.items():
            if name != made.name:
                group["renamed"].setdefault(model, {})[made.name] = name
    return list(groups.values())


def described(plan: Plan) -> dict[str, dict[str, Any]]:
    """By name in the result: its fate, shape and type, and the names under which models store it once more."""
    said = {}
    for made in plan.made:
        fate = plan.fates[made.name]
        copies = [c for p in given(made) for c, one in plan.folders[p.model].copies.items() if one == p.name]
        said[made.name] = {
            "how": fate.how, "rule": fate.rule, "shape": list(made.shape), "dtype": made.dtype,
            "tied_with": list(dict.fromkeys(copies)),
        }  # fmt: skip
    return said


def made_from(plan: Plan) -> dict[str, Origin | None]:
    """By the name of the base and of each model, where it comes from."""
    from headstart.io.lineage import origin

    return {f.name: origin(f) for f in (*([plan.base] if plan.base is not None else []), *plan.models)}
