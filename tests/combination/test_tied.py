"""Tensors that are stored twice and are one: merged once, whatever the method, and what transformers loads is tied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from headstart.combination.merging import merge, merge_recipe, planned
from headstart.core import Refused
from tiny_models import config_for

COPY, KEPT = "lm_head.weight", "model.embed_tokens.weight"
NAMES = ("a", "b", "c", "base")
Weights = dict[str, torch.Tensor]


def tensors(folder: Path) -> Weights:
    return dict(load_file(folder / "model.safetensors"))


def twice(folder: Path, where: Path, more: Mapping[str, str], *, by: float = 0.0, **config: Any) -> Path:
    """The same model with copies of tensors, that differ by so much. config: what it says otherwise; None for nothing.

    more: copy -> what it is a copy of.
    """
    where.mkdir()
    held = tensors(folder)
    save_file(held | {n: held[k] + by for n, k in more.items()}, where / "model.safetensors", {"format": "pt"})
    said = {**json.loads((folder / "config.json").read_text()), **config}
    (where / "config.json").write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    return where


@pytest.fixture
def once(tmp_path: Path) -> list[Path]:
    """Three fine-tunes and their base, as transformers saves them: without copies."""
    return models(tmp_path, "llama", num_key_value_heads=2, tie_word_embeddings=True)


def models(folder: Path, model_type: str, **settings: Any) -> list[Path]:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    kinds: dict[str, Any] = {"bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}
    kind = kinds.get(model_type, AutoModelForCausalLM)
    for seed, name in enumerate(NAMES):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            kind.from_config(config_for(model_type, **settings)).save_pretrained(folder / name)
    return [folder / name for name in NAMES]


@pytest.mark.parametrize("method", ["linear", "dare", "della", "ties"])
def test_copies_change_nothing(method: str, once: list[Path], tmp_path: Path) -> None:
    """Masks are drawn, and shares of the whole model are taken, as if they were not there."""
    from transformers import AutoModelForCausalLM

    both = [twice(folder, tmp_path / f"{folder.name}-twice", {COPY: KEPT}) for folder in once]
    plain = merge(once[:3], method, base=once[3], out=tmp_path / "plain").where
    made = merge(both[:3], method, base=both[3], out=tmp_path / "made")
    expected, found = tensors(plain), tensors(made.where)
    assert set(found) == set(expected)
    assert all(torch.equal(found[n], t) for n, t in expected.items())
    lost = [r for r in made.receipt.facts["lost"] if r["tensor"] == COPY]
    assert [r["model"] for r in lost] == ["a-twice", "b-twice", "base-twice", "c-twice"]
    assert {r["rule"] for r in lost} == {f"tied to `{KEPT}`"}
    assert not [w for w in made.receipt.warnings if COPY in w]
    model, told = AutoModelForCausalLM.from_pretrained(made.where, output_loading_info=True, local_files_only=True)
    assert not told["missing_keys"]
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_only_some_models_have_copies(once: list[Path], tmp_path: Path) -> None:
    copy = twice(once[1], tmp_path / "copy", {COPY: KEPT})
    made = merge([once[0], copy], out=tmp_path / "out")
    assert COPY not in tensors(made.where)
    assert made.receipt.facts["lost"] == [{"model": "copy", "tensor": COPY, "rule": f"tied to `{KEPT}`"}]


def test_copies_that_differ_are_two_tensors_as_for_transformers(once: list[Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    both = [twice(f, tmp_path / f"{f.name}-twice", {COPY: KEPT}, by=1.0) for f in once[:2]]
    made = merge(both, out=tmp_path / "out")
    found = tensors(made.where)
    torch.testing.assert_close(found[COPY], found[KEPT] + 1)
    told = [w for w in made.receipt.warnings if COPY in w]
    assert len(told) == 2
    assert f"`{COPY}` and `{KEPT}` of `a-twice` differ, though" in told[0]
    model = AutoModelForCausalLM.from_pretrained(made.where, local_files_only=True)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    mixed = tensors(merge([once[1], both[0]], out=tmp_path / "mixed").where)
    ours, theirs = tensors(once[1]), tensors(both[0])
    torch.testing.assert_close(mixed[COPY], (ours[KEPT] + theirs[COPY]) / 2)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_where_one_model_is_not_tied_the_result_is_not(
    method: str, order: tuple[int, ...], once: list[Path], tmp_path: Path
) -> None:
    """The tied models' output embedding is their input embedding, in whatever order they come."""
    from transformers import AutoModelForCausalLM

    apart = twice(once[1], tmp_path / "apart", {COPY: KEPT}, by=0.5, tie_word_embeddings=False)
    three = [once[0], apart, once[2]]
    listed = [three[i] for i in order]
    with_base = {"base": once[3], "settings": {"scale": 1.0}} if method == "task_arithmetic" else {}
    made = merge(listed, method, out=tmp_path / "out", **with_base)
    found = tensors(made.where)
    ins, outs = (
        [tensors(f)[KEPT].double() for f in three],
        [tensors(f).get(COPY, tensors(f)[KEPT]).double() for f in three],
    )
    before = tensors(once[3])[KEPT].double()
    for name, each in ((KEPT, ins), (COPY, outs)):
        exact = before + sum(t - before for t in each) if with_base else sum(each) / 3
        torch.testing.assert_close(found[name].double(), exact, atol=1e-6, rtol=1e-6)
    assert json.loads((made.where / "config.json").read_text())["tie_word_embeddings"] is False
    model, told = AutoModelForCausalLM.from_pretrained(made.where, output_loading_info=True, local_files_only=True)
    assert not told["missing_keys"]
    torch.testing.assert_close(model.lm_head.weight.double(), found[COPY].double())
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    (group,) = [g for g in made.receipt.facts["fates"] if COPY in g["tensors"]]
    assert group["renamed"]["a"] == {COPY: KEPT}
    assert not [r for r in made.receipt.facts["lost"] if r["tensor"] in (COPY, KEPT)]
    assert any("`a` has one tensor for" in w and "the result has two" in w for w in made.receipt.warnings)


def test_the_output_embedding_of_another_architecture_is_none_of_a_tied_model(once: list[Path], tmp_path: Path) -> None:
    apart = twice(once[1], tmp_path / "apart", {COPY: KEPT}, by=0.5, architectures=["OtherForCausalLM"])
    with pytest.raises(Refused, match=r"`lm_head\.weight` of `apart` is not in `a`, and would be lost"):
        planned([once[0], apart])


def test_biases_of_output_embeddings_are_two_as_well(tmp_path: Path) -> None:
    once = models(tmp_path, "bert")
    weight, bias = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
    more = {weight: "bert.embeddings.word_embeddings.weight", bias: "cls.predictions.bias"}
    apart = twice(once[1], tmp_path / "apart", more, by=0.5, tie_word_embeddings=False)
    found = tensors(merge([once[0], apart], out=tmp_path / "out").where)
    for name, kept in more.items():
        torch.testing.assert_close(found[name], (tensors(once[0])[kept] + tensors(apart)[name]) / 2)


def test_models_that_say_they_are_apart_stay_so(once: list[Path], tmp_path: Path) -> None:
    both = [twice(f, tmp_path / f"{f.name}-twice", {COPY: KEPT}, tie_word_embeddings=False) for f in once[:2]]
    made = merge(both, out=tmp_path / "out")
    assert COPY in tensors(made.where)
    assert made.receipt.facts["lost"] == []


def test_the_result_says_that_it_is_tied_where_its_models_leave_it_to_their_class(
    once: list[Path], tmp_path: Path
) -> None:
    both = [twice(f, tmp_path / f"{f.name}-twice", {COPY: KEPT}, tie_word_embeddings=None) for f in once[:2]]
    made = merge(both, out=tmp_path / "out", load=True).where
    assert COPY not in tensors(made)
    assert json.loads((made / "config.json").read_text())["tie_word_embeddings"] is True


def test_recipes_merge_them_once_too(once: list[Path], tmp_path: Path) -> None:
    both = [twice(f, tmp_path / f"{f.name}-twice", {COPY: KEPT}) for f in once]
    said = {
        "merge_method": "dare_linear", "base_model": str(both[3]),
        "models": [{"model": str(f), "parameters": {"weight": 0.5, "density": 0.5}} for f in both[:2]],
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(said))
    made = merge_recipe(tmp_path / "recipe.yaml", out=tmp_path / "out")
    assert COPY not in tensors(made.where)
    layers = {"slices": [{"model": str(both[0]), "layers": [0, 1]}, {"model": str(both[1]), "layers": [1, 2]}]}
    (tmp_path / "layers.yaml").write_text(yaml.safe_dump(layers))
    made = merge_recipe(tmp_path / "layers.yaml", out=tmp_path / "stacked")
    assert COPY not in tensors(made.where)
    torch.testing.assert_close(tensors(made.where)[KEPT], tensors(once[0])[KEPT], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model_type", "copies"),
    [
        (
            "bert",
            {
                "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
                "cls.predictions.decoder.bias": "cls.predictions.bias",
            },
        ),
        (
            "t5",
            {
                "encoder.embed_tokens.weight": "shared.weight", "decoder.embed_tokens.weight": "shared.weight",
                "lm_head.weight": "shared.weight",
            },
        ),
    ],
)  # fmt: skip
def test_all_that_transformers_ties(model_type: str, copies: dict[str, str], tmp_path: Path) -> None:
    settings = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2} if model_type == "t5" else {}
    once = models(tmp_path, model_type, **settings, decoder_start_token_id=0)
    assert set(tensors(once[0])).isdisjoint(copies)
    both = [twice(f, tmp_path / f"{f.name}-twice", copies) for f in once]
    plain = tensors(merge(once[:3], "dare", base=once[3], out=tmp_path / "plain").where)
    made = merge(both[:3], "dare", base=both[3], out=tmp_path / "made", load=True)
    found = tensors(made.where)
    assert set(found) == set(plain)
    assert all(torch.equal(found[n], t) for n, t in plain.items())
    assert len(made.receipt.facts["lost"]) == 4 * len(copies)
