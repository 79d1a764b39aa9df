"""The receipt accounts for every tensor of every input: used for one of the result, or lost by a stated rule."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from combination.test_merge import labelled, write
from headstart.combination.merging import Merged, merge, merge_recipe
from headstart.core import Receipt
from headstart.io import model_folders

Weights = dict[str, torch.Tensor]


def body(seed: int, first: str = "") -> Weights:
    """Three layers, an embedding and a counter."""
    g = torch.Generator().manual_seed(seed)
    held = {f"{first}layers.{i}.up.weight": torch.randn(4, 3, generator=g) for i in range(3)}
    held[f"{first}embed_tokens.weight"] = torch.randn(6, 3, generator=g)
    return held | {f"{first}steps": torch.tensor([seed])}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Fine-tunes with heads, one of other labels; a base that is stored alone; and language models, one tied twice."""
    base = body(0) | {"mask.weight": torch.ones(2, 3), "ids": torch.tensor([1])}
    write(tmp_path / "base", base, num_hidden_layers=3)
    write(
        tmp_path / "headed", body(0, "bert.") | {"classifier.weight": torch.ones(5, 3)}, num_hidden_layers=3,
        **labelled(*"uvwxy"),
    )  # fmt: skip
    for seed, (name, labels) in enumerate({"a": "xyz", "b": "zxy", "c": "uv"}.items(), start=1):
        head = {"classifier.weight": torch.full((len(labels), 3), float(seed))}
        write(tmp_path / name, body(seed, "bert.") | head, num_hidden_layers=3, **labelled(*labels))
    write(tmp_path / "more", body(5, "bert.") | {"bert.extra": torch.ones(2)}, **labelled(*"xyz"))
    for seed, name in ((6, "one"), (7, "two")):
        held = body(seed, "model.")
        tied = {"lm_head.weight": held["model.embed_tokens.weight"].clone()}
        write(tmp_path / name, held | (tied if name == "two" else {}), num_hidden_layers=3, tie_word_embeddings=True)
    return tmp_path


def recipe(shelf: Path, **said: Any) -> Merged:
    (shelf / "recipe.yaml").write_text(yaml.safe_dump(said))
    return merge_recipe(shelf / "recipe.yaml", out=shelf / "out")


MERGES: dict[str, Callable[[Path], Merged]] = {
    "linear": lambda s: merge([s / "a", s / "b"], out=s / "out"),
    "ties, base alone": lambda s: merge([s / "a", s / "b"], "ties", base=s / "base", out=s / "out"),
    "dare, base of other labels": lambda s: merge([s / "a", s / "b"], "dare", base=s / "headed", out=s / "out"),
    "concatenated": lambda s: merge([s / "a", s / "c"], "linear", heads="concatenate", out=s / "out"),
    "separate": lambda s: merge([s / "a", s / "c"], "iso_c", base=s / "base", heads="separate", out=s / "out"),
    "dropped": lambda s: merge([s / "a", s / "more"], "slerp", unmatched="drop", out=s / "out"),
    "tied": lambda s: merge([s / "one", s / "two"], "linear", out=s / "out"),
    "rules": lambda s: recipe(
        s, method="linear", models=["a", "b"], rules=[{"tensors": ["*up*"], "method": "slerp"}]
    ),
    "slices": lambda s: recipe(
        s, slices=[{"model": "one", "layers": [0, 2]}, {"models": ["one", "two"], "layers": [1, 2]}]
    ),
    "swap": lambda s: recipe(s, swap={"outer": "one", "inner": "two", "bottom": 1, "top": 1}),
    "mergekit": lambda s: recipe(
        s, merge_method="task_arithmetic", base_model="one",
        models=[{"model": "two", "parameters": {"weight": 0.5}}],
    ),
    "passthrough": lambda s: recipe(
        s, merge_method="passthrough",
        slices=[{"sources": [{"model": m, "layer_range": r}]} for m, r in (("one", [0, 1]), ("two", [1, 3]))],
    ),
}  # fmt: skip


def in_result(receipt: Receipt, model: str) -> list[str]:
    """Tensors of a model, as its files call them, of which some of the result are made."""
    groups = [g for g in receipt.facts["fates"] if model in g["models"]]
    return [g["renamed"].get(model, {}).get(name, name) for g in groups for name in g["tensors"]]


@pytest.mark.parametrize("which", MERGES)
def test_every_tensor_is_used_or_lost(which: str, shelf: Path) -> None:
    made = MERGES[which](shelf)
    folders = {f.name: f.where for f in made.plan.folders}
    assert len(folders) >= 2
    for name, where in folders.items():
        stored = set(model_folders.read(where).tensors)
        lost = [r["tensor"] for r in made.receipt.facts["lost"] if r["model"] == name]
        used = set(in_result(made.receipt, name))
        assert max(Counter(lost).values(), default=1) == 1
        assert used | set(lost) == stored
        assert used.isdisjoint(lost)
    written = [n for g in made.receipt.facts["fates"] for n in g["tensors"]]
    assert sorted(written) == sorted(m.name for m in made.plan.made)
    assert json.loads((shelf / "out" / "merge.json").read_text())["facts"]["fates"] == made.receipt.facts["fates"]


def test_a_group_says_its_rule_its_models_and_their_own_names(shelf: Path) -> None:
    made = MERGES["ties, base alone"](shelf)
    body, steps, head = sorted(made.receipt.facts["fates"], key=lambda g: -len(g["tensors"]))
    assert (body["how"], body["rule"], body["models"], len(body["tensors"])) == (
        "merged",
        "`ties`",
        ["base", "a", "b"],
        4,
    )
    assert body["renamed"]["base"]["bert.layers.1.up.weight"] == "layers.1.up.weight"
    assert list(body["renamed"]) == ["base"]
    assert {g["how"]: g["models"] for g in (steps, head)} == {"copied": ["base"], "merged": ["a", "b"]}
    rules = {(r["model"], r["tensor"]): r["rule"] for r in made.receipt.facts["lost"]}
    assert rules["a", "bert.steps"] == "whole numbers: from `base` alone"
    assert rules["base", "mask.weight"] == "of the base alone: no fine-tune has it"


def test_what_rows_of_other_labels_or_no_slice_have_is_said(shelf: Path) -> None:
    lost = MERGES["dare, base of other labels"](shelf).receipt.facts["lost"]
    assert {"model": "headed", "tensor": "classifier.weight", "rule": "its rows are of other labels"} in lost


def test_what_no_slice_takes_is_said(shelf: Path) -> None:
    lost = MERGES["passthrough"](shelf).receipt.facts["lost"]
    assert {"model": "two", "tensor": "model.layers.0.up.weight", "rule": "in no slice"} in lost


def test_what_is_stacked_is_copied_and_not_merged(shelf: Path) -> None:
    scaled = {"model": "two", "layer_range": [1, 3], "parameters": {"scale": [{"filter": "up", "value": 0.5}]}}
    sources = [{"model": "one", "layer_range": [0, 1]}, scaled]
    made = recipe(shelf, merge_method="passthrough", slices=[{"sources": [s]} for s in sources])
    told = {n: (g["how"], g["rule"]) for g in made.receipt.facts["fates"] for n in g["tensors"]}
    assert {how for how, _ in told.values()} == {"copied"}
    assert told["model.layers.0.up.weight"] == ("copied", "of `one`")
    assert told["model.layers.1.up.weight"] == ("copied", "of `two` times 0.5")
    assert "merged" not in {r["how"] for r in made.receipt.facts["tensors"]}
    ours, two = load_file(made.where / "model.safetensors"), load_file(shelf / "two" / "model.safetensors")
    assert torch.equal(ours["model.layers.1.up.weight"], 0.5 * two["model.layers.1.up.weight"])
