"""Ranking by maps: what a source is scored through its map is what it is scored itself, and it is not opened."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tiny_models
from headstart import execution
from headstart.core import Budget, Refused, Source, Target
from headstart.execution import alone
from headstart.inspection import read_target, read_unlabelled
from headstart.inventory import Inventory
from headstart.inventory.readings import keep
from headstart.ranking import rank
from headstart.ranking.maps import rank_by_maps


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inventory]:
    """A base, an affine copy of it, and a stranger; jobs run in this process."""
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(alone, "begin", partial(execution.begin, executor="in_process"))
    shelf = tmp_path / "shelf"
    tiny_models.save_model(shelf / "base", "bert", num_hidden_layers=1)
    shutil.copytree(shelf / "base", shelf / "affine")
    file = shelf / "affine" / "model.safetensors"
    tensors = load_file(file)
    for name in [n for n in tensors if n.endswith("output.LayerNorm.weight") and "attention" not in n]:
        tensors[name] = np.random.default_rng(0).uniform(0.3, 3.0, tensors[name].shape).astype(np.float32)
    save_file(tensors, file, metadata={"format": "pt"})
    tiny_models.save_model(shelf / "stranger", "distilbert", seed=7, n_layers=1)
    with Inventory(tmp_path / "bank.db") as held:
        held.add(shelf)
        yield held


def target(rows: int = 60) -> Target:
    texts = tiny_models.texts(rows, seed=3, longest=9)["text"].to_pylist()
    return read_target((texts, ["has" if "cat" in t or "dog" in t else "not" for t in texts]), name="animals")


def mapped(bank: Inventory, *names: str) -> Source:
    base = bank.show("base")
    bank.map([bank.show(n) for n in names], base, read_unlabelled(tiny_models.texts(200, seed=1, longest=9)))
    return base


def keep_identity(bank: Inventory, base: Source, source: Source) -> None:
    width = int(base.facts["width"])
    facts = {"r2": 1.0, "rows": 99, "on": "", "base": {"name": base.name, "weights": base.weights}}
    arrays = {"weight": np.eye(width), "bias": np.zeros(width)}
    keep(bank._database, "map", source.identity, base.identity, facts, arrays)


def proxies(source: Source) -> dict[str, Any]:
    assert source.receipt is not None
    return dict(source.receipt.facts["proxies"])


@pytest.mark.parametrize("rows", [60, 15])  # more rows than features, and fewer
def test_the_identity_map_scores_as_the_base(bank: Inventory, rows: int) -> None:
    base, other = bank.show("base"), bank.show("stranger")
    keep_identity(bank, base, other)
    methods = ("logme", "lda", "nmc", "ridge_probe", "knn_loo", "cka")
    found = rank_by_maps(target(rows), [base, other], Budget(), methods, base=base, inventory=bank)
    one, two = (proxies(source) for source in found)
    assert list(one) == list(methods)
    assert one == pytest.approx(two, abs=1e-10)


def test_an_affine_source_scores_as_it_does_itself(bank: Inventory) -> None:
    base, affine = mapped(bank, "affine"), bank.show("affine")
    one = proxies(*rank_by_maps(target(), [affine], Budget(), ("logme", "lda"), base=base, inventory=bank))
    two = proxies(*rank(target(), [affine], Budget(), ("logme", "lda")))
    assert one == pytest.approx(two, abs=2e-3)  # the map is fitted with a little ridge, and kept in float32


def test_sources_are_not_opened_and_come_in_order_with_receipts(bank: Inventory) -> None:
    base = mapped(bank, "affine", "stranger")
    sources = [bank.show(name) for name in ("stranger", "base", "affine")]
    for name in ("stranger", "affine"):
        shutil.rmtree(bank.show(name).where)
    found = rank_by_maps(target(), sources, Budget(), base=base, inventory=bank)
    values = [proxies(source)["logme"] for source in found]
    assert values == sorted(values, reverse=True)
    facts = {s.name: s.receipt.facts["map"] for s in found if s.receipt is not None}
    assert facts["base"] is None
    assert facts["affine"]["r2"] > 0.999 > facts["stranger"]["r2"]
    last = found[0].receipt
    assert last is not None
    assert last.inputs[2] == base.identity
    assert (last.facts["rows"], last.facts["error"], last.step) == (60, None, "rank_by_maps")


def test_a_poor_map_is_said_to_be_one(bank: Inventory) -> None:
    base, other = bank.show("base"), bank.show("stranger")
    facts = {"r2": 0.31, "rows": 99, "on": "", "base": {"name": base.name, "weights": base.weights}}
    weight = np.random.default_rng(0).standard_normal((16, 16))
    keep(bank._database, "map", other.identity, base.identity, facts, {"weight": weight, "bias": np.zeros(16)})
    (found,) = rank_by_maps(target(), [other], Budget(), base=base, inventory=bank)
    assert found.receipt is not None
    assert "explains 31% of its features" in found.receipt.warnings[0]


def test_without_a_map_a_source_comes_last_and_without_any_all_is_refused(bank: Inventory) -> None:
    base, affine, other = (bank.show(name) for name in ("base", "affine", "stranger"))
    with pytest.raises(Refused, match="there is no map from `base`"):
        rank_by_maps(target(), [affine], Budget(), base=base, inventory=bank)
    mapped(bank, "affine")
    found = rank_by_maps(target(), [other, affine], Budget(), base=base, inventory=bank)
    assert [source.name for source in found] == ["affine", "stranger"]
    assert found[1].receipt is not None
    assert "has no map from `base`" in found[1].receipt.facts["error"]["what"]
    with pytest.raises(Refused, match="no source can be ranked"):
        rank_by_maps(target(), [other], Budget(), base=base, inventory=bank)
    with pytest.raises(Refused, match=r"no map from `stranger` .* some from `base`"):
        rank_by_maps(target(), [affine], Budget(), base=other, inventory=bank)


def test_an_estimator_that_reads_more_than_features_is_refused(bank: Inventory) -> None:
    base = mapped(bank, "affine")
    with pytest.raises(Refused, match=r"`leep` reads predictions"):
        rank_by_maps(target(), [base], Budget(), "leep", base=base, inventory=bank)
    with pytest.raises(Refused, match="`h_score` is the same for every invertible linear map"):
        rank_by_maps(target(), [base], Budget(), "h_score", base=base, inventory=bank)
    tiny_models.save_model(Path(base.where).parent.parent / "eyes", "vit")
    (eyes,), _ = bank.add(Path(base.where).parent.parent / "eyes")
    with pytest.raises(Refused, match="reads image"):
        rank_by_maps(target(), [eyes], Budget(), base=eyes, inventory=bank)


def test_a_target_of_tags_is_refused(bank: Inventory) -> None:
    base = mapped(bank, "affine")
    words = [text.split() for text in tiny_models.texts(30, seed=3, longest=6)["text"].to_pylist()]
    tags = [["B-PET" if word in ("cat", "dog") else "O" for word in row] for row in words]
    tagged = read_target({"tokens": words, "tags": tags}, label="tags", name="pets")
    with pytest.raises(Refused, match="would read words, and a map is of whole texts"):
        rank_by_maps(tagged, None, Budget(), base=base, inventory=bank)
