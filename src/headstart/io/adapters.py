"""Low-rank adapters in peft's own form: written from a delta, and merged into the module they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from headstart.core import Unreadable
from headstart.numerics.artifacts import Delta

from .safe_files import read_json, write_json

# settings of peft that say what the tensors mean; all others are left out when an adapter is read
SETTINGS = (
    "r", "lora_alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out",
    "layers_to_transform", "layers_pattern", "exclude_modules", "bias",
)  # fmt: skip


def write(delta: Delta, folder: Path, *, base: str) -> None:
    """`adapter_config.json` and `adapter_model.safetensors`. base: name of the base, for people."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {k: _plain(v) for k, v in delta.config.items()}
    config |= {"peft_type": "LORA", "base_model_name_or_path": base, "inference_mode": True, "auto_mapping": None}
    config["task_type"] = None
    write_json(config, folder / "adapter_config.json")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in delta.tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merged(module: nn.Module, folder: Path) -> None:
    """Adds the adapter in a folder to the weights of its base, in place."""
    import peft

    said = read_json(folder, "adapter_config.json")
    settings = {k: said[k] for k in SETTINGS if said.get(k) is not None}
    if said.get("peft_type") != "LORA" or not settings.get("target_modules"):
        raise _wrong(folder, f"an adapter of the form `{said.get('peft_type')}` is not read yet")
    tensors = load_file(folder / "adapter_model.safetensors")
    try:
        adapted = peft.get_peft_model(module, peft.LoraConfig(**settings))
    except (ValueError, TypeError, RuntimeError) as error:
        raise _wrong(folder, f"the adapter does not fit its base: {' '.join(str(error).split())[:120]}") from error
    wanted = set(peft.get_peft_model_state_dict(adapted))
    if wanted != set(tensors):
        odd = sorted(wanted ^ set(tensors))
        raise _wrong(folder, f"the adapter does not fit its base: `{odd[0]}` is on one side only")
    peft.set_peft_model_state_dict(adapted, tensors)
    adapted.merge_and_unload()


def _plain(value: Any) -> Any:
    """JSON values of peft's settings: sets as sorted lists, names of enumerations as text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _wrong(folder: Path, what: str) -> Unreadable:
    return Unreadable(what, where=f"adapter `{folder}`", fix="copy the whole result folder again")
