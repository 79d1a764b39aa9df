"""A source that was trained on test rows: few of them are scored for nobody, many of them and it cannot win."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import headstart as hs
from headstart.core import Source, Target
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")


def seen(base: Source, target: Target, name: str, rows: int) -> Source:
    """A source with good features that was trained on so many of the rows that will be tested."""
    tested = target.seal.content or target.labelled.content
    source = shelves.named(base, name, trained_on=frozenset([*tested[:rows], "of another table"]))
    return shelves.fill(target, source, shelves.signal(source, 6.0))


def cards(out: Path) -> dict[str, str]:
    return {s["name"]: s["trained_on"] for s in json.loads((out / "report.json").read_text())["sources"]}


@pytest.mark.parametrize("banked", [True, False])
def test_a_contaminated_source_cannot_win(tmp_path: Path, text_model: Source, banked: bool) -> None:
    target = shelves.tickets(40, 60)
    cheat = seen(text_model, target, "cheat", 4)  # of 60: more than 5 %
    honest = shelves.named(text_model, "honest", trained_on=frozenset())
    shelves.fill(target, honest, shelves.signal(honest))
    bank = hs.Inventory() if banked else None
    result = shelves.solved(target, [cheat, honest], tmp_path / "out", bank)
    assert (result.verdict, result.summary["sources"]) == ("helps", [honest.id])
    assert result.summary["choice_gain"]["opponent"] == "linear_probe of honest"
    assert any("`cheat`" in w and "cannot win" in w for w in result.receipt.warnings)
    assert len(pq.read_table(tmp_path / "out" / "predictions.parquet")) == 60
    assert not any("cheat" in str(b["name"]) for b in result.summary["baselines"])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert any("4 of 60 test rows" in w for w in report["warnings"])
    alone = shelves.solved(shelves.tickets(40, 60), [cheat], tmp_path / "alone", bank)
    assert (alone.verdict, alone.summary["returned"], alone.summary["gain"]) == ("no-evidence", "no-transfer", None)


def test_few_rows_are_left_out_for_all(tmp_path: Path, text_model: Source) -> None:
    target = shelves.tickets(40, 60)
    source = seen(text_model, target, "careless", 3)  # of 60: 5 %
    result = shelves.solved(target, [source], tmp_path / "out", hs.Inventory())
    assert (result.verdict, result.summary["sources"]) == ("helps", [source.id])
    kept = pq.read_table(tmp_path / "out" / "predictions.parquet")["id"].to_pylist()
    assert len(kept) == 57
    assert not set(kept) & source.trained_on
    assert any("3 of 60 test rows" in w and "left out" in w for w in result.receipt.warnings)
    assert result.receipt.scores["macro_f1"].rows == 57
    assert "left out of scoring" in cards(tmp_path / "out")["careless"]


def test_unknown_is_not_clean(tmp_path: Path, text_model: Source) -> None:
    target = shelves.tickets(40, 30)
    clean = shelves.named(text_model, "clean", trained_on=frozenset({"of another table"}))
    mute = shelves.named(text_model, "mute")
    for source in (clean, mute):
        shelves.fill(target, source, shelves.noise(source))
    shelves.solved(target, [clean, mute], tmp_path / "out", hs.Inventory())
    told = cards(tmp_path / "out")
    assert "trained on none of these rows" in told["clean"]
    assert "not all known" in told["mute"]


def test_a_result_that_saw_the_test_cannot_win_the_next_time(tmp_path: Path, text_model: Source) -> None:
    """Train on what is tested later: the bank knows, though the folder was moved through the world."""
    bank = hs.Inventory()
    both = shelves.texts(100)
    given = {"label": "label", "text": "text", "name": "tickets"}
    target = hs.read_target(both.slice(40), **given, test=both.slice(0, 40))
    source = shelves.named(text_model, "good")
    shelves.fill(target, source, shelves.signal(source))
    first = shelves.solved(target, [source], tmp_path / "first", bank)
    assert first.summary["returned"] == "chosen"
    (learned,) = bank.sources("text")
    assert learned.trained_on == frozenset(target.labelled.content)
    later = hs.read_target(both.slice(0, 40), **given, test=both.slice(40))
    second = shelves.solved(later, None, tmp_path / "second", bank)  # the bank's own sources
    assert any("cannot win" in w for w in second.receipt.warnings)
    assert second.summary["candidate"] is None


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "wins"), [(20, True), (30, False)])
def test_under_outer_folds_a_hundred_rows_must_remain(
    tmp_path: Path, text_model: Source, rows: int, wins: bool
) -> None:
    target = shelves.tickets(125, 0)
    source = seen(text_model, target, "seen", rows)
    result = shelves.solved(target, [source], tmp_path / "out", hs.Inventory())
    assert (result.summary["sources"] == [source.id]) is wins
    assert len(pq.read_table(tmp_path / "out" / "predictions.parquet")) == (105 if wins else 125)
