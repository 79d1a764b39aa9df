"""The journey from end to end, on shelves that are built in seconds; the receipt compared with a stored one."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest

import headstart as hs
from headstart.core import Source
from journey import shelves

SPAN = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("value", "low", "high")},
    "required": ["value", "low", "high"],
}
NAMED = {**SPAN, "required": [*SPAN["required"], "name"]}
JUDGED = {**SPAN, "required": [*SPAN["required"], "verdict"]}
SUMMARY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["helps", "no-evidence", "hurts", None]},
        "returned": {"enum": ["chosen", "no-transfer"]},
        "metric": {"type": "string"},
        "protocol": {"enum": ["outer_cv", "holdout", "user_test", "time"]},
        "score": {"oneOf": [SPAN, {"type": "null"}]},
        "candidate": {"oneOf": [NAMED, {"type": "null"}]},
        "gain": {"oneOf": [JUDGED, {"type": "null"}]},
        "choice_gain": {"oneOf": [JUDGED, {"type": "null"}]},
        "baselines": {"type": "array", "items": NAMED},
        "sources": {"type": "array", "items": {"type": "string"}},
        "seconds": {"type": "number"},
        "time_bound": {"type": "boolean"},
        "out": {"type": "string"},
    },
}
SUMMARY["required"] = list(SUMMARY["properties"])


@pytest.fixture
def shelf(text_model: Source) -> list[Source]:
    """Two that know nothing, and between them one that knows much."""
    return [shelves.named(text_model, name) for name in ("useless", "good", "vain")]


def filled(target: hs.Target, shelf: list[Source]) -> hs.Target:
    for source in shelf:
        shelves.fill(target, source, (shelves.signal if source.name == "good" else shelves.noise)(source))
    return target


def test_a_shelf_with_one_good_source(tmp_path: Path, shelf: list[Source], monkeypatch: pytest.MonkeyPatch) -> None:
    shelves.cheap_baselines(monkeypatch, "word_char_tfidf")
    bank = hs.Inventory()
    target = filled(shelves.tickets(told=0.3), shelf)
    result = shelves.solved(target, shelf, tmp_path / "out", bank, asked={"minutes": None, "command": "solve it"})

    summary = dict(result.summary)
    jsonschema.validate(summary, SUMMARY)
    assert (result.verdict, summary["returned"], summary["sources"]) == ("helps", "chosen", [shelf[1].id])
    assert summary["gain"]["opponent"] == "word_char_tfidf"
    assert {b["name"] for b in summary["baselines"]} >= {"majority", "word_char_tfidf"}
    _equals_the_stored_receipt(result)

    saved = hs.load(tmp_path / "out")
    assert saved.receipt == result.receipt
    found = saved.predict(["the cat sat on the mat", "an old house"])
    assert found.classes == ("class 0", "class 1")
    np.testing.assert_allclose(np.sum(found.probabilities, axis=1), 1)
    for name in ("report.html", "README.md", "predictions.parquet", "rows.json", "run/journal.jsonl"):
        assert (tmp_path / "out" / name).is_file(), name
    _bank_has_learned(bank, result, shelf)


def _equals_the_stored_receipt(result: hs.Result) -> None:
    """Steps, methods and verdict exactly; figures within the stored interval."""
    receipt = json.loads(result.receipt.json())
    stored = json.loads((Path(__file__).parent / "golden.json").read_text())
    for name in ("step", "method", "settings", "inputs", "seeds", "protocol", "warnings", "version"):
        assert receipt[name] == stored[name], name
    facts = ("verdict", "returned", "members")
    assert {k: receipt["facts"][k] for k in facts} == {k: stored["facts"][k] for k in facts}
    assert set(receipt["facts"]["stages"]) == set(stored["facts"]["stages"])
    pairs = [(receipt["scores"]["macro_f1"], stored["scores"]["macro_f1"])]
    pairs += [(receipt["facts"][k], stored["facts"][k]) for k in ("gain", "choice_gain")]
    for mine, theirs in pairs:
        assert theirs["low"] <= mine["value"] <= theirs["high"]
    assert receipt["threads"] == 1
    assert receipt["seconds"] > 0
    assert set(receipt["versions"]) >= {"numpy", "scikit-learn", "torch", "transformers", "system", "python"}


def _bank_has_learned(bank: hs.Inventory, result: hs.Result, shelf: list[Source]) -> None:
    (run,) = bank.runs()
    assert (run["verdict"], run["status"]) == ("helps", "done")
    with sqlite3.connect(str(bank.file)) as tables:
        trials = tables.execute("select method, source, status, valid from trials").fetchall()
        proxies = tables.execute("select distinct source from scores").fetchall()
        openings = tables.execute("select count(*) from openings").fetchall()
    known = {s.identity for s in shelf}
    assert {t[:3] for t in trials} == {
        ("majority", None, "done"),
        ("word_char_tfidf", None, "done"),
        *(("linear_probe", identity, "done") for identity in known),
    }
    assert all(0 <= valid <= 1 for *_, valid in trials)
    assert {identity for (identity,) in proxies} == known
    assert openings == [(1,)]
    (new,) = bank.sources("text")
    assert new.where.startswith(result.where)
    assert new.trained_on is not None
    assert len(new.trained_on) == 60


@pytest.mark.slow
def test_a_good_source_helps_in_outer_cross_validation(tmp_path: Path, shelf: list[Source]) -> None:
    target = filled(shelves.tickets(100, 0, told=0.3), shelf)
    result = shelves.solved(target, shelf, tmp_path / "out", hs.Inventory())
    jsonschema.validate(dict(result.summary), SUMMARY)
    assert (result.verdict, result.summary["protocol"]) == ("helps", "outer_cv")
    assert len(pq.read_table(tmp_path / "out" / "predictions.parquet")) == 100
    notes = [line["facts"] for line in shelves.journal(tmp_path / "out") if line["event"] == "note"]
    assert {"rows": 100} in [{"rows": n.get("rows")} for n in notes]
