"""mergekit's documents, carried out: each tensor's method and settings, resolved as mergekit 0.1.5 resolves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.combination import recipes
from headstart.combination.accounts import left_out
from headstart.combination.layer_recipes import OneModel
from headstart.combination.plans import Fate, Plan, Planner, check_dtype
from headstart.combination.references import Folders
from headstart.combination.slices import Holds, Slice, Source, config_of, config_of_module, depths, layers_of
from headstart.combination.stacking import Stack, Way, apart, joined, stacked
from headstart.core import Refused, Unfit

from .methods import SPECS, Resolved, Spec
from .parameters import resolved
from .words import template, words

if TYPE_CHECKING:
    from headstart.combination.vocabularies import Words
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Kind


CALL = "call a module by the first part of its tensors' names, and what no other holds `default`"


@dataclass(frozen=True, eq=False, slots=True)
class _Module:
    """A module, its slices and its settings. holds: which tensors are its own; None where there is one module."""

    name: str
    slices: list[Slice]
    parameters: recipes.Settings
    holds: Holds | None


def plan_of(
    document: recipes.Mergekit, place: Path, *, seed: int = 0, made: Mapping[str, ModelFolder] | None = None
) -> Plan:
    """made: models of other documents, by their names.

    Raises `Refused` for what mergekit can and this cannot, and where the models do not fit together."""
    _check(document)
    spec = SPECS[document.merge_method]
    folders = Folders(place, made)
    base = folders.of(document.base_model) if document.base_model is not None else None
    dtype = _dtype(document.out_dtype) or _dtype(document.dtype)
    modules = _modules(document, folders, base)
    spoken = words(document, folders, base)
    stacks = [stacked(m.slices, _way(document, m.parameters, spec, m.slices, dtype, spoken), m.holds) for m in modules]
    stack = joined(stacks)
    donor = next(f for m in modules for one in m.slices for f, _, _ in one.sources if f.name == stack.donor.name)
    _check_whole(donor, modules)
    lost = left_out(stack.made, stack.folders, folders.all(), stack.lost, Fate("dropped", "in no slice"))
    unread = ("`input_model_parameters` is read over, as mergekit does: settings of a model are its `parameters`",)
    return Plan(
        stack.folders, donor, base, tuple(f for f in folders.all() if f is not base), document.merge_method,
        document.model_dump(mode="json", exclude_defaults=True), stack.made, stack.fates, lost, stack.labels,
        dtype, seed, (
            *stack.warnings, *(spoken.warned([donor]) if spoken is not None else ()),
            *(unread if document.input_model_parameters is not None else ()),
        ),
        _config(donor, modules, stacks), template(document, folders.all()),
        spoken,
    )  # fmt: skip


def _modules(document: recipes.Mergekit, folders: Folders, base: ModelFolder | None) -> list[_Module]:
    """Each holds the tensors whose names begin with its own, or with it after `model.`; `default` holds the rest."""
    said: Mapping[str, recipes.Module | recipes.Mergekit] = document.modules or {"default": document}
    sliced = {name: _slices(module, folders, base) for name, module in said.items()}
    if len(said) == 1:  # of several modules one has the embeddings, and its configuration is of all
        sliced = {name: _apart(document, slices) for name, slices in sliced.items()}
    begins = {name: _begin(name, slices[0].sources[0][0]) for name, slices in sliced.items()}

    def holds(name: str) -> Holds:
        others = [b for b in begins.values() if len(b) > len(begins[name])]
        return lambda tensor: tensor.startswith(begins[name]) and not tensor.startswith(tuple(others))

    modules = [
        _Module(
            name, sliced[name], module.parameters if isinstance(module, recipes.Module) else {},
            holds(name) if len(said) > 1 or begins[name] else None,
        )
        for name, module in said.items()
    ]  # fmt: skip
    for one in modules:
        for folder in (f for part in one.slices for f, _, _ in part.sources):
            if one.holds is not None and not any(map(one.holds, folder.tensors)):
                raise Refused(f"`{folder.name}` has no module `{one.name}`", where="recipe, `modules`", fix=CALL)
    return modules


def _apart(document: recipes.Mergekit, slices: Sequence[Slice]) -> list[Slice]:
    """`apart`, where a base that is merged like the others counts as one of them."""
    if SPECS[document.merge_method].base != "ignored":
        return apart(slices)
    found = apart([replace(one, base=None) for one in slices])
    return [replace(new, base=one.base) for new, one in zip(found, slices, strict=True)]


def _begin(name: str, folder: ModelFolder) -> str:
    wrapped = not any(n.startswith(f"{name}.") for n in folder.tensors)
    return "" if name == "default" else f"model.{name}." if wrapped else f"{name}."


def _check_whole(donor: ModelFolder, modules: Sequence[_Module]) -> None:
    """Every tensor is of some module."""
    left = next((n for n in donor.tensors if not any(m.holds is None or m.holds(n) for m in modules)), None)
    if left is not None:
        raise Refused(f"no module of the document holds tensor `{left}`", where="recipe, `modules`", fix=CALL)


def _config(donor: ModelFolder, modules: Sequence[_Module], stacks: Sequence[Stack]) -> dict[str, Any]:
    """What the donor's configuration gets."""
    if len(modules) == 1:
        return config_of(donor, modules[0].slices, stacks[0].layers)
    config = donor.config
    for module, stack in zip(modules, stacks, strict=True):
        before = layers_of(n for n in donor.tensors if module.holds is not None and module.holds(n))
        config = config_of_module(config, module.name, before, module.slices, stack.layers)
    return {k: v for k, v in config.items() if donor.config.get(k) != v}


def _slices(module: recipes.Mergekit | recipes.Module, folders: Folders, base: ModelFolder | None) -> list[Slice]:
    if module.models:
        given = [(folders.of(m.model), m.parameters) for m in module.models]
        if base is not None and all(f is not base for f, _ in given):
            given.append((base, {}))
        return [Slice([(f, p, None) for f, p in given], base, {})]
    return [
        Slice(
            [(folders.of(s.model), s.parameters, s.layer_range) for s in one.sources],
            folders.of(one.base_model) if one.base_model is not None else base,
            one.parameters,
        )
        for one in module.slices
    ]


def _dtype(said: str | None) -> str | None:
    return (said or "").removeprefix("torch.") or None


def _check(document: recipes.Mergekit) -> None:
    name = document.merge_method
    check_dtype(_dtype(document.dtype), "recipe, `dtype`")
    check_dtype(_dtype(document.out_dtype), "recipe, `out_dtype`")
    if name not in SPECS:
        near = get_close_matches(name, SPECS, n=1)
        raise Unfit(
            f"mergekit has no method `{name}`",
            where="recipe, `merge_method`",
            fix=f"did you mean `{near[0]}`?" if near else f"use one of: {', '.join(SPECS)}",
        )
    known = {**SPECS[name].shared, **SPECS[name].each}
    places = [document.parameters]
    parts: list[recipes.Module | recipes.Mergekit] = [document, *(document.modules or {}).values()]
    for module in parts:
        places += [module.parameters, *(m.parameters for m in module.models)]
        for one in module.slices:
            places += [one.parameters, *(s.parameters for s in one.sources)]
    for key in (k for p in places for k in p):
        if key not in known:
            near = get_close_matches(key, known, n=1)
            raise Unfit(
                f"`{name}` has no parameter `{key}`",
                where="recipe, `parameters`",
                fix=f"did you mean `{near[0]}`?" if near else f"it has: {', '.join(known) or 'none'}",
            )


def _way(
    document: recipes.Mergekit, parameters: recipes.Settings, spec: Spec, slices: Sequence[Slice], dtype: str | None,
    spoken: Words | None,
) -> Way:  # fmt: skip
    def way(number: int, sources: Sequence[Source], _: int, layers: int) -> Planner:
        one = slices[number]
        outer = (one.parameters, parameters, document.parameters)
        return _planner(document.merge_method, outer, spec, sources, one.base, layers, dtype, spoken)

    return way


def _planner(
    name: str, outer: Sequence[recipes.Settings], spec: Spec, sources: Sequence[Source], base: ModelFolder | None,
    layers: int, dtype: str | None, spoken: Words | None,
) -> Planner:  # fmt: skip
    """What one slice needs, by the role that the base has in the method. outer: settings, the nearest first."""
    named = [s.folder.name for s in sources]
    at = named.index(base.name) if base is not None and base.name in named else None
    if (spec.base == "required" or name == "slerp") and at is None:
        raise Refused(
            f"`{name}` needs a base_model" + ("" if base is None else " among the sources of every slice"),
            where="recipe",
            fix="add base_model, the model that the others were fine-tuned from",
        )
    root = sources[at] if at is not None and spec.base != "ignored" else None
    tuned = [s for s in sources if s is not root]
    if name == "slerp" and at is not None:  # from the base to the other
        tuned = [sources[at], *(s for i, s in enumerate(sources) if i != at)]
    fewest, most = spec.inputs
    if len(tuned) < fewest or (most is not None and len(tuned) > most):
        wanted = str(fewest) if fewest == most else f"{fewest} or more"
        raise Refused(
            f"`{name}` takes {wanted} model{'' if wanted == '1' else 's'}, not {len(tuned)}",
            where="recipe",
            fix="change `models`",
        )
    ordered = [*([root] if root else []), *tuned]

    deep = {n: t for s in ordered for n, t in depths(s.names).items()}  # within the slice

    def choose(tensor: str, own: Sequence[str | None], size: int) -> tuple[Kind, Any]:
        t = 0.0 if tensor not in deep else deep[tensor] if layers > 1 else 1.0
        shared = {k: resolved(k, d, outer, tensor, t) for k, d in spec.shared.items()}
        names = [s.names.get(n, n) if n is not None else tensor for s, n in zip(ordered, own, strict=True)]
        mine = list(zip(ordered, names, strict=True))[1 if root else 0 :]
        each = {k: tuple(resolved(k, d, (s.parameters, *outer), n, t) for s, n in mine) for k, d in spec.each.items()}
        return spec.make(Resolved(shared, each, size))

    folders = [s.folder for s in ordered]
    same = root is not None and set(root.folder.tensors) == set(tuned[0].folder.tensors)
    donor = root.folder if root is not None and same else tuned[0].folder
    planner = OneModel if name == "passthrough" else Planner
    return planner(folders, folders[0] if root else None, donor, choose, "average", "refuse", dtype, spoken)
