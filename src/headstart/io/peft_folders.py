"""Adapters as peft keeps them: a folder with `adapter_config.json` and `adapter_model.safetensors`, read and written
here.

LoRA with everything that changes what it does: rsLoRA, DoRA, ranks and alphas of single modules, biases of the adapter
(`lora_bias`) and of the model (`bias`), embeddings, convolutions, transposed layers (`fan_in_fan_out`) and whole
modules (`modules_to_save`). What is not known is refused, and nothing is left out silently. Only safetensors are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from headstart.core import Refused, Unreadable
from headstart.numerics.delta import Dense, Form, LowRank, Whole

from . import atomic
from .safe_files import inside, read_json
from .safetensors_files import Entry, entries

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OUTER = "base_model.model."  # before every name
TWICE = ("modules_to_save", "original_module")  # what peft calls the parts of a module that it keeps whole
# what a configuration of wrong types raises where it is used
SLIPS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, ArithmeticError, re.error)
Kind = Literal["linear", "transposed", "convolution", "embedding"]
# settings that change what an adapter computes, with the values that are understood; `None` and absence are the first
UNDERSTOOD: dict[str, tuple[Any, ...]] = {
    "bias": ("none", "all", "lora_only"), "use_qalora": (False,), "megatron_config": (None,), "loftq_config": (None,
    {}), "corda_config": (None,), "eva_config": (None,), "layer_replication": (None,), "alora_invocation_tokens":
    (None,), "target_parameters": (None, []), "trainable_token_indices": (None,), "arrow_config": (None,),
}  # fmt: skip


@dataclass(frozen=True, eq=False, slots=True)
class Adapter:
    """One adapter. changes: by tensors of the model that it sits in (`….query.weight`); kinds: of its low-rank ones.

    saved: modules that are kept whole, with all their parts. config: peft's own, as it was read.
    """

    name: str
    changes: Mapping[str, Form]
    kinds: Mapping[str, Kind]
    saved: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own(self) -> dict[str, Form]:
        """The tensors of modules that are kept whole."""
        return {n: c for n, c in self.changes.items() if any(n.startswith(f"{m}.") for m in self.saved)}


def read(where: str | Path) -> Adapter:
    """Raises `Unreadable` for a folder that is missing or damaged, `Refused` for what is no LoRA or not understood."""
    folder = Path(where).expanduser().absolute()
    config = read_json(folder, CONFIG) if folder.is_dir() else {}
    if not config:
        raise Unreadable(
            f"there is no `{CONFIG}`",
            where=f"adapter `{where}`",
            fix="name a folder that peft's `save_pretrained` wrote",
        )
    if config.get("peft_type") != "LORA":
        raise Refused(
            f"this is an adapter of the form `{config.get('peft_type')}`, and LoRA is what is read",
            where=f"adapter `{where}`",
            fix="merge it into its base with peft, and take the difference with `headstart delta diff`",
        )
    for key, known in UNDERSTOOD.items():
        value = config.get(key)
        if value is not None and value not in known:
            raise Refused(
                f"`{key}` is {json.dumps(value)[:60]}, which is not understood",
                where=f"adapter `{where}`",
                fix="merge it into its base with peft, and take the difference with `headstart delta diff`",
            )
    file = inside(folder, WEIGHTS)
    if not file.is_file():
        raise Unreadable(f"there is no `{WEIGHTS}`", where=f"adapter `{where}`", fix="save the adapter as safetensors")
    entries([file])
    try:
        return _parsed(folder.name, config, load_file(file), str(where))
    except (SafetensorError, *SLIPS) as error:
        raise Unreadable(
            f"the adapter is damaged: {' '.join(str(error).split())[:120] or type(error).__name__}",
            where=f"adapter `{where}`",
            fix="copy the folder again from its origin",
        ) from error


def whole_tensors(where: Path) -> dict[str, Entry]:
    """Where tensors that an adapter keeps whole lie, by the names that `read` gives them."""
    found = {e.name.removeprefix(OUTER).replace(".base_layer.", "."): e for e in entries([inside(where, WEIGHTS)])}
    return {n: replace(e, name=n) for n, e in found.items() if "lora_" not in n}


def _parsed(name: str, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], where: str) -> Adapter:
    changes: dict[str, Form] = {}
    kinds: dict[str, Kind] = {}
    left = {k.removeprefix(OUTER): v for k, v in tensors.items()}
    for key in list(left):  # with `bias`, peft saves those of modules that it keeps whole once more, old ones too
        if any(f".{inner}." in key for inner in TWICE):
            del left[key]
    for key in list(left):
        for ending, embedding in ((".lora_A.weight", False), (".lora_embedding_A", True)):
            if key.endswith(ending):
                module = key.removesuffix(ending)
                low, kind = _low_rank(module, left, config, where, embedding=embedding)
                changes[f"{module}.weight"], kinds[f"{module}.weight"] = low, kind
                bias = left.pop(f"{module}.lora_B.bias", None)
                if bias is not None:
                    changes[f"{module}.bias"] = Dense(_scale(module, config, low.left.shape[1]) * bias.float())
    for low_rank in changes:  # peft saves embeddings of language models beside their LoRA, as they were
        left.pop(f"{low_rank.removesuffix('.weight')}.base_layer.weight", None)
    for key, tensor in left.items():
        if ".lora_" in key or "lora_" in key.rpartition(".")[2]:
            raise Refused(
                f"tensor `{key}` is not understood",
                where=f"adapter `{where}`",
                fix="merge it into its base with peft, and take the difference with `headstart delta diff`",
            )
        changes[key.replace(".base_layer.", ".")] = Whole(tensor)
    wanted = [str(m) for m in config.get("modules_to_save") or ()]
    owners = dict.fromkeys(n.rpartition(".")[0] for n, c in changes.items() if isinstance(c, Whole))
    saved = tuple(dict.fromkeys(m for o in owners if (m := _named_in(o, wanted)) is not None))
    return Adapter(name, changes, kinds, saved, dict(config))


def _named_in(module: str, wanted: list[str]) -> str | None:
    """The module that is kept whole and that this one is, or is a part of.

    >>> _named_in("classifier.dense", ["classifier"]), _named_in("bert.pooler.dense", ["classifier"])
    ('classifier', None)
    """
    parts = module.split(".")
    outer = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return next((o for o in outer if any(o == m or o.endswith(f".{m}") for m in wanted)), None)


def _low_rank(
    module: str, tensors: dict[str, torch.Tensor], config: Mapping[str, Any], where: str, *, embedding: bool
) -> tuple[LowRank, Kind]:
    """The factors of one module, taken out of the tensors."""
    ends = (".lora_embedding_A", ".lora_embedding_B") if embedding else (".lora_A.weight", ".lora_B.weight")
    down, up = (tensors.pop(module + end, None) for end in ends)
    if down is None or up is None or down.dim() != up.dim() or down.shape[0] != up.shape[1]:
        raise Unreadable(
            f"the two factors of `{module}` do not fit together",
            where=f"adapter `{where}`",
            fix="copy the folder again from its origin",
        )
    magnitude = tensors.pop(f"{module}.lora_magnitude_vector", None)
    if magnitude is None:
        magnitude = tensors.pop(f"{module}.lora_magnitude_vector.weight", None)
    scale = _scale(module, config, down.shape[0])
    turned = embedding or (bool(config.get("fan_in_fan_out")) and down.dim() == 2)
    a, b = down.flatten(1), up.flatten(1)
    left, right = (a.T.contiguous(), b.T.contiguous()) if turned else (b, a)
    shape = (left.shape[0], right.shape[1]) if down.dim() == 2 else (up.shape[0], *down.shape[1:])
    if magnitude is not None and (turned or down.dim() > 2):
        raise Refused(
            f"DoRA on `{module}`, which is no plain linear layer, is not understood",
            where=f"adapter `{where}`",
            fix="merge it into its base with peft, and take the difference with `headstart delta diff`",
        )
    low = LowRank(shape, left, right, scale, magnitude.flatten() if magnitude is not None else None)
    kind: Kind = "embedding" if embedding else "convolution" if down.dim() > 2 else "transposed" if turned else "linear"
    return low, kind


def _checked(pattern: str) -> str:
    """A pattern of peft's. Repeated groups can take for ever on a name, and none is needed to say which layers."""
    if re.search(r"\)[*+{]", pattern):
        raise ValueError(f"the pattern `{pattern[:60]}` repeats a group")
    return pattern


def _scale(module: str, config: Mapping[str, Any], rank: int) -> float:
    """alpha / rank, or alpha / √rank for rsLoRA; a pattern holds for modules whose name ends with it."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({_checked(pattern)})", module):
            alpha = value
            break
    return float(alpha) / (sqrt(rank) if config.get("use_rslora") else rank)


def write(adapter: Adapter, place: Path, *, overwrite: bool = False) -> None:
    """The adapter as a new folder that peft loads; every module with its own rank and alpha."""
    write_all({"": adapter}, place, {}, overwrite=overwrite)


def write_all(
    adapters: Mapping[str, Adapter], place: Path, texts: Mapping[str, str], *, overwrite: bool = False
) -> None:
    """Adapters by their folders below a new one ("" is itself), and texts by the names of their files."""
    with atomic.new_folder(place, overwrite=overwrite) as staging:
        for folder, adapter in adapters.items():
            (staging / folder).mkdir(exist_ok=True)
            _write(adapter, staging / folder)
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8")


def _write(adapter: Adapter, folder: Path) -> None:
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    biased, bias, own = False, "none", adapter.own
    for name, change in adapter.changes.items():
        module = name.removesuffix(".weight")
        if isinstance(change, LowRank):
            _put(module, change, adapter.kinds[name], tensors)
            ranks[module] = change.left.shape[1]
            alphas[module] = change.scale * ranks[module]
        elif isinstance(change, Whole):
            owner, _, last = name.rpartition(".")
            alone = last == "bias" and name not in own
            inner = alone and f"{owner}.weight" in adapter.kinds  # peft wraps the layer that it adapts
            tensors[f"{OUTER}{owner}.base_layer.bias" if inner else f"{OUTER}{name}"] = change.values
            bias = "all" if alone else bias
        elif isinstance(change, Dense) and f"{name.removesuffix('.bias')}.weight" in adapter.kinds:
            of = adapter.changes[f"{name.removesuffix('.bias')}.weight"]
            assert isinstance(of, LowRank)  # it is among the low-rank ones
            tensors[f"{OUTER}{name.removesuffix('.bias')}.lora_B.bias"] = change.values / of.scale
            biased = True
        else:
            raise Refused(
                f"the change of `{name}` is `{type(change).__name__.lower()}`, which LoRA cannot hold",
                where="adapter",
                fix="write it as a delta instead, with `headstart delta`",
            )
    stays = ("task_type", "base_model_name_or_path", "fan_in_fan_out")
    config = {k: v for k, v in adapter.config.items() if k in stays}
    rank = max(ranks.values(), default=1)
    config |= {
        "peft_type": "LORA", "inference_mode": True, "r": rank, "lora_alpha": rank, "target_modules": sorted(ranks),
        "rank_pattern": ranks, "alpha_pattern": alphas, "bias": bias, "lora_bias": biased, "use_rslora": False,
        "use_dora": any(isinstance(c, LowRank) and c.magnitude is not None for c in adapter.changes.values()),
        "modules_to_save": list(adapter.saved) or None, "lora_dropout": 0.0, "init_lora_weights": True,
    }  # fmt: skip
    (folder / CONFIG).write_text(atomic.dumps(config), encoding="utf-8")
    plain = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
    save_file(plain, folder / WEIGHTS, metadata={"format": "pt"})


def _put(module: str, low: LowRank, kind: Kind, tensors: dict[str, torch.Tensor]) -> None:
    left, right = low.left.float(), low.right.float()
    if kind == "embedding":
        tensors[f"{OUTER}{module}.lora_embedding_A"] = left.T
        tensors[f"{OUTER}{module}.lora_embedding_B"] = right.T
        return
    a, b = (left.T, right.T) if kind == "transposed" else (right, left)
    if kind == "convolution":
        a, b = a.view(-1, *low.shape[1:]), b.view(*b.shape, *[1] * (len(low.shape) - 2))
    tensors[f"{OUTER}{module}.lora_A.weight"] = a
    tensors[f"{OUTER}{module}.lora_B.weight"] = b
    if low.magnitude is not None:
        tensors[f"{OUTER}{module}.lora_magnitude_vector"] = low.magnitude
