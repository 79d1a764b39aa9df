"""Load an encoder's module, and name its parts: parameters by depth, layers that low-rank adapters may go to."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from headstart.core import Unreadable

from .recipes import After, Recipe
from .safetensors_files import weight_files

DENSE = "sentence_dense"  # name under which the dense layers of a sentence-transformers folder join the module
UNPOOLED = ("cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def load_module(recipe: Recipe) -> nn.Module:
    """The bare encoder in float32 and eval mode, from local safetensors, never with a part that is filled at random."""
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(recipe.model, local_files_only=True, trust_remote_code=False)
        options: dict[str, Any] = {}
        if recipe.pooling[0] in UNPOOLED and "add_pooling_layer" in inspect.signature(_class_of(config)).parameters:
            options["add_pooling_layer"] = False
        module, report = AutoModel.from_pretrained(
            recipe.model,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise unreadable(error, recipe.where) from error
    lost = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    if lost:
        raise Unreadable(
            f"{len(lost)} tensors of the encoder are not in the folder, such as `{lost[0]}`",
            where=f"source `{recipe.where}`",
            fix="copy the folder again from its origin; missing weights are never filled at random",
        )
    dense = [_dense(step, recipe) for step in recipe.after if step.kind == "dense"]
    if dense:
        module.add_module(DENSE, nn.ModuleList(dense))
    return steady(module.eval())


def steady(module: nn.Module) -> nn.Module:
    """A model of transformers that says the same of a row whatever it was called with before: BigBird turns from sparse
    to full attention at the first rows that are short, and stays there."""
    base: Any = getattr(module, "base_model", module)
    if getattr(base, "attention_type", None) == "block_sparse":
        base.register_forward_hook(lambda one, *_: one.set_attention_type("block_sparse"))
    return module


def finish(module: nn.Module, after: Sequence[After], pooled: torch.Tensor) -> torch.Tensor:
    """What a sentence-transformers folder does after pooling: dense layers and normalisation, in its order."""
    number = 0
    for step in after:
        if step.kind == "normalise":
            pooled = nn.functional.normalize(pooled, p=2, dim=-1)
        else:
            layers = module.get_submodule(DENSE)
            assert isinstance(layers, nn.ModuleList)  # put there by load_module
            pooled = layers[number](pooled)
            number += 1
    return pooled


def depths(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Trainable parameters by depth, from the input to the output: embeddings, each block, what comes after them."""
    first: list[str] = []
    last: list[str] = []
    blocks: dict[tuple[str, ...], list[str]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        block = _block_of(name, module)
        if name.startswith(f"{DENSE}."):
            last.append(name)
        elif block:
            blocks.setdefault(block, []).append(name)
        elif blocks and "embed" not in name and "relative" not in name:  # the two are shared by all blocks
            last.append(name)
        else:
            first.append(name)
    return tuple(tuple(group) for group in (first, *blocks.values(), last) if group)


def low_rank_sites(module: nn.Module) -> tuple[str, ...]:
    """Linear layers of the blocks (attention and MLP); convolutions where a network has none."""
    linear, conv = [], []
    for name, part in module.named_modules():
        if name.startswith(f"{DENSE}.") or not _block_of(f"{name}.weight", module):
            continue
        if isinstance(part, nn.Linear):
            linear.append(name)
        elif isinstance(part, nn.Conv2d) and part.groups == 1:
            conv.append(name)
    return tuple(linear or conv)


def _block_of(name: str, module: nn.Module) -> tuple[str, ...]:
    """The repeated block that a parameter belongs to: its first index, and the one inside where stages hold blocks."""
    found: list[str] = []
    path: list[str] = []
    here: nn.Module = module
    for part in name.split(".")[:-1]:
        listed = isinstance(here, nn.ModuleList)
        here = here.get_submodule(part)
        path.append(part)
        if listed:
            found = [".".join(path)]
            inner = re.match(rf"{re.escape(found[0])}\.(layers|blocks|layer)\.(\d+)\.", name)
            if inner and _repeats(here, inner[1]):
                found.append(inner[0])
            break
    return tuple(found)


def _repeats(stage: nn.Module, name: str) -> bool:
    return isinstance(getattr(stage, name, None), (nn.ModuleList, nn.Sequential))


def _class_of(config: Any) -> Any:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    found = MODEL_MAPPING[type(config)]
    return found[0] if isinstance(found, (list, tuple)) else found


def _dense(step: After, recipe: Recipe) -> nn.Sequential:
    assert step.folder is not None  # a dense step always has one
    tensors = load_file(_only(step.folder, recipe.where))
    linear = nn.Linear(step.inputs, step.outputs, bias=step.bias)
    try:
        linear.load_state_dict({k.removeprefix("linear."): v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise unreadable(error, recipe.where) from error
    activation: nn.Module = getattr(nn, step.activation)()  # from a fixed list of names
    return nn.Sequential(linear, activation)


def _only(folder: Path, where: Path) -> Path:
    files = weight_files(folder, root=where)
    if len(files) != 1:
        raise Unreadable("a dense layer is in several files", where=f"source `{where}`", fix="copy the folder again")
    return files[0]


def unreadable(problem: Exception, where: Path) -> Unreadable:
    """An error of a library while it read a folder, in our form."""
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(problem)).split())[:160]
    return Unreadable(
        f"cannot be loaded: {said or type(problem).__name__}",
        where=f"source `{where}`",
        fix="copy the folder again from its origin",
    )
