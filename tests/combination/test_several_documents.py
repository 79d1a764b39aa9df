"""Several documents of mergekit in one file: models made of models, in their order, and nothing left beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from headstart.combination import forecasts
from headstart.combination.merging import merge_recipe, planned_recipe
from headstart.core import Problem, Refused, Unfit
from headstart.numerics.stream import Stopped

NAMES = ("one", "two", "three")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        draw = np.random.default_rng(number)
        tensors = {n: draw.standard_normal((5, 4)).astype(np.float32) for n in ("embed.weight", "layers.0.up.weight")}
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        config = {"model_type": "toy", "num_hidden_layers": 1, "tie_word_embeddings": False}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    return tmp_path


def mean(*models: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    said = {"merge_method": "linear", "models": [{"model": m, "parameters": {"weight": 1}} for m in models], **more}
    return said if name is None else {**said, "name": name}


def write(shelf: Path, *documents: Any) -> Path:
    path = shelf / "recipe.yaml"
    path.write_text("\n---\n".join(yaml.safe_dump(d) for d in documents))
    return path


def weights(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return load_file(folder / "model.safetensors")


def test_a_model_is_made_of_models_that_are_made_first(shelf: Path) -> None:
    layer = {"sources": [{"model": "pair", "layer_range": [0, 1]}]}
    stacked = {"merge_method": "passthrough", "name": "deep", "slices": [layer, layer]}
    recipe = write(shelf, mean("deep"), stacked, mean("one", "two", name="pair"), mean("three", name="unused"))
    made = merge_recipe(recipe, out=shelf / "out")
    ours, one, two = (weights(f) for f in (made.where, shelf / "one", shelf / "two"))
    for name in ours:
        source = name.replace("layers.1", "layers.0")
        np.testing.assert_allclose(ours[name], (one[source] + two[source]) / 2, atol=1e-7)
    assert len(ours) == 3
    assert json.loads((made.where / "config.json").read_text())["num_hidden_layers"] == 2
    assert sorted(p.name for p in shelf.iterdir()) == sorted([*NAMES, "out", "recipe.yaml"])


def test_what_models_on_the_way_are_made_of_is_never_replaced(shelf: Path) -> None:
    (shelf / "models").mkdir()
    for name in ("one", "two"):
        (shelf / name).rename(shelf / "models" / name)
    recipe = write(shelf, mean("pair", "three"), mean("models/one", "models/two", name="pair"))
    with pytest.raises(Refused, match="`one` is read, and lies in the folder"):
        merge_recipe(recipe, out=shelf / "models", overwrite=True)
    assert all((shelf / "models" / n / "model.safetensors").is_file() for n in ("one", "two"))


def test_where_all_have_names_all_are_kept_and_made_once(shelf: Path) -> None:
    recipe = write(shelf, mean("pair", "three", name="trio"), mean("one", "two", name="pair"))
    made = merge_recipe(recipe, out=shelf / "out")
    assert made.where == shelf / "out" / "trio"
    before = (shelf / "out" / "pair" / "merge.json").stat().st_mtime_ns
    one, two, three = (weights(shelf / n) for n in NAMES)
    for name, weight in weights(made.where).items():
        np.testing.assert_allclose(weight, (one[name] + two[name]) / 4 + three[name] / 2, atol=1e-7)
    merge_recipe(recipe, out=shelf / "out", overwrite=True)
    assert (shelf / "out" / "pair" / "merge.json").stat().st_mtime_ns == before
    with pytest.raises(Refused, match="holds something already"):
        merge_recipe(recipe, out=shelf / "out")
    save_file({n: 2 * w for n, w in one.items()}, shelf / "one" / "model.safetensors", metadata={"format": "pt"})
    merge_recipe(recipe, out=shelf / "out", overwrite=True)
    for name, weight in weights(shelf / "out" / "pair").items():
        np.testing.assert_allclose(weight, one[name] + two[name] / 2, atol=1e-7)


def test_an_interrupted_chain_goes_on_with_what_it_has(shelf: Path) -> None:
    recipe = write(shelf, mean("one", "two", name="pair"), mean("pair", "three"))
    merge_recipe(recipe, out=shelf / "whole")
    calls: list[int] = []

    def stops_in_the_second(done: int, total: int) -> bool:
        calls.append(done)
        return calls.count(total) < 2

    with pytest.raises(Stopped):
        merge_recipe(recipe, out=shelf / "out", report=stops_in_the_second)
    (kept,) = shelf.glob(".staging-out-steps")
    assert (kept / "pair" / "merge.json").is_file()
    calls.clear()

    def counted(done: int, total: int) -> bool:
        calls.append(done)
        return True

    merge_recipe(recipe, out=shelf / "out", report=counted)
    assert len(calls) <= 2  # of the last model alone
    assert not list(shelf.glob(".staging-*"))
    whole = weights(shelf / "whole")
    assert all(np.array_equal(w, whole[n]) for n, w in weights(shelf / "out").items())


def test_a_plan_of_several_tells_what_all_cost(shelf: Path) -> None:
    plan = planned_recipe(write(shelf, mean("one", "two", name="pair"), mean("pair", "three")))
    cost = forecasts.forecast(plan)
    assert cost.bytes_written == 2 * 2 * 80
    assert cost.bytes_read == 2 * 2 * 2 * 80
    assert cost.seconds > 0
    assert [name for name, _ in plan.before] == ["pair"]


SLIPS: list[tuple[type[Problem], list[Any], str]] = [
    (Unfit, [mean("b", name="a"), mean("a", name="b")], "go round in a circle"),
    (Unfit, [mean("a", name="a"), mean("a")], "go round in a circle"),
    (Unfit, [mean("one"), mean("two")], "two documents have no name"),
    (Unfit, [mean("one", name="a"), mean("two", name="a")], "two documents are called `a`"),
    (Unfit, [mean("one", name="../a"), mean("../a")], "is no plain one"),
    (Refused, [mean("one", name="a"), mean("a", "b")], "there is no folder `b`"),
    (Refused, [mean("one", name="a"), {"merge_method": "ties", "models": [{"model": "a"}]}], "needs a base_model"),
]


@pytest.mark.parametrize(("problem", "documents", "answer"), SLIPS, ids=[a for _, _, a in SLIPS])
def test_slips_are_answered_before_anything_is_written(
    problem: type[Problem], documents: list[Any], answer: str, shelf: Path
) -> None:
    with pytest.raises(problem) as caught:
        merge_recipe(write(shelf, *documents), out=shelf / "out")
    assert answer in str(caught.value), str(caught.value)
    assert sorted(p.name for p in shelf.iterdir()) == sorted([*NAMES, "recipe.yaml"])
