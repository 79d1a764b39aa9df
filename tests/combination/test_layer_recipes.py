"""Recipes of layers: slices of models on top of each other and swapped layers, in files that transformers loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from headstart.combination.merging import merge, merge_recipe, planned_recipe
from headstart.core import Problem, Refused, Unfit

LAYERS = 6
IN, OUT = "model.embed_tokens.weight", "lm_head.weight"
WORDS = torch.arange(12).view(2, 6)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llamas")
    shape = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": LAYERS,
             "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
    for number, name in enumerate(("base", "math", "german")):
        torch.manual_seed(number)
        LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False)).save_pretrained(folder / name)
    LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True)).save_pretrained(folder / "tied")
    shutil.copytree(folder / "tied", folder / "tied-other")
    said = json.loads((folder / "tied-other" / "config.json").read_text())
    (folder / "tied-other" / "config.json").write_text(json.dumps({**said, "architectures": ["OtherForCausalLM"]}))
    types = [["full_attention", "sliding_attention"][i % 2] for i in range(LAYERS)]
    Qwen2ForCausalLM(Qwen2Config(**shape, layer_types=types, use_sliding_window=True)).save_pretrained(folder / "mixed")
    for name, labels in (("mails", ["a", "b", "c"]), ("chats", ["x", "y"])):
        config = BertConfig(
            vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=3, num_attention_heads=2,
            id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder / name)
    return folder


def run(shelf: Path, said: Any, out: Path) -> Path:
    path = shelf / "recipe.yaml"
    path.write_text(yaml.safe_dump(said))
    return merge_recipe(path, out=out).where


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def logits(folder: Path, kind: Any = AutoModelForCausalLM) -> torch.Tensor:
    model, told = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    with torch.no_grad():
        return model.eval()(WORDS).logits


def test_all_layers_of_one_model_are_that_model_bit_for_bit(shelf: Path, tmp_path: Path) -> None:
    slices = [{"model": "math", "layers": [0, 2]}, {"model": "math", "layers": [2, LAYERS]}]
    made = run(shelf, {"slices": slices}, tmp_path / "out")
    assert torch.equal(logits(made), logits(shelf / "math"))
    ours, theirs = weights(made), weights(shelf / "math")
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[n].view(torch.uint8), w.view(torch.uint8)) for n, w in theirs.items())


def test_slices_of_two_models_make_a_deeper_one(shelf: Path, tmp_path: Path) -> None:
    slices = [{"model": "math", "layers": [0, 4]}, {"model": "german", "layers": [2, 6]}]
    made = run(shelf, {"slices": slices}, tmp_path / "out")
    assert json.loads((made / "config.json").read_text())["num_hidden_layers"] == 8
    assert logits(made).isfinite().all()
    ours, math, german = (weights(f) for f in (made, shelf / "math", shelf / "german"))
    for layer in range(8):
        one, other = (math, layer) if layer < 4 else (german, layer - 2)
        for part in ("self_attn.q_proj", "mlp.down_proj", "input_layernorm"):
            name = f"model.layers.{{}}.{part}.weight"
            assert torch.equal(ours[name.format(layer)], one[name.format(other)])
    assert torch.equal(ours["model.embed_tokens.weight"], math["model.embed_tokens.weight"])
    assert torch.equal(ours["model.norm.weight"], german["model.norm.weight"])
    assert torch.equal(ours["lm_head.weight"], german["lm_head.weight"])


def test_a_scaled_slice_that_adds_nothing_leaves_the_logits(shelf: Path, tmp_path: Path) -> None:
    """What a block writes to the stream is its two last matrices' output: at 0 the block is passed by."""
    silent = {"model": "german", "layers": [1, 3], "scale": 0.0, "scaled": ["*o_proj*", "*down_proj*"]}
    slices = [{"model": "math", "layers": [0, 2]}, silent, {"model": "math", "layers": [2, 6]}]
    made = run(shelf, {"slices": slices}, tmp_path / "out")
    assert torch.equal(logits(made), logits(shelf / "math"))
    half = run(shelf, {"slices": [{"model": "math", "layers": [0, 6], "scale": 0.5}]}, tmp_path / "half")
    ours, theirs = weights(half), weights(shelf / "math")
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight * (0.5 if ".layers." in name else 1))


def test_a_slice_of_several_models_is_merged(shelf: Path, tmp_path: Path) -> None:
    slices = [
        {"models": ["math", "german"], "layers": [0, 2], "method": "task_arithmetic", "settings": {"scale": 0.4}},
        {"models": ["math", "german"], "layers": [2, 6], "method": "linear", "settings": {"weights": [3, 1]}},
    ]
    made = run(shelf, {"slices": slices, "base": "base"}, tmp_path / "out")
    ours, base, math, german = (weights(f) for f in (made, *(shelf / n for n in ("base", "math", "german"))))
    for name, weight in ours.items():
        first = "embed" in name or ".layers.0." in name or ".layers.1." in name
        added = base[name] + 0.4 * (math[name] + german[name] - 2 * base[name])
        torch.testing.assert_close(weight, added if first else 0.75 * math[name] + 0.25 * german[name])


@pytest.mark.parametrize("transition", [0, 1])
def test_swapped_layers(transition: int, shelf: Path, tmp_path: Path) -> None:
    said = {"outer": "german", "inner": "math", "bottom": 1, "top": 2, "transition": transition}
    made = run(shelf, {"swap": said}, tmp_path / "out")
    assert logits(made).isfinite().all()
    ours, math, german = (weights(f) for f in (made, shelf / "math", shelf / "german"))
    for name, weight in ours.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        mean = (math[name] + german[name]) / 2
        inner = 1 + transition <= layer < 4 - transition
        torch.testing.assert_close(weight, math[name] if inner else mean if 1 <= layer < 4 else german[name])
    same = run(shelf, {"swap": {**said, "inner": "german"}}, tmp_path / "same")
    assert torch.equal(logits(same), logits(shelf / "german"))


def test_lists_of_a_configuration_go_along_with_their_layers(shelf: Path, tmp_path: Path) -> None:
    slices = [{"model": "mixed", "layers": [0, 4]}, {"model": "mixed", "layers": [3, 6]}]
    made = run(shelf, {"slices": slices}, tmp_path / "out")
    types = json.loads((shelf / "mixed" / "config.json").read_text())["layer_types"]
    assert json.loads((made / "config.json").read_text())["layer_types"] == [*types[:4], *types[3:]]
    assert logits(made).isfinite().all()


def test_the_head_and_its_labels_are_the_last_slices(shelf: Path, tmp_path: Path) -> None:
    slices = [{"model": "mails", "layers": [0, 2]}, {"models": ["mails", "chats"], "layers": [1, 2]},
              {"model": "chats", "layers": [0, 3]}]  # fmt: skip
    made = run(shelf, {"slices": slices}, tmp_path / "out")
    assert logits(made, BertForSequenceClassification).shape == (2, 2)
    config = json.loads((made / "config.json").read_text())
    assert (config["id2label"], config["num_hidden_layers"]) == ({"0": "x", "1": "y"}, 6)


def test_how_deep_a_layer_lies_is_said_of_the_whole_stack(shelf: Path) -> None:
    slices = [{"model": "math", "layers": [2, 4]}, {"model": "german", "layers": [0, 3]}]
    (shelf / "deep.yaml").write_text(yaml.safe_dump({"slices": slices}))
    depths = {m.name: m.depth for m in planned_recipe(shelf / "deep.yaml").made}
    found = [depths[f"model.layers.{i}.mlp.up_proj.weight"] for i in range(5)]
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert depths["lm_head.weight"] is None


SLICED = {"slices": [{"model": "tied", "layers": [0, 2]}, {"model": "math", "layers": [2, 6]}]}
CUT = [{"sources": [{"model": m, "layer_range": [i, i + 3]}]} for m, i in (("math", 0), ("tied", 3))]
MIXED: dict[str, tuple[Any, str, str]] = {  # whose input and whose output embedding the result has
    "first": (SLICED, "tied", "math"),
    "last": ({"slices": [{**s, "layers": [0, 3]} for s in reversed(SLICED["slices"])]}, "math", "tied"),
    "mergekit": ({"merge_method": "passthrough", "slices": CUT}, "math", "tied"),
    "mergekit, reversed": ({"merge_method": "passthrough", "slices": CUT[::-1]}, "tied", "math"),
}


@pytest.mark.parametrize("name", list(MIXED))
def test_ends_of_which_one_has_a_tied_embedding_give_two(name: str, shelf: Path, tmp_path: Path) -> None:
    said, first, last = MIXED[name]
    out = run(shelf, said, tmp_path / "out")
    ins, outs = weights(shelf / first), weights(shelf / last)
    assert torch.equal(weights(out)[IN], ins[IN])
    assert torch.equal(weights(out)[OUT], outs.get(OUT, outs[IN]))
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    model, told = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True, local_files_only=True)
    assert not told["missing_keys"]
    assert torch.equal(model.lm_head.weight, weights(out)[OUT])
    facts = json.loads((out / "merge.json").read_text())["facts"]
    (group,) = [g for g in facts["fates"] if OUT in g["tensors"]]
    assert group["renamed"].get(last, {}).get(OUT, OUT) == (IN if last == "tied" else OUT)
    lost = {(r["model"], r["tensor"]) for r in facts["lost"]}
    assert lost & {("tied", IN), ("math", IN), ("math", OUT)} == (
        {("math", IN)} if first == "tied" else {("math", OUT)}
    )


@pytest.mark.parametrize("order", [("tied", "math"), ("math", "tied")])
@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic"])
def test_a_document_of_mergekit_merges_tied_and_untied_embeddings_as_the_command_does(
    method: str, order: tuple[str, str], shelf: Path, tmp_path: Path
) -> None:
    base = {"linear": None, "slerp": order[0], "task_arithmetic": "base"}[method]
    models = [{"model": m, "parameters": {"weight": 1.0} if method != "slerp" else {}} for m in order]
    said: dict[str, Any] = {"merge_method": method, "models": models}
    said |= {"base_model": base} if base else {}
    said |= {"parameters": {"t": 0.5}} if method == "slerp" else {}
    document = run(shelf, said, tmp_path / "document")
    settings = {"slerp": {"t": 0.5}, "task_arithmetic": {"scale": 1.0}}.get(method, {})
    named = {"base": shelf / "base"} if method == "task_arithmetic" else {}
    command = merge([shelf / m for m in order], method, out=tmp_path / "command", settings=settings, **named).where
    assert weights(document).keys() == weights(command).keys() >= {IN, OUT}
    for tensor, wanted in weights(command).items():
        torch.testing.assert_close(weights(document)[tensor], wanted)
    assert json.loads((document / "config.json").read_text())["tie_word_embeddings"] is False


ONE = {"model": "math", "layers": [0, 2]}
SLIPS: list[tuple[type[Problem], Any, str]] = [
    (Unfit, {"slices": [{"model": "math", "layers": [4, 7]}]}, "`math` has no layer 6"),
    (Unfit, {"slices": [{"model": "math", "layers": [2, 2]}]}, "hold no layer"),
    (Unfit, {"slices": [{"model": "math", "layer": [0, 2]}]}, "did you mean `layers`?"),
    (Unfit, {"slices": [{**ONE, "models": ["german"]}]}, "either a model or models"),
    (Unfit, {"slices": [ONE], "swap": {"outer": "a", "inner": "b", "bottom": 1, "top": 1}}, "exactly one of slices"),
    (Unfit, {"slices": []}, "exactly one of slices"),
    (Unfit, {"slices": [{"models": ["math", "german"], "layers": [0, 2], "scale": 0.5}]}, "scale is of one model"),
    (Unfit, {"slices": [{**ONE, "settings": {"t": 1}}]}, "settings are of a method"),
    (Unfit, {"slices": [{**ONE, "method": "lienar"}]}, "did you mean `linear`"),
    (Unfit, {"swap": {"outer": "german", "inner": "math", "bottom": 4, "top": 3}}, "more than the 6"),
    (Unfit, {"swap": {"outer": "german", "inner": "math", "botom": 4, "top": 3}}, "did you mean `bottom`?"),
    (Refused, {"slices": [{"models": ["math", "german"], "layers": [0, 6], "method": "ties"}]}, "no base is given"),
    (Refused, {"slices": [ONE, {"model": "tied-other", "layers": [2, 6]}]}, "one embedding for input and output"),
    (Refused, {"slices": [{"model": "nobody", "layers": [0, 6]}]}, "there is no folder `nobody`"),
    (Refused, {"slices": [{"models": ["math", "mails"], "layers": [0, 2]}]}, "is not in `mails`"),
]


@pytest.mark.parametrize(("problem", "said", "answer"), SLIPS, ids=[a[:40] for _, _, a in SLIPS])
def test_slips_are_answered(problem: type[Problem], said: Any, answer: str, shelf: Path) -> None:
    (shelf / "slip.yaml").write_text(yaml.safe_dump(said))
    with pytest.raises(problem) as caught:
        planned_recipe(shelf / "slip.yaml")
    assert answer in str(caught.value), str(caught.value)
