"""Layers and poolings in the race: sources of their own, on the passes of one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import headstart as hs
from headstart.core import Refused, Source
from headstart.execution import begin
from headstart.io import layers, sources
from headstart.ranking import rank_sets
from headstart.ranking.racing import trunk_of
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")


def test_each_ranks_as_it_would_alone_and_one_pass_serves_all(
    text_model: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    target = shelves.tickets(told=1.0)
    with begin(tmp_path, hs.Budget(), inputs={}) as run:
        ranked = hs.rank(target, [text_model], hs.Budget(), "nmc", layers="all", pooling=["mean", "cls"], run=run)
        jobs = [json.loads(p.read_text()) for p in run.folder.rglob("job.json")]
    names = {s.name for s in ranked}
    assert names == {text_model.name, *(f"{text_model.name}@{n}:{p}" for n in (0, 1) for p in ("mean", "cls"))} - {
        f"{text_model.name}@1:mean"  # the source as it is
    }
    assert {trunk_of(s) for s in ranked} == {text_model.identity}
    computed = [j for j in jobs if j["verb"] == "features"]
    assert len(computed) == 1
    assert len(computed[0]["spec"]["taps"]) == len(ranked)
    scores = [s.receipt.scores["score"].value for s in ranked if s.receipt is not None]
    assert scores == sorted(scores, reverse=True)
    one = next(s for s in ranked if s.name.endswith("@1:cls"))
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "other"))
    (alone,) = hs.rank(target, [dataclasses.replace(one, receipt=None)], hs.Budget(), "nmc")
    assert one.receipt is not None
    assert alone.receipt is not None
    assert alone.receipt.facts["proxies"]["nmc"] == pytest.approx(one.receipt.facts["proxies"]["nmc"])
    assert alone.receipt.scores["score"].value == pytest.approx(one.receipt.scores["score"].value, abs=1e-6)


def test_a_source_without_that_pooling_costs_itself_alone(image_model: Source, text_model: Source) -> None:
    target = shelves.tickets(told=1.0)
    first, *_, last = hs.rank(target, [image_model, text_model], hs.Budget(), "nmc", pooling=["cls"])
    assert first.receipt is not None
    assert first.receipt.facts["error"] is None
    assert last.receipt is not None
    assert "cannot be pooled by `cls`" in last.receipt.facts["error"]["what"]


def test_the_rule_of_the_race(text_model: Source, tmp_path: Path) -> None:
    """An encoder that says nothing leaves sooner by standard errors than by a bound; without a rule nobody leaves."""
    target = shelves.tickets(1600, test=20, told=1.0)
    blank = shelves.model(tmp_path / "blank")
    weights = load_file(tmp_path / "blank" / "model.safetensors")
    save_file({k: np.zeros_like(v) for k, v in weights.items()}, tmp_path / "blank" / "model.safetensors")
    (blank,), _ = sources.scan(tmp_path / "blank")
    rows = {}
    for rule in ("paired", "bernstein", "none"):
        ranked = hs.rank(target, [text_model, blank], hs.Budget(), "nmc", rule=rule)
        assert [s.identity for s in ranked] == [text_model.identity, blank.identity]
        facts = [s.receipt.facts for s in ranked if s.receipt is not None]
        assert facts[0]["dropped"] is None
        rows[rule] = facts[1]["rows"]
        assert (facts[1]["dropped"] is None) == (rule == "none")
    assert rows["paired"] < rows["bernstein"] < rows["none"] == 1600


def test_layers_of_one_model_leave_together_and_the_best_are_told_at_the_end(
    text_model: Source, tmp_path: Path
) -> None:
    target = shelves.tickets(1600, test=20, told=1.0)
    shelves.model(tmp_path / "blank")
    weights = load_file(tmp_path / "blank" / "model.safetensors")
    save_file({k: np.zeros_like(v) for k, v in weights.items()}, tmp_path / "blank" / "model.safetensors")
    (blank,), _ = sources.scan(tmp_path / "blank")
    ranked = hs.rank(target, [text_model, blank], hs.Budget(), "nmc", layers="all", pooling=["mean", "cls"])
    facts = {s.name: s.receipt.facts for s in ranked if s.receipt is not None}
    gone = {f["rows"] for name, f in facts.items() if name.startswith(blank.name)}
    assert len(gone) == 1
    assert max(gone) < 1600
    own = {name: f for name, f in facts.items() if name.startswith(text_model.name)}
    assert {f["rows"] for f in own.values()} == {1600}
    behind = {name: f["dropped"] for name, f in own.items() if f["dropped"] is not None}
    assert 0 < len(behind) < len(own), "the first token's embedding says nothing of a text"
    assert all(why.endswith("standard errors behind)") for why in behind.values())


def test_a_source_that_is_no_better_leaves_where_one_is_looked_for(text_model: Source, tmp_path: Path) -> None:
    target = shelves.tickets(1600, test=20, told=1.0)
    shutil.copytree(text_model.where, tmp_path / "twin")
    weights = load_file(tmp_path / "twin" / "model.safetensors")
    save_file({k: v * np.float32(1 + 1e-4) for k, v in weights.items()}, tmp_path / "twin" / "model.safetensors")
    (twin,), _ = sources.scan(tmp_path / "twin")
    both = [text_model, twin]
    alone = [s.receipt.facts for s in hs.rank(target, both, hs.Budget(), "nmc") if s.receipt is not None]
    assert alone[1]["rows"] < 1600
    assert "from being 3% better" in alone[1]["dropped"]
    told, _ = rank_sets(target, both, hs.Budget(), 2, methods=("ensemble_selection",), estimators=("nmc",))
    assert [s.receipt.facts["dropped"] for s in told if s.receipt is not None] == [None, None]


def test_a_pooling_that_none_has_is_answered_with_those_there_are(text_model: Source) -> None:
    with pytest.raises(Refused, match="cannot be pooled by `men`") as caught:
        hs.rank(shelves.tickets(40), [text_model], hs.Budget(), "nmc", pooling=["men"])
    assert "use some of cls, max, mean" in caught.value.fix


def test_taps_open_through_the_source(text_model: Source) -> None:
    recipe = sources.recipe_of(text_model)[0]
    (_, tap) = layers.taps(text_model, recipe, [0], ["max"])
    assert sources.recipe_of(tap)[0].layer == 0
