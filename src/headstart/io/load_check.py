"""Whether transformers would load weights whole, told by names and shapes alone: no weight is in memory.

transformers itself says it: its class is made on the meta device and given tensors without numbers, so that names that
it converts, tensors that it ties and those that it passes over count as when it loads. No code of a model runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.core import Unreadable

from .loading import FAULTS, fault

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # (type, shape) by name, as `model_folders.shapes` gives them
COUNTS = re.compile(r"(layers?|experts|blocks)$")  # what a configuration says how many parts of a model there are by
MOST_PARTS = 1000  # of which none has a tensor
FIX = "load the first model with transformers to see if it is as complete; to merge all the same, add --no-check"


@dataclass(frozen=True, slots=True)
class Checked:
    """What fits transformers' class. architecture: its name, or None where nothing was checked; why: and then why not.

    unused: tensors that it passes over, as it does those of the model that the configuration comes from.
    """

    tensors: int
    architecture: str | None = None
    unused: tuple[str, ...] = ()
    why: str | None = None


def checked(config: Mapping[str, Any], tensors: Shapes, first: tuple[Mapping[str, Any], Shapes], where: str) -> Checked:
    """first: configuration and tensors of the model whose files the result has.

    Raises `Unreadable` where transformers would make a tensor up, finds one in another shape, cannot build the model at
    all, or passes a tensor over that it uses of the first model.
    """
    kind, why = kind_of(config)
    if kind is None:
        return Checked(len(tensors), why=why)
    check_parts(config, tensors, where)
    try:
        report = _report(kind, config, tensors)
    except ImportError as error:
        return Checked(len(tensors), why=f"`{kind.__name__}` needs a package: {' '.join(str(error).split())[:120]}")
    except FAULTS as error:
        raise fault("it would not load", error, where, FIX) from error
    for name, shape, wanted in sorted(report["mismatched_keys"]):
        raise _wrong(
            f"tensor `{name}` has shape {_shape(shape)}, and the configuration says {_shape(wanted)}",
            len(report["mismatched_keys"]), where,
        )  # fmt: skip
    for name in sorted(report["missing_keys"]):
        raise _wrong(
            f"tensor `{name}` is not in the result, and transformers would draw it at random",
            len(report["missing_keys"]), where,
        )  # fmt: skip
    unused = sorted(str(name) for name in report["unexpected_keys"])
    more = sorted(set(unused) - _unused(*first)) if unused else []
    if more:
        raise _wrong(f"tensor `{more[0]}` is in the result, and {kind.__name__} has no place for it", len(more), where)
    return Checked(len(tensors), kind.__name__, tuple(unused))


def _wrong(what: str, many: int, where: str) -> Unreadable:
    return Unreadable(what + (f"; {many - 1} more are like it" if many > 1 else ""), where=where, fix=FIX)


def _shape(shape: Any) -> str:
    return " × ".join(str(n) for n in shape) or "one number"


def kind_of(config: Mapping[str, Any]) -> tuple[Any, str]:
    """transformers' class, or why there is none to check by."""
    told = config.get("architectures")
    if not isinstance(told, list) or not told:
        return None, "its configuration names no architecture of transformers"
    parts = [c for c in (config, *config.values()) if isinstance(c, Mapping)]
    if any(c.get("quantization_config") for c in parts):
        return None, "its configuration says that it is quantised"
    if any(c.get("use_pretrained_backbone") for c in parts):  # which transformers would fetch
        return None, "its configuration names a backbone that lies elsewhere"
    import transformers

    name = str(told[0])
    found = getattr(transformers, name, None) if name.isidentifier() else None
    known = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if not known or getattr(found, "config_class", None) is None:
        return None, f"transformers {transformers.__version__} has no architecture {ascii(name)[:80]}"
    return found, ""


def check_parts(config: Mapping[str, Any], tensors: Shapes, where: str) -> None:
    """Every layer has a tensor: a configuration that says far more of them than there are would take for ever."""
    for part in (config, *(c for c in config.values() if isinstance(c, Mapping))):
        for key, value in part.items():
            if COUNTS.search(str(key)) and isinstance(value, int) and value > max(MOST_PARTS, len(tensors)):
                raise Unreadable(
                    f"the configuration says `{str(key)[:40]}` is {value}, and there are {len(tensors)} tensors",
                    where=where,
                    fix="correct `config.json` of the first model",
                )


def _report(kind: Any, config: Mapping[str, Any], tensors: Shapes) -> dict[str, Any]:
    """What transformers says of names and shapes when it loads."""
    import torch

    from .encoders import quiet

    with quiet(), torch.device("meta"):
        said = kind.config_class.from_dict(dict(config))
        held = {name: torch.empty(shape) for name, (_, shape) in tensors.items()}
        _, report = kind.from_pretrained(
            None, config=said, state_dict=held, device_map={"": "meta"}, local_files_only=True, dtype=torch.float32,
            attn_implementation="eager", ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    return dict(report)


def _unused(config: Mapping[str, Any], tensors: Shapes) -> set[str]:
    """Tensors of a model that transformers passes over."""
    kind, _ = kind_of(config)
    try:
        return set(_report(kind, config, tensors)["unexpected_keys"]) if kind is not None else set()
    except FAULTS:
        return set()
