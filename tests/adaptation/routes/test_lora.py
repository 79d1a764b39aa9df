"""LoRA: what peft saves and loads is what is delivered, and an untouched adapter changes nothing."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from headstart.adaptation.routes.lora import Lora
from headstart.core import Refused, Steps, Unfit
from headstart.execution.fit import features
from headstart.numerics.artifacts import Delta
from headstart.testing.adaptation_routes import TinyEncoder, draw, run


def test_plain_peft_loads_it(tmp_path: Path) -> None:
    view = draw(0)
    fitted = run(Lora(), view, Steps(horizon=20))
    delta = fitted.artifact
    assert isinstance(delta, Delta)
    (tmp_path / "adapter_config.json").write_text(json.dumps(dict(delta.config)))
    save_file(dict(delta.tensors), tmp_path / "adapter_model.safetensors")
    encoder = copy.deepcopy(view.source)
    plain = copy.deepcopy(encoder.module)
    before = features(encoder, view.valid.inputs)
    encoder.module = PeftModel.from_pretrained(encoder.module, str(tmp_path)).merge_and_unload()
    after = features(encoder, view.valid.inputs)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(delta.head(after), fitted.predictions, atol=1e-5)  # merged in float32
    assert type(encoder.module) is type(plain)


def test_only_the_adapters_and_the_head_move() -> None:
    view = draw(0)
    fitted = run(Lora(rank=2), view, Steps(horizon=5))
    delta = fitted.artifact
    assert isinstance(delta, Delta)
    assert sorted(delta.tensors) == [
        f"base_model.model.{m}.lora_{x}.weight" for m in ("first", "second") for x in ("A", "B")
    ]
    assert fitted.facts["trained"] == 2 * (6 + 8) + 2 * (8 + 8) + 3 * 8 + 3
    assert delta.base == "tiny"
    assert delta.config["r"] == 2
    assert delta.config["target_modules"] == ["first", "second"]


def test_the_head_trains() -> None:
    view = draw(0)
    a, b = (run(Lora(), view, Steps(horizon=h)).artifact for h in (0, 5))
    assert not np.array_equal(a.head.weight, b.head.weight)  # type: ignore[union-attr]  # both are deltas


def test_a_source_without_linear_layers_is_refused() -> None:
    view = replace(draw(0), source=TinyEncoder(linear_layers=()))
    with pytest.raises(Refused, match="no linear layer"):
        run(Lora(), view)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(Unfit, match="above 0"):
        Lora(rank=0)


def test_the_first_adapter_is_a_function_of_the_seed() -> None:
    view = draw(0)
    a, b, c = (run(Lora(), replace(view, seed=s), Steps(horizon=2)).artifact.tensors for s in (0, 0, 1))  # type: ignore[union-attr]  # deltas
    name = "base_model.model.first.lora_A.weight"
    assert torch.equal(a[name], b[name])
    assert not torch.equal(a[name], c[name])
