"""A result is kept only if transformers would load all of it, and with `--load` if it runs; architectures that mergekit
loses.

Tensors are counted against the state dict that transformers itself makes of the first model.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import headstart as hs
from combination import models
from headstart.combination.merging import merge, merge_recipe, planned
from headstart.combination.writing import RECEIPT
from headstart.core import Problem, Refused, Unfit, Unreadable
from headstart.io import load_check, loading, model_folders
from tiny_models import config_for

INPUTS = {"clip": "sentences through its tokenizer, images through its preprocessor",
          "wav2vec2": "sounds through its preprocessor", "bert": "sentences through its tokenizer"}  # fmt: skip
# tensors, of which mergekit 0.1.5 writes 8, 29 and 7 of vit, dinov2 and beit, and refuses the others but bert: see
# benchmarks/mergekit_defects.py
TENSORS = {"vit": 40, "dinov2": 45, "beit": 41, "clip": 78, "resnet": 50, "convnext": 39, "wav2vec2": 50, "bert": 41}


@pytest.mark.parametrize("name", list(models.KINDS))
def test_every_tensor_is_written_and_the_result_loads_and_runs(name: str, tmp_path: Path) -> None:
    import transformers

    folders = [models.save(tmp_path / f"m{seed}", name, seed) for seed in range(2)]
    made = hs.merge(folders, out=tmp_path / "out", load=True)
    (told,) = made.receipt.facts["loaded"]
    assert told["architecture"] == models.KINDS[name][0]
    assert told["tensors"] == TENSORS[name] == len(load_file(folders[0] / "model.safetensors"))
    assert told["inputs"] == INPUTS.get(name, "images through its preprocessor")
    if name != "clip":
        assert told["outputs"] == {"logits": [3 if name == "bert" else 2, 3]}
    assert json.loads((made.where / RECEIPT).read_text())["facts"]["loaded"] == [told]
    kind = getattr(transformers, models.KINDS[name][0])
    one, two, ours = (kind.from_pretrained(f, local_files_only=True).state_dict() for f in (*folders, made.where))
    for key, value in ours.items():
        if value.is_floating_point():
            mean = (one[key].double() + two[key].double()) / 2
            torch.testing.assert_close(value.double(), mean, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", ["vit", "resnet", "wav2vec2", "bert"])
def test_classifiers_of_different_labels_load_with_heads_of_their_own(name: str, tmp_path: Path) -> None:
    folders = [models.save(tmp_path / n, name, i, ("x", "y", "z", "w")[: 2 + i]) for i, n in enumerate("ab")]
    made = merge(folders, heads="separate", out=tmp_path / "out", load=True)
    fits = [(t["folder"], t["tensors"]) for t in made.receipt.facts["checked"]]
    assert fits == [("a", TENSORS[name]), ("b", TENSORS[name])]
    assert [(t["folder"], t["outputs"]["logits"][-1]) for t in made.receipt.facts["loaded"]] == [("a", 2), ("b", 3)]


def bert(folder: Path, **config: Any) -> Path:
    models.save(folder, "bert")
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, **config}))
    return folder


def changed(folder: Path, **tensors: torch.Tensor | None) -> Path:
    held: dict[str, Any] = load_file(folder / "model.safetensors") | tensors
    kept = {n: t for n, t in held.items() if t is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_what_does_not_load_whole_or_gives_no_numbers_never_appears(tmp_path: Path) -> None:
    head = "classifier.weight"
    missing = changed(bert(tmp_path / "missing"), **{head: None})
    strange = changed(bert(tmp_path / "strange"), strange=torch.ones(3))
    wrong = changed(bert(tmp_path / "wrong"), **{head: torch.ones(3, 5)})
    odd = changed(bert(tmp_path / "odd"), **{head: torch.full((3, 16), float("nan"))})
    large = bert(tmp_path / "large")
    table = "bert.embeddings.word_embeddings.weight"
    changed(large, **{table: load_file(large / "model.safetensors")[table][:8]})
    said = json.loads((large / "config.json").read_text())
    (large / "config.json").write_text(json.dumps({**said, "vocab_size": 8}))
    cases: list[tuple[type[Problem], Path, str]] = [
        (Unreadable, missing, "`classifier.weight` is not in the folder, and would be drawn at random"),
        (Unreadable, strange, "`strange` is in the folder, and is not used"),
        (Unreadable, wrong, "tensors have other shapes than the configuration says"),
        (Unfit, odd, "`logits` holds numbers that are not finite"),
        (Unreadable, large, "and the embedding has 8 rows"),
    ]
    for problem, folder, what in cases:
        with pytest.raises(problem) as caught:
            merge([folder], out=tmp_path / "out", check=False, load=True)
        assert what in caught.value.what, caught.value.what
        assert caught.value.where.startswith(f"`{tmp_path / 'out'}`")  # and not where it lay unfinished
        assert not (tmp_path / "out").exists()
        merge([folder], out=tmp_path / f"{folder.name}-out", check=False)  # unasked it is written as it is
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def report(folder: Path) -> dict[str, Any]:
    """What transformers itself says when it loads the weights of a folder."""
    import transformers

    config = json.loads((folder / "config.json").read_text())
    kind = getattr(transformers, config["architectures"][0])
    found: dict[str, Any] = kind.from_pretrained(
        folder, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True
    )[1]
    return found


def test_what_would_not_load_whole_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    head, layer = "classifier.weight", "bert.encoder.layer.1.output.dense.bias"
    cases = [
        (changed(bert(tmp_path / "missing"), **{head: None}), {head}, set(),
         "`classifier.weight` is not in the result, and transformers would draw it at random"),
        (changed(bert(tmp_path / "two"), **{head: None, layer: None}), {head, layer}, set(), "1 more are like it"),
        (changed(bert(tmp_path / "wrong"), **{head: torch.ones(3, 5)}), set(), {head},
         "`classifier.weight` has shape 3 × 5, and the configuration says 3 × 16"),
        (bert(tmp_path / "deep", num_hidden_layers=3), {f"bert.encoder.layer.2.{n}" for n in LAYER}, set(), "is not"),
        (bert(tmp_path / "short", vocab_size=8), set(), {"bert.embeddings.word_embeddings.weight"}, "says 8 × 16"),
    ]  # fmt: skip
    for folder, missing, other, what in cases:
        with pytest.raises(Unreadable) as caught:
            merge([folder], out=tmp_path / "out")
        assert what in caught.value.what
        assert "--no-check" in caught.value.fix
        theirs = report(folder)
        assert set(theirs["missing_keys"]) == missing
        assert {name for name, *_ in theirs["mismatched_keys"]} == other
        assert merge([folder], out=tmp_path / f"{folder.name}-out", check=False).receipt.facts["checked"] == []
    faults: list[tuple[str, Any]] = [
        ("num_attention_heads", 3), ("hidden_act", "none such"), ("num_attention_heads", 0), ("pad_token_id", ["x"]),
        ("hidden_size", -1), ("type_vocab_size", None),
    ]  # fmt: skip
    for number, (key, value) in enumerate(faults):
        with pytest.raises(Unreadable, match="it would not load"):
            merge([bert(tmp_path / f"{number}", **{key: value})], out=tmp_path / "out")
        with pytest.raises(Unreadable, match="it does not load"):
            merge([tmp_path / f"{number}"], out=tmp_path / "out", check=False, load=True)
    with pytest.raises(Unreadable, match="`num_hidden_layers` is 1000000000, and there are 41 tensors"):
        merge([bert(tmp_path / "endless", num_hidden_layers=10**9)], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


LAYER = [
    f"{part}.{kind}"
    for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
                 "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm")
    for kind in ("weight", "bias")
]  # fmt: skip


def test_tensors_that_transformers_passes_over_are_told_where_the_first_model_has_them_too(tmp_path: Path) -> None:
    one, two = (changed(bert(tmp_path / n), strange=torch.ones(3), position_ids=torch.arange(4)) for n in "ab")
    made = merge([one, two], out=tmp_path / "out")
    (told,) = made.receipt.facts["checked"]
    assert set(told["unused"]) == report(made.where)["unexpected_keys"] == {"strange"}
    first = {"config": json.loads((one / "config.json").read_text()), "tensors": model_folders.shapes(one)}
    plain = {n: t for n, t in first["tensors"].items() if n != "strange"}
    with pytest.raises(Unreadable, match="`strange` is in the result, and BertForSequenceClassification has no place"):
        load_check.checked(first["config"], first["tensors"], (first["config"], plain), "x")


@pytest.mark.parametrize("name", list(models.KINDS))
def test_all_that_is_written_fits(name: str, tmp_path: Path) -> None:
    folders = [models.save(tmp_path / f"m{seed}", name, seed) for seed in range(2)]
    made = merge(folders, out=tmp_path / "out", shard_bytes=5000)
    (told,) = made.receipt.facts["checked"]
    assert told == {
        "folder": ".", "architecture": models.KINDS[name][0], "tensors": TENSORS[name], "unused": [], "why": None,
    }  # fmt: skip
    assert made.receipt.facts["loaded"] == []


def test_a_model_far_larger_than_memory_is_checked(tmp_path: Path) -> None:
    import resource

    folder = bert(tmp_path / "a")
    config, tensors = json.loads((folder / "config.json").read_text()), model_folders.shapes(folder)
    many = {
        **config, "vocab_size": 10**10, "max_position_embeddings": 10**10, "hidden_size": 4 * 10**6,
        "intermediate_size": 10**6,
    }  # fmt: skip
    sizes = {64: 10**10, 40: 10**10, 16: 4 * 10**6, 24: 10**6}
    wide = {n: (t, tuple(sizes.get(s, s) for s in shape)) for n, (t, shape) in tensors.items()}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert load_check.checked(many, wide, (many, wide), "x").tensors == 41
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB: transformers itself
    assert sum(math.prod(shape) for _, shape in wide.values()) > 10**16


def test_a_model_of_each_kind_of_tie_fits(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    for tied in (True, False):
        folder = tmp_path / str(tied)
        AutoModelForCausalLM.from_config(
            config_for("llama", num_key_value_heads=2, tie_word_embeddings=tied)
        ).save_pretrained(folder)
        made = merge([folder], out=tmp_path / f"{tied}-out")
        assert made.receipt.facts["checked"][0]["architecture"] == "LlamaForCausalLM"
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**said, "tie_word_embeddings": True}))
    changed(folder, **{"lm_head.weight": None})
    merge([folder], out=tmp_path / "out")
    (folder / "config.json").write_text(json.dumps(said))
    with pytest.raises(Unreadable, match=r"`lm_head\.weight` is not in the result"):
        merge([folder], out=tmp_path / "none")


def test_parts_that_transformers_joins_when_it_loads_are_not_missing(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        num_local_experts=3, vocab_size=64,
    )  # fmt: skip
    MixtralForCausalLM(config).save_pretrained(tmp_path / "m")
    assert len([n for n in model_folders.shapes(tmp_path / "m") if ".experts." in n]) == 9  # three files' names each
    (told,) = merge([tmp_path / "m"], out=tmp_path / "out").receipt.facts["checked"]
    assert (told["architecture"], told["unused"]) == ("MixtralForCausalLM", [])
    changed(tmp_path / "m", **{"model.layers.0.mlp.gate.weight": None, "model.norm.weight": None})
    with pytest.raises(Unreadable, match=r"`model\.norm\.weight` is not in the result"):
        merge([tmp_path / "m"], out=tmp_path / "none")


def test_what_cannot_be_checked_is_written_and_says_why(tmp_path: Path) -> None:
    cases = [
        ("own", {"architectures": ["MyModel"], "auto_map": {"AutoModel": "code.MyModel"}}, "no architecture 'MyModel'"),
        ("none", {"architectures": None}, "names no architecture"),
        ("timm", {"architectures": None, "architecture": "resnet18"}, "names no architecture"),
        ("path", {"architectures": ["models.bert.BertModel"]}, "has no architecture"),
        ("bare", {"architectures": ["PreTrainedModel"]}, "has no architecture"),
        ("small", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
        ("far", {"vision_config": {"use_pretrained_backbone": True, "backbone": "org/x"}}, "lies elsewhere"),
    ]  # fmt: skip
    for name, config, why in cases:
        folder = bert(tmp_path / name, **config)
        (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        made = merge([folder], out=tmp_path / f"{name}-out")
        (told,) = made.receipt.facts["checked"]
        assert told["architecture"] is None
        assert why in told["why"]
    known = bert(tmp_path / "known", auto_map={"AutoModelForSequenceClassification": "code.MyModel"})
    (known / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (told,) = merge([known], out=tmp_path / "known-out").receipt.facts["checked"]
    assert told["architecture"] == "BertForSequenceClassification"
    assert not (tmp_path / "ran").exists()


def test_what_transformers_has_no_class_of_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    for name, config in (
        ("own", {"architectures": ["MyModel"], "auto_map": {"AutoModel": "code.MyModel"}}),
        ("none", {"architectures": None}),
        ("function", {"architectures": ["set_seed"]}),
        ("path", {"architectures": ["models.bert.BertModel"]}),
    ):
        folder = bert(tmp_path / name, **config)
        (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        with pytest.raises(Refused, match="has no architecture"):
            merge([folder], out=tmp_path / "out", load=True)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(Refused, match="takes `past_values`, of which no example"):
        loading.class_of({"architectures": ["TimeSeriesTransformerModel"]}, "x")


def test_without_tokenizer_or_preprocessor_random_inputs_are_tried(tmp_path: Path) -> None:
    for name, said in (("bert", "random tokens"), ("vit", "random images"), ("wav2vec2", "random sounds")):
        folder = models.save(tmp_path / name, name)
        for file in folder.iterdir():
            if file.name not in ("config.json", "model.safetensors"):
                file.unlink()
        held = model_folders.read(folder)
        assert loading.tried(folder, held.config, 3, folder).inputs == said


def test_a_recipe_is_loaded_too_and_the_forecast_counts_the_model(tmp_path: Path) -> None:
    models.save(tmp_path / "a", "bert")
    (tmp_path / "r.yaml").write_text("method: linear\nmodels: [a]\n")
    made = merge_recipe(tmp_path / "r.yaml", out=tmp_path / "out", load=True)
    assert made.receipt.facts["loaded"][0]["architecture"] == "BertForSequenceClassification"
    from headstart.combination.layouts import largest

    assert largest(planned([tmp_path / "a"])) == model_folders.read(tmp_path / "a").bytes
    apart = planned([tmp_path / "a", tmp_path / "out"], heads="separate")
    assert largest(apart) == model_folders.read(tmp_path / "a").bytes < apart.bytes_written


def test_the_weight_of_a_single_model_stays_what_it_is_in_ties(tmp_path: Path) -> None:
    """mergekit divides by the sum of weights that agree, by default, so that one model's weight does nothing."""
    base, tuned = (models.save(tmp_path / n, "bert", i) for i, n in enumerate(("base", "tuned")))
    before, after = (load_file(f / "model.safetensors") for f in (base, tuned))
    for weight in (0.3, 1.0):
        settings = {"density": 1.0, "weights": [weight]}
        ours = load_file(merge([tuned], "ties", base=base, settings=settings, out=tmp_path / f"w{weight}").where
                         / "model.safetensors")  # fmt: skip
        for name, value in ours.items():
            exact = before[name].double() + weight * (after[name].double() - before[name].double())
            torch.testing.assert_close(value.double(), exact, atol=1e-6, rtol=1e-6)
