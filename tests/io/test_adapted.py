"""Adapters on models, read in pieces: against peft's own merge, and against the change applied to whole tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from headstart.combination.adapters import adapted
from headstart.core import Refused
from headstart.io import model_folders
from headstart.io.adapted import reader


@pytest.fixture(
    scope="module", params=[{}, {"use_dora": True}, {"use_rslora": True, "modules_to_save": ["classifier"]}]
)
def shelf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    model = BertForSequenceClassification(config)
    model.save_pretrained(folder / "base")
    lora = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["query", "dense"], **request.param)
    tuned = peft.get_peft_model(model, lora)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            weight.data += 0.2 * torch.randn_like(weight)
    tuned.save_pretrained(folder / "lora")
    tuned.merge_and_unload().save_pretrained(folder / "merged")
    return folder


def test_it_reads_what_peft_merges(shelf: Path) -> None:
    found = adapted(model_folders.read(shelf / "base"), shelf / "lora")
    wanted = load_file(shelf / "merged" / "model.safetensors")
    assert set(found.tensors) == set(wanted)
    with reader(found) as read:
        for name, weight in wanted.items():
            out = np.empty(weight.numel(), np.float32)
            read.read(name, 0, out)
            np.testing.assert_allclose(out, weight.flatten().numpy(), atol=2e-7)
            if name in found.changes:
                for start, stop in ((0, 1), (5, 130), (weight.numel() - 17, weight.numel())):
                    piece = np.empty(stop - start, np.float32)
                    read.read(name, start * 4, piece)
                    assert np.array_equal(piece, out[start:stop])
    assert found.name == "base+lora"
    assert found.address == f"{shelf / 'base'}+{shelf / 'lora'}"


def test_an_adapter_of_another_model_is_refused(shelf: Path, tmp_path: Path) -> None:
    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "other")
    with pytest.raises(Refused, match="which the model has not"):
        adapted(model_folders.read(tmp_path / "other"), shelf / "lora")
