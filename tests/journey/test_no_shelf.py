"""Nothing on the shelf, or nothing that works: a warning and a result without transfer, never an error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import headstart as hs
from headstart.core import Budget, OverBudget, Source, Unfit
from journey import shelves


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    shelves.cheap_baselines(monkeypatch, "word_char_tfidf", "column_linear")
    monkeypatch.setattr("headstart.ranking.racing.race.__defaults__", ((),))


def _is_without_transfer(result: hs.Result) -> None:
    summary = result.summary
    assert (result.verdict, summary["returned"], summary["sources"]) == ("no-evidence", "no-transfer", [])
    assert (summary["gain"], summary["choice_gain"], summary["candidate"]) == (None, None, None)
    assert summary["score"]["low"] <= summary["score"]["value"] <= summary["score"]["high"]
    assert any("no source on the shelf could be used" in w for w in result.receipt.warnings)
    assert not (Path(result.where) / "candidate").exists()


def test_no_inventory_at_all(tmp_path: Path) -> None:
    result = shelves.solved(shelves.tickets(told=0.9), None, tmp_path / "out")
    _is_without_transfer(result)
    assert result.receipt.method == "word_char_tfidf"
    assert set(hs.load(tmp_path / "out").predict(["the cat sat"]).labels) <= {"class 0", "class 1"}


def test_an_empty_bank(tmp_path: Path) -> None:
    bank = hs.Inventory()
    _is_without_transfer(shelves.solved(shelves.tickets(), None, tmp_path / "out", bank))
    assert [run["verdict"] for run in bank.runs()] == ["no-evidence"]
    assert bank.sources() == []


def test_a_shelf_of_broken_folders(tmp_path: Path) -> None:
    for name in ("empty", "torn"):
        (tmp_path / "shelf" / name).mkdir(parents=True)
        (tmp_path / "shelf" / name / "config.json").write_text("{" if name == "torn" else "{}")
    (tmp_path / "shelf" / "pickled").mkdir()
    (tmp_path / "shelf" / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    bank = hs.Inventory()
    added, failed = bank.add(tmp_path / "shelf")
    assert (len(added), len(failed)) == (0, 3)
    result = shelves.solved(shelves.tickets(), added, tmp_path / "out", bank, failed=failed)
    _is_without_transfer(result)
    for name in ("empty", "torn", "pickled"):
        assert any(f"`{name}`" in w and "left out" in w for w in result.receipt.warnings), result.receipt.warnings


def test_sources_that_all_fail_when_they_run(tmp_path: Path, text_model: Source) -> None:
    broken = [shelves.named(text_model, name, where=str(tmp_path / name)) for name in ("lost", "gone")]
    result = shelves.solved(shelves.tickets(), broken, tmp_path / "out", hs.Inventory())
    _is_without_transfer(result)
    for name in ("lost", "gone"):
        assert any(f"`{name}` failed" in w for w in result.receipt.warnings), name


def test_a_bad_source_costs_the_others_nothing(tmp_path: Path, text_model: Source) -> None:
    target = shelves.tickets()
    good = shelves.named(text_model, "good")
    shelves.fill(target, good, shelves.signal(good))
    bad = shelves.named(text_model, "bad", where=str(tmp_path / "nowhere"))
    image = shelves.named(text_model, "of images", modality="image")
    odd = shelves.named(text_model, "odd")
    shelves.fill(target, odd, lambda rows: np.full((len(rows), shelves.WIDTH), np.nan, dtype=np.float32))
    alone = shelves.solved(target, [good], tmp_path / "alone", hs.Inventory(tmp_path / "a.db"))
    target = shelves.tickets()
    shelf = [bad, image, odd, good]
    among = shelves.solved(target, shelf, tmp_path / "among", hs.Inventory(tmp_path / "b.db"))
    same = ("verdict", "score", "gain", "sources", "candidate")
    assert {k: among.summary[k] for k in same} == {k: alone.summary[k] for k in same}
    assert among.verdict == "helps"
    for name in ("bad", "of images", "odd"):
        assert any(f"`{name}`" in w for w in among.receipt.warnings), name
    race = json.loads((tmp_path / "among" / "report.json").read_text())["race"]
    assert {r["name"] for r in race} == {"bad", "of images", "odd", "good"}
    assert {r["name"] for r in race if r["dropped"] is None} == {"good"}


def numbers(rows: int, seed: int = 0) -> pa.Table:
    rng = shelves.draws("numbers", seed)
    x = rng.normal(size=(rows, 3))
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "price": 3 * x[:, 0] - x[:, 1] + 0.1 * x[:, 2]})


def test_numbers_from_tables_without_sources(tmp_path: Path) -> None:
    both = numbers(100)
    target = hs.read_target(both.slice(0, 60), label="price", test=both.slice(60))
    result = shelves.solved(target, None, tmp_path / "out", hs.Inventory())
    _is_without_transfer(result)
    assert (result.summary["metric"], result.receipt.method) == ("rmse", "column_linear")
    assert result.summary["score"]["value"] < 0.2
    new = numbers(7, seed=1)
    found = hs.load(tmp_path / "out").predict(new.drop_columns(["price"]))
    assert found.classes == ()
    np.testing.assert_allclose(found.labels, new["price"].to_numpy(), atol=0.5)


def test_numbers_from_texts_with_a_source(tmp_path: Path, text_model: Source) -> None:
    both = shelves.texts(120)
    prices = shelves.draws("prices").normal(size=120)
    both = both.set_column(1, "label", pa.array(prices))
    target = hs.read_target(both.slice(0, 60), label="label", text="text", test=both.slice(60))
    source = shelves.named(text_model, "good")
    shelves.fill(target, source, shelves.signal(source, 10))
    result = shelves.solved(target, [source], tmp_path / "out", hs.Inventory())
    assert (result.verdict, result.summary["metric"]) == ("helps", "rmse")
    assert result.summary["gain"]["value"] > 0
    assert result.summary["score"]["value"] < min(
        b["value"] for b in result.summary["baselines"] if b["name"] == "majority"
    )
    assert all(isinstance(v, float) for v in result.predict(["the cat"]).labels)


def test_when_unsure_best_returns_the_candidate(tmp_path: Path, text_model: Source) -> None:
    target = shelves.tickets(seed=1)
    source = shelves.named(text_model, "noise")
    shelves.fill(target, source, shelves.noise(source))
    plain = shelves.solved(target, [source], tmp_path / "plain", hs.Inventory())
    assert (plain.verdict, plain.summary["returned"], plain.summary["sources"]) == ("no-evidence", "no-transfer", [])
    kept = hs.load(tmp_path / "plain" / "candidate")
    assert kept.summary["returned"] == "chosen"
    assert len(kept.predict(["a", "b"])) == 2
    best = shelves.solved(shelves.tickets(seed=1), [source], tmp_path / "best", hs.Inventory(), when_unsure="best")
    assert (best.verdict, best.summary["returned"], best.summary["sources"]) == ("no-evidence", "chosen", [source.id])
    assert best.predict(["a", "b"]).probabilities == kept.predict(["a", "b"]).probabilities
    assert best.summary["score"] == {k: plain.summary["candidate"][k] for k in ("value", "low", "high")}


def test_too_few_rows_are_refused_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="3 labelled rows are too few"):
        shelves.solved(shelves.tickets(3, 0), None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_test_row_proves_nothing(tmp_path: Path, text_model: Source) -> None:
    target = shelves.tickets(30, 1)
    source = shelves.named(text_model, "good")
    shelves.fill(target, source, shelves.signal(source, 9))
    result = shelves.solved(target, [source], tmp_path / "out")
    assert (result.verdict, result.summary["candidate"]["value"]) == ("no-evidence", 1.0)


def test_a_limit_that_leaves_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(OverBudget, match="bytes are written"):
        shelves.solved(shelves.tickets(20, 10), None, tmp_path / "out", budget=Budget(disk="1 KB"))


def test_sources_for_other_inputs_are_left_out_in_one_sentence(tmp_path: Path, image_model: Source) -> None:
    shelf = [shelves.named(image_model, f"eyes {n}") for n in range(7)]
    result = shelves.solved(shelves.tickets(), shelf, tmp_path / "out")
    told = [w for w in result.receipt.warnings if "left out" in w]
    assert told == [
        "7 sources were left out: for images, and the target has texts "
        "(`eyes 0`, `eyes 1`, `eyes 2`, `eyes 3`, `eyes 4` …)"
    ]
    assert not any("routes" in w for w in result.receipt.warnings)
