"""Recipes that read rows: the same merge as the command of the same words, and numbers that are searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import headstart as hs
from headstart.combination.merging import merge, merge_recipe, planned_recipe
from headstart.core import Refused, Target
from tuned_models import Family


def target(family: Family, task: str) -> Target:
    return hs.read_target(family.tables[task]["valid"], label="label", test=family.tables[task]["test"], name=task)


def write(folder: Path, document: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def weights(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


METHODS: list[tuple[str, dict[str, Any]]] = [
    ("regmean", {"shrink": 0.8}),
    ("adamerging", {"steps": 3}),
    ("evolve", {"merge": "ties", "search": [["density", 0.1, 1.0], ["scale", 0.2, 2.0]], "trials": 2}),
    ("twin_merge", {"steps": 5}),
]


@pytest.mark.parametrize(("method", "settings"), METHODS, ids=[m for m, _ in METHODS])
def test_a_recipe_that_reads_rows_makes_what_the_command_makes(
    method: str, settings: dict[str, Any], tuned: Family, tmp_path: Path
) -> None:
    said = {"method": method, "models": [str(m) for m in tuned.models.values()], "base": str(tuned.base)}
    heads = {} if method == "twin_merge" else {"heads": "separate"}
    recipe = write(tmp_path, {**said, **heads, "settings": settings, "seed": 3})
    targets = {task: target(tuned, task) for task in tuned.models}
    by_recipe = merge_recipe(recipe, out=tmp_path / "a", targets=targets)
    plain = {k: tuple(map(tuple, v)) if k == "search" else v for k, v in settings.items()}
    by_call = merge(
        said["models"], method, base=tuned.base, settings=plain, seed=3, targets=targets, out=tmp_path / "b", **heads
    )  # fmt: skip
    assert by_recipe.plan.method == by_call.plan.method == method
    assert weights(by_recipe.where) == weights(by_call.where)


def test_what_a_recipe_of_rows_lacks_is_told(tuned: Family, tmp_path: Path) -> None:
    said = {"method": "regmean", "models": [str(m) for m in tuned.models.values()], "heads": "separate"}
    with pytest.raises(Refused, match="`regmean` reads rows, and none are named"):
        merge_recipe(write(tmp_path, said), out=tmp_path / "out")
    ruled = {**said, "rules": [{"tensors": ["*"], "method": "linear"}]}
    with pytest.raises(Refused, match="reads rows and makes all tensors itself"):
        planned_recipe(write(tmp_path, ruled))
    with pytest.raises(Refused, match="keeps parts of the models apart, and their heads with them"):
        planned_recipe(write(tmp_path, {**said, "base": str(tuned.base), "method": "surgery", "heads": "average"}))
    within = {**said, "method": "linear", "rules": [{"tensors": ["*"], "method": "regmean"}]}
    with pytest.raises(Refused, match="which a rule, a slice or another merge cannot give it"):
        planned_recipe(write(tmp_path, within))
    assert not (tmp_path / "out").exists()
