"""Recipes of merges, in YAML: our own form, and mergekit's unchanged.

A document with `merge_method` is mergekit's; all others are ours, one with `slices` or `swap` of layers. Unknown keys
are errors, with the nearest known one. No tag of YAML makes an object, and a document that grows when its aliases are
written out is refused. A number may be a range that rows are to search.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from headstart.core import Refused, Unfit, Unreadable

from . import ranges

MOST_BYTES = 1 << 20
MOST_NODES = 100_000
MOST_DOCUMENTS = 100
NAME = re.compile(r"[\w-][\w.-]*")  # a folder of the result, and nothing outside of it

Scalar = bool | int | float | str
Value = Scalar | list[Scalar]
OwnSettings = Annotated[dict[str, Any], WithJsonSchema(ranges.SETTINGS)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Rule(_Strict):
    """Another method or other settings for the tensors whose names match one of the patterns (`*`, `?`, `[…]`)."""

    tensors: list[str] = Field(min_length=1)
    method: str | None = None
    settings: OwnSettings = {}


class Recipe(_Strict):
    """One merge. Paths are found beside the recipe, else from where it is called."""

    method: str
    models: list[str] = Field(min_length=1)
    base: str | None = None
    settings: OwnSettings = {}
    rules: list[Rule] = []  # the first that matches a tensor holds for it
    heads: Literal["average", "concatenate", "separate", "refuse"] = "average"
    unmatched: Literal["refuse", "drop"] = "refuse"
    vocabulary: Literal["refuse", "union", "base", "first"] = "refuse"  # of models whose tokens differ
    dtype: Literal["float64", "float32", "float16", "bfloat16"] | None = None
    seed: int = 0


class LayerSlice(_Strict):
    """Layers [start, end) of one model, or of several models that are merged, by their mean if no method is named."""

    model: str | None = None
    models: list[str] = []
    layers: tuple[int, int]
    scale: Annotated[float, WithJsonSchema(ranges.NUMBER)] = 1.0  # of one model's weights in these layers
    scaled: list[str] = ["*"]  # patterns: of which of them
    method: str | None = None
    settings: OwnSettings = {}

    @property
    def sources(self) -> list[str]:
        return [self.model] if self.model is not None else self.models

    @model_validator(mode="after")
    def _makes_sense(self) -> LayerSlice:
        if (self.model is None) != bool(self.models):
            raise ValueError("a slice has either a model or models")
        if not 0 <= self.layers[0] < self.layers[1]:
            raise ValueError(f"layers {list(self.layers)} hold no layer")
        if self.scale != 1 and (self.models or self.method):
            raise ValueError("scale is of one model; of several, it belongs into the settings of a method")
        if self.settings and self.method is None:
            raise ValueError("settings are of a method, and none is named")
        return self


class Swap(_Strict):
    """Layers between `bottom` and `top` of one model in another, embeddings and head of the other.

    transition: how many layers next to them, on either side, are the mean of both.
    """

    outer: str
    inner: str
    bottom: int = Field(ge=1)
    top: int = Field(ge=1)
    transition: int = Field(default=0, ge=0)


class LayerRecipe(_Strict):
    """A model made of layers of others: slices one on top of the other, or a swap between two models."""

    slices: list[LayerSlice] = []
    swap: Swap | None = None
    base: str | None = None  # of methods that need one
    dtype: Literal["float64", "float32", "float16", "bfloat16"] | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _one_form(self) -> LayerRecipe:
        if bool(self.slices) == (self.swap is not None):
            raise ValueError("exactly one of slices and swap is meant")
        return self


class Conditional(_Strict):
    """A value for the tensors whose names contain the filter; without one, for all."""

    value: Value
    filter: str | None = None


Setting = Scalar | list[Scalar] | Conditional | list[Conditional]
Settings = dict[str, Setting]


class ModelPath(_Strict):
    """mergekit's long form of a model."""

    path: str
    revision: str | None = None


class ModelReference(_Strict):
    """mergekit's long form of a model and an adapter on it."""

    model: ModelPath
    lora: ModelPath | None = None
    override_architecture: str | None = None


Reference = str | ModelReference


class InputModel(_Strict):
    """A model and what holds for it alone."""

    model: Reference
    parameters: Settings = {}


class InputSlice(_Strict):
    """Layers [start, end) of a model."""

    model: Reference
    layer_range: tuple[int, int]
    parameters: Settings = {}

    @model_validator(mode="after")
    def _some(self) -> InputSlice:
        if not 0 <= self.layer_range[0] < self.layer_range[1]:
            raise ValueError(f"layer_range {list(self.layer_range)} holds no layer")
        return self


class OutputSlice(_Strict):
    """Layers of the result, each merged of one layer of every source."""

    sources: list[InputSlice] = Field(min_length=1)
    base_model: Reference | None = None
    residual_weight: float | None = None  # mergekit reads it and uses it nowhere
    parameters: Settings = {}

    @model_validator(mode="after")
    def _equal(self) -> OutputSlice:
        if len({s.layer_range[1] - s.layer_range[0] for s in self.sources}) > 1:
            raise ValueError("the sources of a slice have different numbers of layers")
        return self


class Module(_Strict):
    """Models or slices of one module of a model that has several."""

    models: list[InputModel] = []
    slices: list[OutputSlice] = []
    parameters: Settings = {}

    @model_validator(mode="after")
    def _one_form(self) -> Module:
        if bool(self.models) == bool(self.slices):
            raise ValueError("a module has either models or slices")
        return self


class TokenOfModel(_Strict):
    """A row of another token of a model."""

    kind: Literal["model_token"]
    model: Reference
    token: str | None = None
    token_id: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one(self) -> TokenOfModel:
        if (self.token is None) == (self.token_id is None):
            raise ValueError("exactly one of token and token_id is meant")
        return self


class Zeros(_Strict):
    """A row of zeros."""

    kind: Literal["zero"]


class TokenRow(_Strict):
    """What a token's row is where models lack it, or in all if it is forced."""

    source: TokenOfModel | Zeros | Reference | None = None
    force: bool = False

    @model_validator(mode="after")
    def _from(self) -> TokenRow:
        if self.force and self.source is None:
            raise ValueError("a token that is forced needs a source")
        return self


class Tokenizer(_Strict):
    """Whose vocabulary the result has."""

    source: Reference = "union"
    tokens: dict[str, TokenRow] | None = None
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class Mergekit(_Strict):
    """A document of mergekit 0.1.5."""

    merge_method: str
    models: list[InputModel] = []
    slices: list[OutputSlice] = []
    base_model: Reference | None = None
    parameters: Settings = {}
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: Reference | None = None
    tokenizer: Tokenizer | None = None
    chat_template: str | None = None
    input_model_parameters: Any = None  # in mergekit's README; its code knows no such key
    name: str | None = None
    modules: dict[str, Module] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Mergekit:
        if bool(self.models) + bool(self.slices) + bool(self.modules) != 1:
            raise ValueError("exactly one of models, slices and modules is meant")
        if self.tokenizer is not None and self.tokenizer_source is not None:
            raise ValueError("tokenizer and tokenizer_source cannot both be there")
        if self.name is not None and not NAME.fullmatch(self.name):
            raise ValueError(f"the name {self.name!r} is no plain one of letters, digits and -_.")
        return self


@dataclass(frozen=True, slots=True)
class Several:
    """Documents of mergekit, some of models that others are made of; at most one has no name."""

    documents: tuple[Mergekit, ...]


Said = Recipe | LayerRecipe | Mergekit | Several


@dataclass(frozen=True, slots=True)
class Ranged:
    """A recipe with numbers that rows are to find. documents: as they were written."""

    documents: tuple[dict[str, Any], ...]
    ranges: tuple[ranges.Range, ...]
    where: str

    def at(self, values: Mapping[str, float]) -> Said:
        """The recipe with numbers in place of the ranges, by their names."""
        return _said(ranges.filled(self.documents, values), self.where)

    def text(self, values: Mapping[str, float], place: Path, seed: int | None) -> str:
        """The same, as YAML that may lie anywhere. place: where this one lies. seed: in place of the recipe's."""
        from .references import anywhere

        names = [d["name"] for d in self.documents if "name" in d]
        said = anywhere(ranges.filled(self.documents, values), place, names)
        mergekit = any("merge_method" in d for d in said)
        if seed is not None and not mergekit:
            said[0]["seed"] = seed
        how = f"; merge it with --seed {seed}" if seed and mergekit else ""
        return f"# with the numbers that were found on rows{how}\n" + yaml.safe_dump_all(said, sort_keys=False)


def read(path: str | Path) -> Said | Ranged:
    """Raises `Unreadable` for a file that is missing or no YAML, `Unfit` for what a recipe cannot say."""
    place = Path(path)
    try:
        if place.stat().st_size > MOST_BYTES:
            raise Unreadable("it has more than a megabyte", where=f"recipe `{path}`", fix="check that it is a recipe")
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(
            f"the recipe cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}",
            where=f"`{path}`",
            fix="check the path",
        ) from error
    return parsed(text, str(path))


def parsed(text: str, where: str) -> Said | Ranged:
    """A recipe from its text. Raises `Refused` for documents of other tools."""
    found = _loaded(text, where)
    searched = ranges.ranges(found, where)
    return Ranged(tuple(found), searched, where) if searched else _said(found, where)


def _said(found: list[dict[str, Any]], where: str) -> Said:
    if len(found) == 1:
        return _parsed(found[0], where)
    documents = tuple(d for said in found if isinstance(d := _parsed(said, where), Mergekit))
    if len(documents) < len(found):
        raise Unfit(
            f"{len(found)} documents are in the file, and not all are mergekit's",
            where=f"`{where}`",
            fix="put each merge into a file of its own",
        )
    names = [d.name or "" for d in documents]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise Unfit(
            f"two documents are called `{twice}`" if twice else "two documents have no name",
            where=f"`{where}`, `name`",
            fix="name each after the model that it makes, all but the last",
        )
    return Several(documents)


def _parsed(said: dict[str, Any], where: str) -> Recipe | LayerRecipe | Mergekit:
    _check_tool(said, where)
    kind: type[Recipe | LayerRecipe | Mergekit] = Recipe
    if "merge_method" in said:
        kind = Mergekit
    elif "slices" in said or "swap" in said:
        kind = LayerRecipe
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        raise _wrong(error, kind, where) from error


def _check_tool(said: Mapping[str, Any], where: str) -> None:
    """Documents of other tools that come with mergekit are known by their keys."""
    if "merge_method" in said:
        return
    if "experts" in said:
        raise Refused(
            "this is a document of mergekit-moe, which makes experts of models, behind a gate in every layer",
            where=f"`{where}`",
            fix="make it with mergekit-moe; with parts apart are here: wemoe, twin_merge, onebit_merge, emr",
        )
    if "genome" in said:
        raise Refused(
            "this is a document of mergekit-evolve, which searches the settings of a merge by tests of language models",
            where=f"`{where}`",
            fix="type: headstart merge evolve MODEL… --base BASE --target FILE --label COLUMN",
        )


def _loaded(text: str, where: str) -> list[dict[str, Any]]:
    """The documents of a file."""
    try:
        nodes = [n for n in yaml.compose_all(text, Loader=yaml.SafeLoader) if n is not None]
        if len(nodes) > MOST_DOCUMENTS:
            raise Unfit(
                f"{len(nodes)} documents are in the file", where=f"`{where}`", fix=f"keep to {MOST_DOCUMENTS} a file"
            )
        for node in nodes:
            _check_nodes(node, where)
        found = [said for said in yaml.safe_load_all(text) if said is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or " ".join(str(error).split())[:120] or "it is nested too deeply"
        raise Unfit(f"the recipe is no YAML: {what}", where=f"`{where}`{place}", fix="mend the line") from error
    if not found or not all(isinstance(said, dict) for said in found):
        raise Unfit("the recipe holds no keys", where=f"`{where}`", fix="begin with `method:` and `models:`")
    return [{str(k): v for k, v in said.items()} for said in found]


def _check_nodes(root: Any, where: str) -> None:
    """No key twice, and no document that its aliases blow up."""
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = MOST_NODES  # an alias to what it is in
        inner: list[Any] = []
        if isinstance(node, yaml.MappingNode):
            keys = [k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
            twice = next((k for k in keys if keys.count(k) > 1), None)
            if twice is not None:
                raise Unfit(
                    f"`{twice}` is there twice",
                    where=f"`{where}`, line {node.start_mark.line + 1}",
                    fix="keep one of them",
                )
            inner = [n for pair in node.value for n in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        sizes[id(node)] = 1 + sum(size(n) for n in inner)
        return sizes[id(node)]

    if size(root) > MOST_NODES:
        raise Unfit("the recipe is too large once its aliases are written out", where=f"`{where}`", fix="shorten it")


def _wrong(error: ValidationError, kind: type[BaseModel], where: str) -> Unfit:
    """The first thing that is wrong, with the nearest key where one is unknown."""
    found = error.errors(include_url=False, include_input=False)
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    place = ".".join(str(p) for p in first["loc"] if not _is_name_of_a_type(p))
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        near = get_close_matches(key, _keys(kind, first["loc"][:-1]), n=1)
        return Unfit(
            f"`{key}` is no key of a recipe",
            where=f"`{where}`, `{place}`",
            fix=f"did you mean `{near[0]}`?" if near else "leave it out",
        )
    if first["type"] == "missing":
        return Unfit(f"`{first['loc'][-1]}` is missing", where=f"`{where}`, `{place}`", fix="add it")
    said = first["msg"].removeprefix("Value error, ")
    return Unfit(said[:1].lower() + said[1:], where=f"`{where}`, `{place}`" if place else f"`{where}`", fix="mend it")


def _is_name_of_a_type(part: int | str) -> bool:
    """Pydantic says which form of several it tried."""
    return isinstance(part, str) and (part[:1].isupper() or part in ("bool", "int", "float", "str") or "[" in part)


def _keys(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys of the form that lies at a place."""
    forms: dict[str, type[BaseModel]] = {
        "models": InputModel, "slices": LayerSlice if kind is LayerRecipe else OutputSlice, "sources": InputSlice,
        "rules": Rule, "model": ModelReference, "modules": Module, "swap": Swap,
        "tokenizer": Tokenizer, "tokens": TokenRow,
    }  # fmt: skip
    names = [p for p in place if isinstance(p, str) and p in forms]
    form = forms[names[-1]] if names else kind
    return list(form.model_fields)


def schema() -> dict[str, Any]:
    """The JSON Schema of our own forms."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(Recipe | LayerRecipe).json_schema(),
        "title": "recipe of headstart merge",
        "description": "A recipe of `headstart merge`, in YAML.",
    }
