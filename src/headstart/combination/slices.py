"""Slices: layers of models that become layers of the result, numbered anew."""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart.core import Refused, Unfit

from . import recipes

if TYPE_CHECKING:
    from headstart.io.model_folders import ModelFolder
    from headstart.numerics.made import Made, Part

LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
# layers within stages, as of ResNet, ConvNeXt, Swin and SegFormer, and what else a stage has
STAGED = re.compile(
    r"(?:^|\.)(?:stages\.(\d+)\.(?:layers\.|blocks\.)?|layers\.(\d+)\.blocks\.|blocks?\.(\d+)\.)(\d+)\."
)
STAGE = re.compile(r"(?:^|\.)stages\.(\d+)\.")
COUNTS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers",
)  # fmt: skip
# lists of a configuration with an entry for each layer
PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "attention_layers",
             "sliding_window_pattern_per_layer")  # fmt: skip
# what inputs meet before the layers
FIRST = re.compile(r"embed|wte|wpe|patch|cls_token|position|pre_lay|\bconv[12]\b|\bfeature_|relative")
OF_ALL = "relative_attention_bias"  # T5 stores with the first layer what all layers add
STACKS = {  # words of names and configurations that say which of several stacks of layers is meant
    "encoder": "encoder", "decoder": "decoder", "text": "text", "language": "text", "vision": "vision",
    "visual": "vision", "audio": "audio",
}  # fmt: skip
Holds = Callable[[str], bool]


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """A model in a slice. names: of its tensors in the slice, with what they are called in the model."""

    folder: ModelFolder
    parameters: recipes.Settings
    names: Mapping[str, str]


@dataclass(frozen=True, eq=False, slots=True)
class Slice:
    """Models of a slice of the result, each with its settings and layers; None where it is all of them."""

    sources: Sequence[tuple[ModelFolder, recipes.Settings, tuple[int, int] | None]]
    base: ModelFolder | None
    parameters: recipes.Settings


def source(
    folder: ModelFolder, parameters: recipes.Settings, layers: tuple[int, int] | None, first: int,
    ends: tuple[bool, bool], holds: Holds | None = None,
) -> Source:  # fmt: skip
    """The tensors of a slice, its layers numbered from `first`; what lies outside layers is of the first or last.

    holds: which names are of the module that is sliced, where there are several.
    """
    if layers is None and holds is None:
        return Source(folder, parameters, {n: n for n in folder.tensors})
    names: dict[str, str] = {}
    held, mine = 0, [n for n in folder.tensors if holds is None or holds(n)]
    for name in mine:
        at = LAYER.search(name) if OF_ALL not in name else None
        if layers is None:
            names[name] = name
        elif at is None:
            if ends[0] if FIRST.search(name) else ends[1]:
                names[name] = name
        elif layers[0] <= int(at[1]) < layers[1]:
            held = max(held, int(at[1]) + 1)
            names[f"{name[: at.start(1)]}{int(at[1]) - layers[0] + first}{name[at.end(1) :]}"] = name
    if layers is not None and held < layers[1]:
        raise Unfit(
            f"`{folder.name}` has no layer {layers[1] - 1}",
            where=f"recipe, layers {list(layers)}",
            fix=f"its layers are 0 to {layers_of(mine) - 1}"
            if layers_of(mine)
            else "name layers of models that have some",
        )
    cut = {new: dataclasses.replace(folder.tensors[old], name=new) for new, old in names.items()}
    changes = {new: folder.changes[old] for new, old in names.items() if old in folder.changes}
    labels = folder.labels if ends[1] else None  # a head is of the last
    own = {new: folder.stored.get(old, old) for new, old in names.items()}
    stored = {new: old for new, old in own.items() if new != old}
    part = dataclasses.replace(folder, tensors=cut, changes=changes, labels=labels, stored=stored)
    return Source(part, parameters, names)


def depths(names: Iterable[str]) -> dict[str, float]:
    """Name -> where its layer lies between the first of its stack, 0, and the last, 1; of those that are in layers.

    Layers of stages follow each other; what a stage has beside its layers lies with the first of them.

    >>> depths(["embed.weight", "layers.0.up", "layers.1.up", "layers.2.up"])
    {'layers.0.up': 0.0, 'layers.1.up': 0.5, 'layers.2.up': 1.0}
    >>> depths(["stages.0.layers.0.up", "stages.1.down.0.up", "stages.1.layers.0.up", "stages.1.layers.1.up"])
    {'stages.0.layers.0.up': 0.0, 'stages.1.down.0.up': 0.5, 'stages.1.layers.0.up': 0.5, 'stages.1.layers.1.up': 1.0}
    """
    found = {n: place for n in names if (place := _place(n)) is not None}
    stacks: dict[str, set[tuple[int, ...]]] = {}
    for stack, at in found.values():
        stacks.setdefault(stack, set()).add(at)
    layers = {stack: sorted(at for at in held if len(at) == max(map(len, held))) for stack, held in stacks.items()}
    return {
        name: min(bisect_left(layers[stack], at) / max(1, len(layers[stack]) - 1), 1.0)
        for name, (stack, at) in found.items()
    }


def _place(name: str) -> tuple[str, tuple[int, ...]] | None:
    """What a layer's stack is called, and its number there, with that of its stage before it."""
    at = STAGED.search(name) or STAGE.search(name) or LAYER.search(name)
    if at is None:
        return None
    numbers = [i for i, said in enumerate(at.groups(), 1) if said is not None]
    return name[: at.start(numbers[0])], tuple(int(at[i]) for i in numbers)


def layers_of(names: Iterable[str]) -> int:
    return max((int(at[1]) + 1 for n in names if (at := LAYER.search(n))), default=0)


def shifted(made: Made, by: int) -> Made:
    def moved(part: Part | None) -> Part | None:
        if part is None:
            return None
        owners = tuple(p for o in part.owners if (p := moved(o)) is not None)
        return dataclasses.replace(part, model=part.model + by, owners=owners)

    tuned = tuple(p for t in made.tuned if (p := moved(t)) is not None)
    return dataclasses.replace(made, base=moved(made.base), tuned=tuned)


def config_of(donor: ModelFolder, slices: Sequence[Slice], layers: int) -> dict[str, Any]:
    """The number of layers, and what is said of each of them, where the result has others than the donor."""
    cuts = [(one.sources[0][0].config, one.sources[0][2]) for one in slices]
    order = [(config, i) for config, cut in cuts if cut is not None for i in range(*cut)]
    if not order:
        return {}
    changed: dict[str, Any] = {k: layers for k in COUNTS if k in donor.config}
    if donor.config and not changed and layers != layers_of(donor.tensors):
        raise Refused(
            f"the configuration of `{donor.name}` does not say how many layers there are",
            where="recipe, `slices`",
            fix="use as many layers as the model has",
        )
    for key in (k for k in PER_LAYER if isinstance(donor.config.get(k), list)):
        lists = [(config.get(key) or donor.config[key], i) for config, i in order]
        changed[key] = [listed[i] for listed, i in lists if i < len(listed)]
    return changed


def config_of_module(
    config: Mapping[str, Any], name: str, before: int, slices: Sequence[Slice], layers: int
) -> Mapping[str, Any]:
    """A configuration with the number of layers of one module among several, and what is said of each of them.

    name: of the module; before: how many layers it had, and the configuration says so.
    Raises `Refused` where that number changes and it is not there.
    """
    cuts = [(one.sources[0][0].config, one.sources[0][2]) for one in slices]
    order = [(theirs, i) for theirs, cut in cuts if cut is not None for i in range(*cut)]
    if not order:
        return config
    words = _stacks(name)
    fit = [(at, key) for at, key in _counts(config, before) if _stacks(f"{at}.{key}") <= words]
    exact = [(at, key) for at, key in fit if _stacks(f"{at}.{key}")]
    chosen = fit if "encoder" in words or not exact else exact  # a number without a word is the encoder's
    if config and not chosen and layers != before:
        raise Refused(
            f"the configuration does not say how many layers the module `{name}` has",
            where="recipe, `modules`",
            fix="use as many layers as the module has",
        )
    for at in dict.fromkeys(at for at, _ in chosen):
        part = dict(config[at] if at else config) | {key: layers for place, key in chosen if place == at}
        for key in (k for k in PER_LAYER if isinstance(part.get(k), list) and len(part[k]) == before):
            lists = [((theirs.get(at) or {} if at else theirs).get(key) or part[key], i) for theirs, i in order]
            part[key] = [listed[i] for listed, i in lists if i < len(listed)]
        config = {**config, at: part} if at else part
    return config


def _counts(config: Mapping[str, Any], layers: int) -> Iterator[tuple[str, str]]:
    """Where a configuration, or a part of it, has that number of layers: (part, or nothing, and key)."""
    for at, part in (("", config), *((k, v) for k, v in config.items() if isinstance(v, dict))):
        yield from ((at, key) for key in (*COUNTS, "depth") if part.get(key) == layers)


def _stacks(name: str) -> set[str]:
    """
    >>> sorted(_stacks("model.vision_tower.encoder")), _stacks("text_config.num_hidden_layers")
    (['encoder', 'vision'], {'text'})
    """
    return {STACKS[w] for w in re.split(r"[._]", name) if w in STACKS}
