"""Names of tensors in files and in transformers' classes, told by values: each tensor has numbers of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from headstart.core import Refused
from headstart.io import model_folders
from headstart.io.tensor_names import names_in_module
from tiny_models import save_model


@pytest.mark.parametrize(
    "model_type", ["bert", "roberta", "distilbert", "albert", "electra", "vit", "dinov2", "swin", "resnet"]
)
def test_a_tensor_of_a_file_is_what_the_module_holds_under_its_name(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    folder = save_model(tmp_path / "m", model_type, head=True)
    image = model_type in ("vit", "dinov2", "swin", "resnet")
    kind = AutoModelForImageClassification if image else AutoModelForSequenceClassification
    module = kind.from_pretrained(folder)
    names = names_in_module(module, model_folders.read(folder))
    stored, held = load_file(folder / "model.safetensors"), module.state_dict()
    assert set(names) == set(stored)
    assert all(torch.equal(stored[n], held[names[n]]) for n in stored)
    assert {n for n, _ in module.named_parameters()} <= set(names.values())


def test_what_is_made_of_several_tensors_is_refused(tmp_path: Path) -> None:
    """Experts lie one by one in files, and in one tensor in the class."""
    from transformers import MixtralConfig, MixtralForSequenceClassification

    config = MixtralConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2, num_labels=2, pad_token_id=0,
    )  # fmt: skip
    module = MixtralForSequenceClassification(config)
    module.save_pretrained(tmp_path / "m")
    with pytest.raises(Refused, match=r"transformers makes `model\.layers\.0\.mlp\.experts\..*` of other tensors"):
        names_in_module(module, model_folders.read(tmp_path / "m"))
