"""Maps from a base to its fine-tunes: planted ones are found, and none is used for another base."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file, save_file

import tiny_models
from headstart.core import Refused, Rows, Source, Unfit, Unreadable
from headstart.inspection import read_unlabelled
from headstart.inventory import Inventory
from headstart.io.layers import taps
from headstart.io.sources import opened, recipe_of


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base; a copy whose last layer norm is another, which is an affine map of the base; and a stranger."""
    folder = tmp_path_factory.mktemp("shelf")
    tiny_models.save_model(folder / "base", "bert", num_hidden_layers=1)
    shutil.copytree(folder / "base", folder / "affine")
    file, chance = folder / "affine" / "model.safetensors", np.random.default_rng(0)
    tensors = load_file(file)
    for name in [n for n in tensors if n.endswith("output.LayerNorm.weight") and "attention" not in n]:
        tensors[name] = chance.uniform(0.5, 2.0, tensors[name].shape).astype(np.float32)
        bias = name.removesuffix("weight") + "bias"
        tensors[bias] = chance.standard_normal(tensors[bias].shape).astype(np.float32)
    save_file(tensors, file, metadata={"format": "pt"})
    tiny_models.save_model(folder / "stranger", "distilbert", seed=7, n_layers=1)
    return folder


@pytest.fixture
def bank(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inventory]:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    with Inventory(tmp_path / "bank.db") as held:
        held.add(shelf)
        yield held


def rows(count: int = 120, seed: int = 0) -> Rows:
    return read_unlabelled(tiny_models.texts(count, seed=seed, longest=12))


def named(bank: Inventory, *names: str) -> list[Source]:
    return [bank.show(name) for name in names]


def test_an_affine_source_is_mapped_exactly_and_a_stranger_less_well(bank: Inventory) -> None:
    base, affine, stranger = named(bank, "base", "affine", "stranger")
    found, failed = bank.map([affine, stranger], base, rows())
    assert not failed
    assert found[0].r2 > 0.9999
    assert 0.1 < found[1].r2 < 0.99
    fresh = tiny_models.texts(30, seed=5)
    with opened(base) as one, opened(affine) as other:
        told, truth = found[0].map(one.features(fresh)), other.features(fresh)
    np.testing.assert_allclose(told, truth, atol=2e-2 * np.abs(truth).max())


def test_maps_are_kept_and_the_newest_counts(bank: Inventory) -> None:
    base, affine, stranger = named(bank, "base", "affine", "stranger")
    bank.map([affine, stranger], base, rows(80))
    bank.map([affine], base, rows(100))
    bank.map([affine], base, rows(100))
    held = list(bank.maps(base))
    assert [(one.source, one.rows) for one in held] == [(stranger.identity, 80), (affine.identity, 100)]
    assert [one.source for one in bank.maps(base, [affine])] == [affine.identity]
    with bank._database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM readings").scalar() == 3
    assert held[1].map.weight.shape == (16, 16)


def test_a_map_belongs_to_one_base_and_to_one_way_to_read_it(bank: Inventory) -> None:
    base, affine, stranger = named(bank, "base", "affine", "stranger")
    with pytest.raises(Refused, match="there is no map from `base`"):
        list(bank.maps(base))
    bank.map([affine], base, rows(80))
    with pytest.raises(Refused, match=r"no map from `stranger` .* some from `base`"):
        list(bank.maps(stranger))
    (by_first_token,) = [t for t in taps(base, recipe_of(base)[0], None, ["cls"]) if t.facts["pooling"] == "cls"]
    with pytest.raises(Refused, match=r"another reading of them .*pooled by mean.*this is pooled by cls"):
        list(bank.maps(by_first_token))


def test_rows_that_are_few_or_alike_are_refused(bank: Inventory) -> None:
    base, affine = named(bank, "base", "affine")
    with pytest.raises(Unfit, match="20 different rows are too few") as refused:
        bank.map([affine], base, read_unlabelled(pa.concat_tables([tiny_models.texts(20)] * 9)))
    assert "50 at least" in refused.value.fix
    nonsense = read_unlabelled(pa.table({"text": [f"xx{n}" for n in range(60)]}))  # all unknown to the tokenizer
    found, failed = bank.map([affine], base, nonsense)
    assert not found
    assert "features of the base are the same" in failed[0][1].what


def test_no_more_rows_than_asked_for_are_read_whatever_their_order(bank: Inventory) -> None:
    base, affine = named(bank, "base", "affine")
    every = rows(120)
    (one,), _ = bank.map([affine], base, every, most=60)
    (other,), _ = bank.map([affine], base, every.take(range(119, -1, -1)), most=60)
    assert one.rows == 60
    assert one.on == other.on


def test_lists_of_words_are_read_as_texts(bank: Inventory) -> None:
    base, affine = named(bank, "base", "affine")
    texts = tiny_models.texts(80, longest=12)
    words = read_unlabelled(pa.table({"tokens": [text.split() for text in texts["text"].to_pylist()]}))
    (one,), _ = bank.map([affine], base, words)
    (other,), _ = bank.map([affine], base, read_unlabelled(texts))
    assert (one.rows, one.on, one.r2) == (other.rows, other.on, pytest.approx(other.r2))


def test_what_cannot_be_mapped_costs_itself_alone(bank: Inventory, tmp_path: Path) -> None:
    tiny_models.save_model(tmp_path / "eyes", "vit")
    tiny_models.save_model(tmp_path / "gone", "bert", seed=3)
    bank.add(tmp_path / "eyes")
    bank.add(tmp_path / "gone")
    base, eyes, affine, gone = named(bank, "base", "eyes", "affine", "gone")
    shutil.rmtree(tmp_path / "gone")
    found, failed = bank.map([eyes, base, gone, affine], base, rows(80))
    assert [one.source for one in found] == [affine.identity]
    assert [name for name, _ in failed] == ["eyes", "base", "gone"]
    assert "it reads images, and the rows hold text" in failed[0][1].what
    assert "it is the base" in failed[1][1].what


def test_a_damaged_map_is_told(bank: Inventory, tmp_path: Path) -> None:
    base, affine = named(bank, "base", "affine")
    bank.map([affine], base, rows(80))
    bank.close()
    with sqlite3.connect(tmp_path / "bank.db") as raw:
        (held,) = raw.execute("SELECT arrays FROM readings").fetchone()
        raw.execute("UPDATE readings SET arrays = ?", (held[:-4] + b"\0\0\0\1",))
    with pytest.raises(Unreadable, match="damaged"):
        list(bank.maps(base))
