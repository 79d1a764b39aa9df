"""A base that is not the models' own is said before anything is merged; a true one raises no word."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml

from combination.test_merge import tensors, write
from headstart.combination.ancestry import weights_of
from headstart.combination.deltas import apply, diff
from headstart.combination.merging import merge, planned, planned_recipe
from headstart.io import model_folders

Weights = dict[str, torch.Tensor]


def base_of(seed: int) -> Weights:
    g = torch.Generator().manual_seed(seed)
    return {"up.weight": 0.02 * torch.randn(90, 60, generator=g), "norm.bias": torch.zeros(90)}


def tuned(base: Weights, seed: int, by: float = 0.1) -> Weights:
    g = torch.Generator().manual_seed(100 + seed)
    return {n: t + by * (0.02 * torch.randn(t.shape, generator=g)) for n, t in base.items()}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for seed, name in enumerate(("base", "other")):
        write(tmp_path / name, base_of(seed))
    for seed, name in enumerate("ab"):
        write(tmp_path / name, tuned(base_of(0), seed))
    return tmp_path


def doubts(warnings: tuple[str, ...]) -> list[str]:
    return [w for w in warnings if "hardly" in w or "other weights" in w]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare", "iso_c"])
def test_another_base_is_said_once_for_all_models(method: str, shelf: Path) -> None:
    models = [shelf / "a", shelf / "b"]
    assert doubts(planned(models, method, base=shelf / "base").warnings) == []
    (told,) = doubts(planned(models, method, base=shelf / "other").warnings)
    assert "the base `other` is hardly what these were fine-tuned from" in told
    assert "`a` by 1.4, `b` by 1.4; check --base" in told
    merged = merge(models, method, base=shelf / "other", out=shelf / "out")
    assert told in merged.receipt.warnings


def test_only_the_model_that_is_not_of_it_is_named(shelf: Path) -> None:
    write(shelf / "odd", tuned(base_of(1), 3))
    (told,) = doubts(planned([shelf / "a", shelf / "odd"], "ties", base=shelf / "base").warnings)
    assert "`odd` by" in told
    assert "`a` by" not in told


def test_recipes_say_it_too(shelf: Path) -> None:
    models = [{"model": m, "parameters": {"weight": 1.0}} for m in "ab"]
    for recipe in (
        {"method": "task_arithmetic", "models": ["a", "b"], "base": "other"},
        {"merge_method": "task_arithmetic", "models": models, "base_model": "other"},
    ):
        (shelf / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        assert len(doubts(planned_recipe(shelf / "recipe.yaml").warnings)) == 1


def test_where_a_base_plays_no_part_nothing_is_said(shelf: Path) -> None:
    assert doubts(planned([shelf / "a", shelf / "other"], "linear").warnings) == []
    models = [{"model": m, "parameters": {"weight": 1.0}} for m in ("a", "other", "base")]
    said = {"merge_method": "linear", "models": models, "base_model": "base"}
    (shelf / "recipe.yaml").write_text(yaml.safe_dump(said))
    assert doubts(planned_recipe(shelf / "recipe.yaml").warnings) == []


def test_a_model_of_a_delta_knows_its_base(shelf: Path) -> None:
    diff(shelf / "base", shelf / "a", out=shelf / "d.safetensors")
    made = apply(shelf / "d.safetensors", shelf / "base", out=shelf / "made")
    assert doubts(planned([made, shelf / "b"], "ties", base=shelf / "base").warnings) == []
    near = tensors(shelf / "base")
    near["up.weight"][0, 0] += 1e-3  # so near that no sample tells
    write(shelf / "near", near)
    (told,) = doubts(planned([made, shelf / "b"], "ties", base=shelf / "near").warnings)
    assert told == (
        "`made` was made from `base` with other weights than the base `near`, as its `delta.json` says; check --base"
    )


def test_a_merge_knows_its_base_by_its_weights(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(shelf / "home"))
    models = [shelf / "a", shelf / "b"]
    made = merge(models, "task_arithmetic", base=shelf / "base", out=shelf / "made")
    marks = [weights_of(model_folders.read(shelf / n)) for n in ("base", "a")]
    assert made.receipt.facts["base_weights"] == marks[0] != marks[1]
    assert diff(shelf / "base", shelf / "a", out=shelf / "d.safetensors").delta.base == marks[0]
    assert merge(models, out=shelf / "mean").receipt.facts["base_weights"] is None
    assert doubts(planned([shelf / "made", shelf / "b"], "ties", base=shelf / "base").warnings) == []
    near = tensors(shelf / "base")
    near["up.weight"][0, 0] += 1e-3
    write(shelf / "near", near)
    (told,) = doubts(planned([shelf / "made", shelf / "b"], "ties", base=shelf / "near").warnings)
    assert told == (
        "`made` was made from `base` with other weights than the base `near`, as its `merge.json` says; check --base"
    )


def test_the_weights_of_a_base_are_read_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(shelf / "home"))
    base = model_folders.read(shelf / "base")
    for file in (shelf / "base").iterdir():
        os.utime(file, (1e9, 1e9))  # one as young as this could still be written to
    mark = weights_of(base)
    with monkeypatch.context() as patch:
        patch.setattr("headstart.io.fingerprints._read", lambda *_: pytest.fail("it was read again"))
        assert weights_of(base) == mark
    (shelf / "home").rename(shelf / "away")
    (shelf / "home").write_text("no folder")
    assert weights_of(base) == mark
