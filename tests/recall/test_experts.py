"""Experts recalled by the rows that they were trained on: each finds its own, and labels play no part."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from headstart import execution
from headstart.core import Budget, Refused, Source, Target, Unfit
from headstart.execution import alone
from headstart.inspection import read_target, read_unlabelled
from headstart.inventory import Inventory
from headstart.recall.experts import recall_experts
from inventory.shelves import a_source

THEMES = {"pets": ["cat", "dog", "mat"], "land": ["hill", "tree", "house"], "looks": ["big", "red", "old", "new"]}


def texts(theme: str, count: int, seed: int = 0) -> list[str]:
    draw = random.Random(f"{theme}{seed}")
    return [" ".join(draw.choices(THEMES[theme], k=5) + draw.choices(["the", "a", "is"], k=2)) for _ in range(count)]


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inventory]:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(alone, "begin", partial(execution.begin, executor="in_process"))
    tiny_models.save_model(tmp_path / "shelf" / "eyes", "bert", num_hidden_layers=1)
    with Inventory(tmp_path / "bank.db") as held:
        held.add(tmp_path / "shelf")
        for theme in THEMES:
            held.add_source(a_source(theme))
        yield held


def sampled(bank: Inventory, **more: Any) -> Source:
    eyes = bank.show("eyes")
    for theme in THEMES:
        bank.sample(bank.show(theme), read_unlabelled({"text": texts(theme, 300)}), eyes, **more)
    return eyes


def target(theme: str, seed: int = 9, flipped: bool = False) -> Target:
    rows = texts(theme, 60, seed)
    return read_target((rows, [("a", "b")[(at + flipped) % 2] for at in range(60)]), name=theme)


@pytest.mark.parametrize("more", [{}, {"centres": True, "most": 25}])
def test_each_kind_of_rows_finds_the_expert_of_its_own(bank: Inventory, more: dict[str, Any]) -> None:
    eyes = sampled(bank, **more)
    for theme in THEMES:
        found = recall_experts(target(theme), None, Budget(), encoder=eyes, inventory=bank)
        assert found[0].name == theme
        assert {source.name for source in found} == set(THEMES)
        shares = [source.receipt.facts["share"] for source in found if source.receipt is not None]
        assert shares[0] > 0.6
        assert sum(shares) == pytest.approx(1)


def test_rows_that_an_expert_was_trained_on_recall_it_without_exception(bank: Inventory) -> None:
    eyes = sampled(bank, most=300)
    for theme in THEMES:
        found = recall_experts(target(theme, seed=0), None, Budget(), encoder=eyes, inventory=bank)
        assert found[0].receipt is not None
        assert found[0].receipt.facts["share"] == 1.0
        assert not found[0].receipt.facts["novel"]
        assert found[0].receipt.warnings == ()


def test_labels_play_no_part_and_a_source_without_instances_comes_last(bank: Inventory) -> None:
    eyes = sampled(bank)
    given = [a_source("stranger"), *(bank.show(theme) for theme in THEMES)]
    one, other = (
        recall_experts(target("land", flipped=flipped), given, Budget(), encoder=eyes, inventory=bank)
        for flipped in (False, True)
    )
    assert [s.name for s in one] == [s.name for s in other]
    assert [s.receipt.facts for s in one if s.receipt] == [s.receipt.facts for s in other if s.receipt]
    assert (one[0].name, one[-1].name) == ("land", "stranger")
    assert one[-1].receipt is not None
    assert one[-1].receipt.facts["share"] is None


def test_inputs_of_another_world_are_novel(bank: Inventory) -> None:
    eyes = sampled(bank)
    draw = random.Random(0)
    rows = [" ".join(draw.choices(["under", "over", "here", "or", "and", "sat"], k=12)) for _ in range(60)]
    new = read_target((rows, ["a", "b"] * 30), name="news")
    found = recall_experts(new, None, Budget(), encoder=eyes, inventory=bank)
    assert found[0].receipt is not None
    assert found[0].receipt.facts["novel"]
    assert "like nothing" in found[0].receipt.warnings[0]


def test_what_is_lacking_is_said(bank: Inventory) -> None:
    eyes = bank.show("eyes")
    with pytest.raises(Refused, match="no source has instances by `eyes`"):
        recall_experts(target("pets"), None, Budget(), encoder=eyes, inventory=bank)
    pets = read_unlabelled({"text": texts("pets", 60)})
    assert bank.sample(bank.show("pets"), pets, eyes) <= 60
    with pytest.raises(Refused, match="one source has instances"):
        recall_experts(target("pets"), None, Budget(), encoder=eyes, inventory=bank)
    with pytest.raises(Refused, match=r"no source has instances by `pets`; there are some by `eyes`"):
        recall_experts(target("pets"), None, Budget(), encoder=bank.show("pets"), inventory=bank)
    with pytest.raises(Unfit, match="3 different rows are too few"):
        bank.sample(bank.show("pets"), pets.take([0, 1, 2, 0]), eyes)
    with pytest.raises(Unfit, match="0 inputs"):
        recall_experts(target("pets"), None, Budget(), encoder=eyes, inventory=bank, inputs=0)
