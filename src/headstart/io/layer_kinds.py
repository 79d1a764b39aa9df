"""Which layers a model is made of, and which of its tensors are one, as transformers' class says.

The class is made on the meta device: no weight is in memory, and no code of a model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .load_check import Shapes, check_parts, kind_of
from .loading import FAULTS
from .tensor_names import as_loaded

LayerKind = Literal["linear", "transposed", "embedding", "convolution"]  # those that a LoRA can be of


@dataclass(frozen=True, slots=True)
class Layers:
    """kinds: by module, as the class calls it; None of a module of another kind. inputs: modules that embed the input.

    tied: tensor that is no tensor of its own -> what it is. prefix: a first part of names that files may lack or have
    more than the class, as `bert.`. loaded: tensor of the files -> what the class calls it, but for that first part.
    """

    kinds: Mapping[str, LayerKind | None]
    inputs: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    loaded: Mapping[str, str] = field(default_factory=dict)

    def called(self, module: str) -> str | None:
        """What the class calls a module of the files; None where that is another name altogether.

        >>> Layers({"bert.pooler.dense": "linear"}, prefix="bert.").called("pooler.dense")
        'bert.pooler.dense'
        """
        module = self.as_loaded(module)
        names = (module, self.prefix + module, module.removeprefix(self.prefix))
        return next((n for n in names if n in self.kinds), None)

    def as_loaded(self, module: str) -> str:
        """The same where transformers does not rename it.

        >>> Layers({}, loaded={"layer.0.query.weight": "layers.0.q_proj.weight"}).as_loaded("layer.0.query")
        'layers.0.q_proj'
        """
        inner = ((new, n[len(module) :]) for n, new in self.loaded.items() if n.startswith(f"{module}."))
        return next((new.removesuffix(part) for new, part in inner if new.endswith(part)), module)


def layers_of(config: Mapping[str, Any], tensors: Shapes, where: str) -> Layers | None:
    """None where transformers knows no such class, or cannot make it.

    Raises `Unreadable` for a configuration that says far more layers than there are tensors.
    """
    kind, _ = kind_of(config)
    if kind is None:
        return None
    check_parts(config, tensors, where)
    import torch
    from transformers.pytorch_utils import Conv1D

    from .encoders import quiet

    kinds: tuple[tuple[type, LayerKind], ...] = (
        (torch.nn.Linear, "linear"), (Conv1D, "transposed"), (torch.nn.Embedding, "embedding"),
    )  # fmt: skip
    try:
        with quiet(), torch.device("meta"):
            model = kind(kind.config_class.from_dict(dict(config)))
        embedding = _input_of(model)
    except FAULTS:
        return None
    found = {
        n: "convolution" if _is_plain_convolution(m) else next((k for of, k in kinds if type(m) is of), None)
        for n, m in model.named_modules()
    }
    inputs = tuple(n for n, m in model.named_modules() if m is embedding)
    tied = {str(a): str(b) for a, b in (getattr(model, "all_tied_weights_keys", None) or {}).items()}
    return Layers(found, inputs, tied, f"{kind.base_model_prefix}.", as_loaded(model, tensors))


def _is_plain_convolution(module: Any) -> bool:
    """Whether a LoRA of peft fits: it makes its own first convolution without groups, gaps or other padding."""
    import torch

    if type(module) not in (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d):
        return False
    return bool(module.groups == 1 and set(module.dilation) == {1} and module.padding_mode == "zeros")


def _input_of(model: Any) -> Any:
    """The layer that embeds the input; None where the class names none."""
    try:
        return model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None
