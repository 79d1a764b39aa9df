"""Which layers a model is made of, and which of its tensors are one, as transformers' class says.

The class is made on the meta device: no weight is in memory, and no code of a model runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .load_check import Shapes, check_parts, kind_of
from .loading import FAULTS

LayerKind = Literal["linear", "transposed", "embedding"]  # those of matrices


@dataclass(frozen=True, slots=True)
class Layers:
    """kinds: by module, as the class calls it. tied: tensor that is no tensor of its own -> what it is.

    prefix: a first part of names that files may lack or have more than the class, as `bert.`.
    """

    kinds: Mapping[str, LayerKind] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""

    def kind(self, module: str) -> LayerKind | None:
        """
        >>> Layers({"bert.pooler.dense": "linear"}, prefix="bert.").kind("pooler.dense")
        'linear'
        """
        names = (module, self.prefix + module, module.removeprefix(self.prefix))
        return next((self.kinds[n] for n in names if n in self.kinds), None)


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
    except FAULTS:
        return None
    found = {n: k for n, module in model.named_modules() for of, k in kinds if type(module) is of}
    tied = {str(a): str(b) for a, b in (getattr(model, "all_tied_weights_keys", None) or {}).items()}
    return Layers(found, tied, f"{kind.base_model_prefix}.")
