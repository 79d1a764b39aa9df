"""mergekit's documents, carried out: each tensor's method and settings, resolved as mergekit 0.1.5 resolves them.

Its formulas where they differ from the papers': per-tensor trimming that keeps `int(density * entries)`, election that
takes plus where changes cancel, means by the sum of agreeing weights, and rescaling to the sum of sizes. What is not
here is refused by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart.core import Refused, Unfit

from . import recipes
from .plans import Fate, Plan, Planner

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.stream import Kind, Made, Part

LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
PER_LAYER = ("layer_types", "sliding_window_pattern_per_layer")
FIRST = re.compile(r"embed|wte|wpe|patch|cls_token|position")
TOKENIZER_FILES = re.compile(r"tokenizer|vocab|merges|spiece|sentencepiece|special_tokens|added_tokens|\.model$")
Base = Literal["required", "optional", "ignored"]
Setting = recipes.Setting
REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings of one tensor: what holds for the merge, and one value a model; and its entries."""

    shared: Mapping[str, Any]
    each: Mapping[str, tuple[Any, ...]]
    size: int


@dataclass(frozen=True, slots=True)
class Spec:
    """A method of mergekit. shared, each: settings with their defaults; make: ours of the resolved ones."""

    make: Callable[[Resolved], tuple[Kind, Any]]
    base: Base = "required"
    shared: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    each: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: tuple[int, int | None] = (1, None)  # without the base


def _linear(r: Resolved) -> tuple[Kind, Any]:
    from .weighting.linear import Linear

    return "weighting", Linear(weights=r.each["weight"], normalize=r.shared["normalize"])


def _slerp(r: Resolved) -> tuple[Kind, Any]:
    from .weighting.slerp import Slerp

    return "weighting", Slerp(t=r.shared["t"])


def _nuslerp(r: Resolved) -> tuple[Kind, Any]:
    from .weighting.nuslerp import NuSlerp

    if r.shared["nuslerp_row_wise"]:
        raise _not_here("nuslerp_row_wise")
    return "weighting", NuSlerp(weights=r.each["weight"], per="tensor" if r.shared["nuslerp_flatten"] else "row")


def _multislerp(r: Resolved) -> tuple[Kind, Any]:
    from .weighting.multi_slerp import MultiSlerp

    if not r.shared["normalize_weights"]:
        raise _not_here("normalize_weights: false")
    return "weighting", MultiSlerp(weights=r.each["weight"])


def _karcher(r: Resolved) -> tuple[Kind, Any]:
    from .weighting.karcher import Karcher

    return "weighting", Karcher(steps=int(r.shared["max_iter"]), tolerance=r.shared["tol"])


def _passthrough(r: Resolved) -> tuple[Kind, Any]:
    from .weighting.linear import Linear

    scale = r.each["scale"][0]
    return "weighting", Linear(weights=(1.0 if scale is None else scale,), normalize=False)


def _task_arithmetic(r: Resolved) -> tuple[Kind, Any]:
    from .weighting.task_arithmetic import TaskArithmetic

    _unscaled(r.shared)
    divided = r.shared["normalize"] and abs(sum(r.each["weight"])) >= 1e-8
    return "weighting", TaskArithmetic(scale=r.shared["lambda"], weights=r.each["weight"], normalize=divided)


def _ties(r: Resolved) -> tuple[Kind, Any]:
    from .trimming.ties import Ties

    _unscaled(r.shared)
    densities = tuple(1.0 if d >= 1 else max(1, int(d * r.size)) / r.size for d in r.each["density"])
    average: Literal["weight", "sum"] = "weight" if r.shared["normalize"] else "sum"
    made = Ties(
        density=densities,
        scale=r.shared["lambda"],
        weights=r.each["weight"],
        trim="tensor",
        undecided="plus",
        average=average,
    )
    return "trimming", made


def _dare(elect: bool) -> Callable[[Resolved], tuple[Kind, Any]]:
    def make(r: Resolved) -> tuple[Kind, Any]:
        from .trimming.dare import Dare

        return "trimming", Dare(
            density=r.each["density"], scale=r.shared["lambda"], weights=r.each["weight"], consensus="elect" if elect
            else "sum", average="weight" if r.shared["normalize"] else "sum", rescale="l1" if r.shared["rescale"] else
            "none", normalize=r.shared["normalize"],
        )  # fmt: skip

    return make


def _della(elect: bool) -> Callable[[Resolved], tuple[Kind, Any]]:
    def make(r: Resolved) -> tuple[Kind, Any]:
        from .merging.della import Della

        if len(set(r.each["density"])) > 1 or len(set(r.each["epsilon"])) > 1:
            raise _not_here("della with a density or epsilon for each model")
        if r.each["density"][0] >= 1:
            return _dare(elect)(dataclasses.replace(r, each={**r.each, "density": (1.0,) * len(r.each["density"])}))
        if r.shared["normalize"] and not elect:
            raise _not_here("della_linear with normalize: true")
        return "merging", Della(
            density=r.each["density"][0], epsilon=r.each["epsilon"][0], scale=r.shared["lambda"],
            weights=r.each["weight"], consensus="elect" if elect else "sum", average="weight" if r.shared["normalize"]
            else "sum", rescale="l1" if r.shared["rescale"] else "none",
        )  # fmt: skip

    return make


def _breadcrumbs(elect: bool) -> Callable[[Resolved], tuple[Kind, Any]]:
    def make(r: Resolved) -> tuple[Kind, Any]:
        from .trimming.breadcrumbs import Breadcrumbs

        _unscaled(r.shared)
        if r.shared["normalize"] and not elect:
            raise _not_here("breadcrumbs with normalize: true")
        kept, cut = [], []
        for density, gamma in zip(r.each["density"], r.each["gamma"], strict=True):
            count = r.size if density >= 1 else int(density * r.size)
            bottom = max(0, r.size - count - int(gamma * r.size)) if density < 1 else 0
            kept.append(count / r.size)
            cut.append((r.size - bottom - count) / r.size)
        if not all(kept):
            raise Unfit(
                f"a density of {min(r.each['density']):g} keeps nothing of {r.size} entries",
                where="recipe, `density`",
                fix="choose a larger density",
            )
        return "trimming", Breadcrumbs(
            density=tuple(kept), outliers=tuple(cut), scale=r.shared["lambda"], weights=r.each["weight"],
            consensus="elect" if elect else "sum", average="weight" if r.shared["normalize"] else "sum",
        )  # fmt: skip

    return make


def _sce(r: Resolved) -> tuple[Kind, Any]:
    from .merging.sce import Sce

    return "merging", Sce(density=r.shared["select_topk"])


def _model_stock(r: Resolved) -> tuple[Kind, Any]:
    from .weighting.model_stock import ModelStock

    return "weighting", ModelStock(per="row" if r.shared["filter_wise"] else "tensor", beyond=True)


def _vectors(*, normalize: bool, rescale: bool) -> dict[str, Any]:
    return {"lambda": 1.0, "normalize": normalize, "rescale": rescale, "int8_mask": False}


WEIGHTS = {"weight": REQUIRED, "density": 1.0}
SPECS: dict[str, Spec] = {
    "linear": Spec(_linear, "ignored", {"normalize": True}, {"weight": REQUIRED}),
    "slerp": Spec(_slerp, "ignored", {"t": REQUIRED}, {}, (2, 2)),
    "nuslerp": Spec(
        _nuslerp, "optional", {"nuslerp_row_wise": False, "nuslerp_flatten": True}, {"weight": REQUIRED}, (2, 2)
    ),
    "multislerp": Spec(_multislerp, "optional", {"normalize_weights": True, "eps": 1e-8}, {"weight": REQUIRED}),
    "karcher": Spec(_karcher, "ignored", {"max_iter": 10.0, "tol": 1e-5}),
    "passthrough": Spec(_passthrough, "ignored", {}, {"scale": None}, (1, 1)),
    "task_arithmetic": Spec(_task_arithmetic, "required", _vectors(normalize=False, rescale=False), WEIGHTS),
    "ties": Spec(_ties, "required", _vectors(normalize=True, rescale=False), WEIGHTS),
    "dare_linear": Spec(_dare(False), "required", _vectors(normalize=False, rescale=True), WEIGHTS),
    "dare_ties": Spec(_dare(True), "required", _vectors(normalize=False, rescale=True), WEIGHTS),
    "della_linear": Spec(
        _della(False), "required", _vectors(normalize=False, rescale=True), {**WEIGHTS, "epsilon": 0.15}
    ),
    "della": Spec(_della(True), "required", _vectors(normalize=True, rescale=True), {**WEIGHTS, "epsilon": 0.15}),
    "breadcrumbs": Spec(
        _breadcrumbs(False), "required", _vectors(normalize=False, rescale=False), {**WEIGHTS, "gamma": 0.01}
    ),
    "breadcrumbs_ties": Spec(
        _breadcrumbs(True), "required", _vectors(normalize=False, rescale=False), {**WEIGHTS, "gamma": 0.01}
    ),
    "sce": Spec(_sce, "required", {"select_topk": 1.0, "int8_mask": False}),
    "model_stock": Spec(_model_stock, "required", {"filter_wise": False}, {}, (2, None)),
}
NOT_HERE = ("nearswap", "arcee_fusion", "ram", "ramplus_tl")
# read and without effect here: a mask's type changes no result
WITHOUT_EFFECT = frozenset({"int8_mask", "eps"})


def _not_here(what: str) -> Refused:
    return Refused(
        f"mergekit's `{what}` is not here yet",
        where="recipe",
        fix=f"use one of: {', '.join(SPECS)}" if what in NOT_HERE else "leave it out",
    )


def _unscaled(shared: Mapping[str, Any]) -> None:
    if shared["rescale"]:
        raise _not_here("rescale: true for this method")


@dataclass(frozen=True, eq=False, slots=True)
class _Source:
    """A model in a slice. names: of its tensors in the slice, with what they are called in the model."""

    folder: ModelFolder
    parameters: recipes.Settings
    names: Mapping[str, str]


@dataclass(frozen=True, eq=False, slots=True)
class _Slice:
    """Models of a slice of the result, each with its settings and layers; None where it is all of them."""

    sources: Sequence[tuple[ModelFolder, recipes.Settings, tuple[int, int] | None]]
    base: ModelFolder | None
    parameters: recipes.Settings


def plan_of(document: recipes.Mergekit, place: Path, *, seed: int = 0) -> Plan:
    """Raises `Refused` for what mergekit can and this cannot, and where the models do not fit together."""
    _check(document)
    spec = SPECS[document.merge_method]
    folders = _Folders(place)
    base = folders.of(document.base_model) if document.base_model is not None else None
    dtype = (document.out_dtype or document.dtype or "").removeprefix("torch.") or None
    slices = _slices(document, folders, base)
    layers = 0
    read: list[ModelFolder] = []
    made: list[Made] = []
    fates: dict[str, Fate] = {}
    lost: dict[tuple[str, str], Fate] = {}
    warnings: list[str] = []
    labels: tuple[str, ...] | None = None
    donor: ModelFolder | None = None
    for number, one in enumerate(slices):
        ends = (number == 0, number == len(slices) - 1)
        sources = [_source(f, p, r, layers, ends) for f, p, r in one.sources]
        cut = one.sources[0][2]
        count = cut[1] - cut[0] if cut else _layers(sources[0].names)
        planner = _planner(document, spec, sources, one, layers, count, dtype)
        made += [_shifted(m, len(read)) for m in planner.made()]
        read += planner.folders
        fates |= planner.fates
        lost |= planner.lost
        warnings += planner.warnings
        labels = labels or planner.labels
        donor = donor or planner.donor
        layers += count
    assert donor is not None  # a document has models or slices
    originals = {f.name: f for f in folders.all()}
    files, texts = _words(document, folders, base)
    return Plan(
        tuple(read), originals[donor.name], base, tuple(f for f in folders.all() if f is not base),
        document.merge_method, document.model_dump(mode="json", exclude_defaults=True), tuple(made), fates, lost,
        labels, dtype, seed, tuple(dict.fromkeys(warnings)), _config(donor, slices, layers), files, texts,
    )  # fmt: skip


def _slices(document: recipes.Mergekit, folders: _Folders, base: ModelFolder | None) -> list[_Slice]:
    if document.models:
        given = [(folders.of(m.model), m.parameters) for m in document.models]
        if base is not None and all(f is not base for f, _ in given):
            given.append((base, {}))
        return [_Slice([(f, p, None) for f, p in given], base, {})]
    return [
        _Slice(
            [(folders.of(s.model), s.parameters, s.layer_range) for s in one.sources],
            folders.of(one.base_model) if one.base_model is not None else base,
            one.parameters,
        )
        for one in document.slices
    ]


def _check(document: recipes.Mergekit) -> None:
    name = document.merge_method
    if name in NOT_HERE:
        raise _not_here(name)
    if name not in SPECS:
        near = get_close_matches(name, SPECS, n=1)
        raise Unfit(
            f"mergekit has no method `{name}`",
            where="recipe, `merge_method`",
            fix=f"did you mean `{near[0]}`?" if near else f"use one of: {', '.join(SPECS)}",
        )
    for key, value in (("modules", document.modules), ("tokenizer", document.tokenizer)):
        if value:
            raise _not_here(key)
    known = {**SPECS[name].shared, **SPECS[name].each}
    places = [document.parameters, *(m.parameters for m in document.models)]
    for one in document.slices:
        places += [one.parameters, *(s.parameters for s in one.sources)]
    for key in (k for p in places for k in p):
        if key not in known:
            near = get_close_matches(key, known, n=1)
            raise Unfit(
                f"`{name}` has no parameter `{key}`",
                where="recipe, `parameters`",
                fix=f"did you mean `{near[0]}`?" if near else f"it has: {', '.join(known) or 'none'}",
            )


class _Folders:
    """The models of a document, each read once; in the order in which they are first named."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._known: dict[str, ModelFolder] = {}

    def of(self, reference: recipes.Reference) -> ModelFolder:
        from headstart.io import model_folders

        path, revision, lora = _parts(reference)
        if lora:
            raise Refused(
                "an adapter on a model is not merged here yet",
                where=f"recipe, model `{path}+{lora}`",
                fix="write the adapter into the model first",
            )
        where = found_at(path if not revision else f"{path}@{revision}", self._place)
        if where not in self._known:
            folder = model_folders.read(where)
            if any(f.name == folder.name for f in self._known.values()):
                folder = dataclasses.replace(folder, name=f"{folder.where.parent.name}/{folder.name}")
            self._known[where] = folder
        return self._known[where]

    def all(self) -> list[ModelFolder]:
        return list(self._known.values())


def _parts(reference: recipes.Reference) -> tuple[str, str, str]:
    if isinstance(reference, str):
        model, _, lora = reference.partition("+")
        path, _, revision = model.partition("@")
        return path, revision, lora
    return reference.model.path, reference.model.revision or "", reference.lora.path if reference.lora else ""


def found_at(path: str, place: Path) -> str:
    """The folder that a recipe names: beside it, or from here, or a hub's."""
    if path.startswith("hub:"):
        from headstart.io.hub import fetched

        return str(fetched(path))
    for folder in (place / Path(path).expanduser(), Path(path).expanduser()):
        if folder.is_dir():
            return str(folder.absolute())
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", path) is not None
    raise Refused(
        f"there is no folder `{path}`",
        where="recipe",
        fix=f"write hub:{path} for a model of the hub, or name the folder" if hub else "name the folder of the model",
    )


def _source(
    folder: ModelFolder, parameters: recipes.Settings, layers: tuple[int, int] | None, first: int,
    ends: tuple[bool, bool],
) -> _Source:  # fmt: skip
    """The tensors of a slice, its layers numbered from `first`; what lies outside layers is of the first or last."""
    if layers is None:
        return _Source(folder, parameters, {n: n for n in folder.tensors})
    names: dict[str, str] = {}
    held = 0
    for name in folder.tensors:
        at = LAYER.search(name)
        if at is None:
            if ends[0] if FIRST.search(name) else ends[1]:
                names[name] = name
        elif layers[0] <= int(at[1]) < layers[1]:
            held = max(held, int(at[1]) + 1)
            names[f"{name[: at.start(1)]}{int(at[1]) - layers[0] + first}{name[at.end(1) :]}"] = name
    if held < layers[1]:
        raise Unfit(
            f"`{folder.name}` has no layer {layers[1] - 1}",
            where=f"recipe, layer_range {list(layers)}",
            fix=f"its layers are 0 to {_layers(folder.tensors) - 1}",
        )
    cut = {new: dataclasses.replace(folder.tensors[old], name=new) for new, old in names.items()}
    return _Source(dataclasses.replace(folder, tensors=cut), parameters, names)


def _layers(names: Mapping[str, Any]) -> int:
    return max((int(at[1]) + 1 for n in names if (at := LAYER.search(n))), default=0)


def _planner(
    document: recipes.Mergekit, spec: Spec, sources: Sequence[_Source], one: _Slice, first: int, layers: int,
    dtype: str | None,
) -> Planner:  # fmt: skip
    """What one slice needs, by the role that the base has in the method."""
    name, base = document.merge_method, one.base
    where = [s.folder.where for s in sources]
    at = where.index(base.where) if base is not None and base.where in where else None
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
            f"`{name}` merges {wanted} models, and these are {len(tuned)}", where="recipe", fix="change `models`"
        )
    ordered = [*([root] if root else []), *tuned]

    def choose(tensor: str, own: Sequence[str | None], size: int) -> tuple[Kind, Any]:
        layer = LAYER.search(tensor)
        t = 0.0 if layer is None else (int(layer[1]) - first) / (layers - 1) if layers > 1 else 1.0
        outer = (one.parameters, document.parameters)
        shared = {k: _resolved(k, d, outer, tensor, t) for k, d in spec.shared.items()}
        names = [s.names.get(n, n) if n is not None else tensor for s, n in zip(ordered, own, strict=True)]
        mine = list(zip(ordered, names, strict=True))[1 if root else 0 :]
        each = {k: tuple(_resolved(k, d, (s.parameters, *outer), n, t) for s, n in mine) for k, d in spec.each.items()}
        return spec.make(Resolved(shared, each, size))

    folders = [s.folder for s in ordered]
    same = root is not None and set(root.folder.tensors) == set(tuned[0].folder.tensors)
    donor = root.folder if root is not None and same else tuned[0].folder
    return Planner(folders, folders[0] if root else None, donor, choose, "average", "refuse", dtype)


def _resolved(key: str, default: Any, places: Sequence[recipes.Settings], tensor: str, t: float) -> Any:
    """The first place that says something for this tensor, else the default."""
    sort: type = bool if isinstance(default, bool) else float
    for place in places:
        if key in place:
            value = evaluated(place[key], tensor, t, sort)
            if value is not None:
                return value
    if default is REQUIRED:
        raise Unfit(f"`{key}` is missing for tensor `{tensor}`", where="recipe, `parameters`", fix=f"add `{key}`")
    return default


def evaluated(setting: Setting, tensor: str, t: float, sort: type) -> Any:
    """A setting's value for a tensor at t in [0, 1] of its slice's layers; None where no filter fits.

    >>> evaluated([0, 10, 0], "x", 0.25, float), evaluated([0, 10, 0], "x", 1.0, float)
    (5.0, 0.0)
    """
    if isinstance(setting, recipes.Conditional):
        setting = [setting]
    if not isinstance(setting, list):
        return _as(setting, sort)
    if not setting:
        return None
    for one in setting:
        if isinstance(one, recipes.Conditional) and (one.filter in (None, "*") or str(one.filter) in tensor):
            return evaluated(one.value, tensor, t, sort)
    if isinstance(setting[0], recipes.Conditional):
        return None
    values = [_as(v, sort) for v in setting]
    if sort is bool:
        return values[int(t * (len(values) - 1))]
    place = t * (len(values) - 1)
    left = int(place)
    right = min(len(values) - 1, left + 1)
    return (1 - (place - left)) * values[left] + (place - left) * values[right]


def _as(value: Any, sort: type) -> Any:
    """YAML reads `1e-5` as text."""
    try:
        if sort is bool:
            if isinstance(value, bool) or value in (0, 1):
                return bool(value)
            raise ValueError
        return float(value)
    except (TypeError, ValueError) as error:
        said = "true or false" if sort is bool else "a number"
        raise Unfit(f"{value!r} is not {said}", where="recipe, `parameters`", fix=f"write {said}") from error


def _shifted(made: Made, by: int) -> Made:
    def moved(part: Part | None) -> Part | None:
        if part is None:
            return None
        owners = tuple(p for o in part.owners if (p := moved(o)) is not None)
        return dataclasses.replace(part, model=part.model + by, owners=owners)

    tuned = tuple(p for t in made.tuned if (p := moved(t)) is not None)
    return dataclasses.replace(made, base=moved(made.base), tuned=tuned)


def _config(donor: ModelFolder, slices: Sequence[_Slice], layers: int) -> dict[str, Any]:
    """The number of layers, and what is said of each of them, where the result has others than the donor."""
    cuts = [one.sources[0][2] for one in slices]
    order = [i for cut in cuts if cut is not None for i in range(*cut)]
    if not order:
        return {}
    changed: dict[str, Any] = {k: layers for k in COUNTS if k in donor.config}
    for key in PER_LAYER:
        listed = donor.config.get(key)
        if isinstance(listed, list):
            changed[key] = [listed[i] for i in order if i < len(listed)]
    return changed


def _words(
    document: recipes.Mergekit, folders: _Folders, base: ModelFolder | None
) -> tuple[dict[str, ModelFolder], dict[str, str]]:
    """Whose tokenizer the result gets, and which chat template."""
    source = document.tokenizer_source
    files: dict[str, ModelFolder] = {}
    if source is not None and source != "union":
        owner = base if source == "base" else folders.of(source)
        if owner is None:
            raise Unfit("tokenizer_source is `base`, and there is no base_model", where="recipe", fix="add base_model")
        files = {n: owner for n in owner.carried if TOKENIZER_FILES.search(n)}
    template = document.chat_template
    if template is None:
        return files, {}
    if template == "auto":
        found = Counter(t for f in folders.all() if (t := _template(f)))
        return files, {"chat_template.jinja": found.most_common(1)[0][0]} if found else {}
    if "{" not in template or len(template) < 20:
        raise Refused(
            f"the chat template `{template}` is not here",
            where="recipe, `chat_template`",
            fix="write the template itself, in Jinja, or `auto`",
        )
    return files, {"chat_template.jinja": template}


def _template(folder: ModelFolder) -> str | None:
    from headstart.io.safe_files import read_json

    beside = folder.where / "chat_template.jinja"
    if "chat_template.jinja" in folder.carried:
        return beside.read_text(encoding="utf-8")
    said = read_json(folder.where, "tokenizer_config.json").get("chat_template")
    return said if isinstance(said, str) else None
