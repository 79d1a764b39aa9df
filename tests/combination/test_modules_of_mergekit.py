"""mergekit's `modules`: layers of one module among several, against merges by hand; transformers loads the result."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from headstart.combination.merging import merge_recipe, planned_recipe
from headstart.core import Refused, Unfit

BART = {
    "d_model": 16, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 2, "vocab_size": 40,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
}  # fmt: skip
CLIP = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "projection_dim": 8}
KINDS: dict[str, tuple[str, dict[str, Any], tuple[str, str], tuple[str, str], dict[str, Any]]] = {
    # class, settings, what names of the two modules begin with, their names in a document, what the configuration says
    "t5": (
        "T5ForConditionalGeneration",
        {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2,
         "vocab_size": 40},
        ("encoder.", "decoder."), ("encoder", "decoder"), {"num_layers": 4, "num_decoder_layers": 2},
    ),
    "bart": (
        "BartForConditionalGeneration", {**BART, "max_position_embeddings": 20},
        ("model.encoder.", "model.decoder."), ("model.encoder", "model.decoder"),
        {"encoder_layers": 4, "decoder_layers": 2},
    ),
    "whisper": (
        "WhisperForConditionalGeneration",
        {**BART, "max_source_positions": 20, "max_target_positions": 20, "num_mel_bins": 8, "pad_token_id": 1,
         "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        ("model.encoder.", "model.decoder."), ("encoder", "decoder"), {"encoder_layers": 4, "decoder_layers": 2},
    ),
    "clip": (
        "CLIPModel",
        {"text_config": {**CLIP, "num_hidden_layers": 2, "vocab_size": 64, "max_position_embeddings": 20},
         "vision_config": {**CLIP, "num_hidden_layers": 3, "image_size": 16, "patch_size": 4}, "projection_dim": 8},
        ("vision_model.", "text_model."), ("vision_model", "text_model"),
        {"vision_config": {"num_hidden_layers": 4}, "text_config": {"num_hidden_layers": 2}},
    ),
}  # fmt: skip
LAYER = re.compile(r"(layers|block)\.(\d+)\.")
BEFORE = re.compile(r"embed|conv|pre_layrnorm|relative_attention_bias")  # what inputs meet before the layers


def save(folder: Path, kind: str) -> dict[str, Any]:
    """Models `one` and `two` with random weights, and those weights."""
    import torch
    import transformers

    name, settings, *_ = KINDS[kind]
    made = getattr(transformers, name)
    with torch.random.fork_rng():
        for seed, model in enumerate(("one", "two")):
            torch.manual_seed(seed)
            found = made(made.config_class(**settings))
            for value in found.state_dict().values():
                value += 0.1 * torch.rand_like(value)
            found.save_pretrained(folder / model)
    return {m: load_file(folder / m / "model.safetensors") for m in ("one", "two")}


def sliced(*slices: dict[str, list[int]], weights: tuple[float, float] = (1, 3)) -> dict[str, Any]:
    """A module of slices, each of layers by model."""
    shares = dict(zip(("one", "two"), weights, strict=True))
    return {
        "slices": [
            {"sources": [{"model": m, "layer_range": r, "parameters": {"weight": shares[m]}} for m, r in s.items()]}
            for s in slices
        ]
    }


def weighed(one: float, two: float) -> dict[str, Any]:
    return {"models": [{"model": m, "parameters": {"weight": w}} for m, w in (("one", one), ("two", two))]}


def write(folder: Path, modules: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"merge_method": "linear", "modules": modules}))
    return path


def agree(said: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(agree(said[k], v) if isinstance(v, dict) else said[k] == v for k, v in wanted.items())


@pytest.mark.parametrize("kind", list(KINDS))
def test_layers_of_one_module_among_several(kind: str, tmp_path: Path) -> None:
    weights = save(tmp_path, kind)
    name, _, (first, second), (deep, other), config = KINDS[kind]
    modules = {deep: sliced({"one": [0, 2]}, {"one": [1, 3], "two": [0, 2]}), other: weighed(3, 2)}
    rest = any(not n.startswith((first, second)) for n in weights["one"])
    made = merge_recipe(write(tmp_path, modules | ({"default": weighed(1, 1)} if rest else {})), out=tmp_path / "out")
    ours = load_file(made.where / "model.safetensors")

    def by_hand(tensor: str) -> Any:
        if not tensor.startswith((first, second)):
            return (weights["one"][tensor] + weights["two"][tensor]) / 2
        if tensor.startswith(second):
            return 0.6 * weights["one"][tensor] + 0.4 * weights["two"][tensor]
        at = LAYER.search(tensor)
        if at is None or BEFORE.search(tensor):
            mixed = 0.25 * weights["one"][tensor] + 0.75 * weights["two"][tensor]
            return weights["one"][tensor] if BEFORE.search(tensor) else mixed
        layer = int(at[2])
        if layer < 2:
            return weights["one"][tensor]
        of = {m: LAYER.sub(f"{at[1]}.{layer - 2 + k}.", tensor, count=1) for m, k in (("one", 1), ("two", 0))}
        return 0.25 * weights["one"][of["one"]] + 0.75 * weights["two"][of["two"]]

    for tensor, weight in ours.items():
        np.testing.assert_allclose(weight, by_hand(tensor), atol=5e-7, err_msg=tensor)
    assert agree(json.loads((made.where / "config.json").read_text()), config)
    layers = {n: {int(at[2]) for t in ours if t.startswith(n) and (at := LAYER.search(t))} for n in (first, second)}
    assert layers == {first: {0, 1, 2, 3}, second: {0, 1}}

    import transformers

    _, report = getattr(transformers, name).from_pretrained(made.where, output_loading_info=True, local_files_only=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert not report["unexpected_keys"]


def test_modules_that_are_not_there_are_named(tmp_path: Path) -> None:
    save(tmp_path, "t5")
    modules = {"encoder": sliced({"one": [0, 2]}), "decoder": weighed(1, 1)}
    with pytest.raises(Refused, match=r"no module of the document holds tensor `shared\.weight`"):
        planned_recipe(write(tmp_path, modules))
    with pytest.raises(Refused, match="`one` has no module `vision`"):
        planned_recipe(write(tmp_path, {**modules, "default": weighed(1, 1), "vision": weighed(1, 1)}))
    deeper = {"decoder": sliced({"one": [0, 3]}), "default": weighed(1, 1)}
    with pytest.raises(Unfit, match="`one` has no layer 2") as caught:
        planned_recipe(write(tmp_path, deeper))
    assert "its layers are 0 to 1" in str(caught.value)


def test_a_configuration_that_says_no_number_is_refused_where_it_would_change(tmp_path: Path) -> None:
    save(tmp_path, "t5")
    for model in ("one", "two"):
        said = json.loads((tmp_path / model / "config.json").read_text())
        del said["num_decoder_layers"]
        (tmp_path / model / "config.json").write_text(json.dumps({**said, "num_layers": 9}))
    same = {"decoder": sliced({"one": [0, 1]}, {"two": [1, 2]}), "default": weighed(1, 1)}
    assert not planned_recipe(write(tmp_path, same)).config
    fewer = {"decoder": sliced({"one": [0, 1]}), "default": weighed(1, 1)}
    with pytest.raises(Refused, match="does not say how many layers the module `decoder` has"):
        planned_recipe(write(tmp_path, fewer))


def test_lists_with_an_entry_a_layer_follow(tmp_path: Path) -> None:
    save(tmp_path, "clip")
    for model in ("one", "two"):
        said = json.loads((tmp_path / model / "config.json").read_text())
        said["vision_config"]["layer_types"] = [f"{model} {i}" for i in range(3)]
        (tmp_path / model / "config.json").write_text(json.dumps(said))
    modules = {"vision_model": sliced({"two": [1, 3]}, {"one": [0, 2]}), "default": weighed(1, 1)}
    found = planned_recipe(write(tmp_path, modules)).config
    assert set(found) == {"vision_config"}
    assert found["vision_config"]["layer_types"] == ["two 1", "two 2", "one 0", "one 1"]
    assert found["vision_config"]["num_hidden_layers"] == 4
