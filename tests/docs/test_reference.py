"""The generated pages of methods say what a method needs before anyone runs it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from headstart import catalogue
from headstart.core import KINDS

pytest.importorskip("mkdocs", reason="the docs extra brings it")
HOOK = Path(__file__).parents[2] / "docs" / "gen_reference.py"


@pytest.fixture(scope="module")
def reference() -> Any:
    spec = importlib.util.spec_from_file_location("gen_reference", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts(page: str) -> dict[str, str]:
    """The first table of a page."""
    return dict(re.findall(r"^\| (\w+) \| (.*) \|$", page.partition("## Settings")[0], re.M))


@pytest.mark.parametrize(
    ("kind", "name", "data", "models", "base", "memory"),
    [
        ("weighting", "linear", "none: data-free", "any number", "not needed", "tiles: streams"),
        ("weighting", "slerp", "none: data-free", "2", "not needed", "tiles: streams"),
        ("merging", "iso_c", "none: data-free", "any number", "needed: all", "whole tensors: streams"),
        ("matching", "regmean", "unlabelled rows", "any number", "not needed", "a whole model or more"),
        ("learning", "atlas", "labelled rows", "any number", "needed: all", "a whole model or more"),
        ("routing", "twin_merge", "unlabelled rows", "2 or more", "needed: all", "a whole model or more"),
        ("routing", "emr", "unlabelled rows for its router", "any number", "needed: all", "a whole model or more"),
    ],
)
def test_a_merge_says_its_data_its_models_its_base_and_its_memory(
    reference: Any, kind: str, name: str, data: str, models: str, base: str, memory: str
) -> None:
    told = facts(reference.page(catalogue.entry(f"combination.{kind}", name)))
    assert told["models"] == models
    assert told["data"].startswith(data)
    assert told["base"].startswith(base)
    assert told["memory"].startswith(memory)


def test_other_methods_say_their_data_alone(reference: Any) -> None:
    told = facts(reference.page(catalogue.entry("ranking.sets", "osborn")))
    assert told["data"] == "labelled rows; rows that the sources learned from, where they are given"
    assert not told.keys() & {"models", "base", "memory"}


def test_every_kind_of_merge_streams_or_holds_models() -> None:
    merges = {k for k in KINDS if k.startswith("combination.")} - {"combination.fusion"}
    assert merges == {*catalogue.STREAMED, *catalogue.HELD}
