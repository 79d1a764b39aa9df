"""The verb: sources in recalled order, with receipts that say what is known, and nothing left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import tiny_models
from headstart.core import Budget, Known, Measured, OverBudget, Receipt, Refused, Source, Target, Unfit
from headstart.inspection import read_unlabelled
from headstart.inventory import Inventory
from headstart.inventory.records import Run, Trial
from headstart.numerics.records import tabulated
from headstart.recall import recall
from inventory.shelves import a_source, a_target

CARDS = [f"my card {n} was declined at the shop, please help me with the payment" for n in range(60)]
FREIGHT = [f"перевозка грузов по железной дороге, накладная {n}" for n in range(60)]
SHELF = [a_source(name) for name in ("new", "freight", "cards", "fair")]


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Inventory]:
    with Inventory(tmp_path / "bank.db") as opened:
        yield opened


def remember(bank: Inventory, name: str, texts: list[str], **valid: float) -> Target:
    """A past target with one probe for each source."""
    from headstart.inventory.recall import signature_of

    target = a_target(name, train=texts[:40], test=texts[40:])
    bank.record_target(target, signature_of(target))
    trials = [
        Trial(
            name=s, kind="adaptation.routes", method="linear_probe", source=a_source(s).identity,
            valid=Measured(v, v, v, 40),
        )
        for s, v in valid.items()
    ]  # fmt: skip
    bank.record_run(Run(id=name, target=target.fingerprint), trials=trials)
    return target


def names(found: tuple[Source, ...]) -> list[str]:
    return [source.name for source in found]


def test_what_did_well_on_alike_targets_comes_first_and_the_unknown_last(bank: Inventory) -> None:
    remember(bank, "bank", CARDS, cards=0.9, fair=0.8, freight=0.3)
    remember(bank, "rail", FREIGHT, freight=0.9, fair=0.8, cards=0.3)
    for start, best in (("say again: ", "cards"), ("еще раз: ", "freight")):
        texts = [start + text for text in (CARDS if best == "cards" else FREIGHT)]
        target = a_target("next", train=texts[:40], test=texts[40:])
        found = recall(target, SHELF, Budget(), inventory=bank)
        assert names(found)[0] == best
        assert names(found)[-1] == "new"
        receipts = {s.name: s.receipt for s in found if s.receipt is not None}
        assert receipts[best].method == "nearest_tasks"
        assert receipts[best].facts["runs"] == 2
        assert receipts[best].facts["value"] > receipts["fair"].facts["value"]
        assert receipts["new"].facts["value"] is None
        assert receipts[best].warnings == ()
        assert Receipt.from_dict(json.loads(receipts[best].json())) == receipts[best]


def test_a_targets_own_figures_are_read_and_no_past_target_is_itself(bank: Inventory) -> None:
    target = remember(bank, "bank", CARDS, cards=0.9, fair=0.8, freight=0.3)
    with pytest.raises(Refused, match="records of `bank` alone"):
        recall(target, SHELF, Budget(), inventory=bank)
    remember(bank, "rail", FREIGHT, freight=0.9, fair=0.8, cards=0.3)
    assert names(recall(target, SHELF, Budget(), "transfer_matrix", inventory=bank))[-1] == "new"
    assert names(recall(target, SHELF, Budget(), "portfolio", inventory=bank))[0] == "freight"


def test_imported_records_are_asked_for_and_know_sources_by_name(bank: Inventory) -> None:
    target = a_target("next", train=["a", "b"], test=["c"])
    past = tabulated(
        [("x", "cards", None, 0.9), ("x", "fair", None, 0.5), ("y", "cards", None, 0.7), ("y", "fair", None, 0.8)],
        tests=["x"],
    )
    past = replace(past, mixed=("epochs", "lr"))
    found = recall(target, SHELF, Budget(), inventory=bank, records=past, known=Known(np.array([0.9, 0.0])))
    assert names(found) == ["cards", "fair", "new", "freight"]
    assert found[0].receipt is not None
    assert "1 of 2 past targets" in found[0].receipt.warnings[0]
    assert "differ in epochs, lr;" in found[0].receipt.warnings[1]
    with pytest.raises(Unfit, match="similarities"):
        recall(target, SHELF, Budget(), inventory=bank, records=past, known=Known(np.zeros(3)))
    with pytest.raises(Refused, match="none of the 1 sources"):
        recall(target, SHELF[:1], Budget(), inventory=bank, records=past, known=Known())
    with pytest.raises(OverBudget):
        recall(target, SHELF, Budget(memory=10), inventory=bank, records=past, known=Known())


def test_an_empty_bank_says_so(bank: Inventory) -> None:
    with pytest.raises(Refused, match="no record of `linear_probe`"):
        recall(a_target("next", train=["a", "b"], test=["c"]), SHELF, Budget(), inventory=bank)


def test_know2vec_reads_what_sources_decided_and_asks_none_for_the_target(bank: Inventory) -> None:
    """Black boxes that answer whether a text holds one of some words; good are those that look for cats."""
    boxes = [(word,) for word in tiny_models.WORDS] + [("cat", word) for word in tiny_models.WORDS[5:]]
    asked = []

    def box(words: tuple[str, ...]) -> Callable[[pa.Table], np.ndarray]:
        def answer(inputs: pa.Table) -> np.ndarray:
            asked.append(words)
            return np.array([bool({*words} & {*text.split()}) for text in inputs["text"].to_pylist()])

        return answer

    probes = read_unlabelled(tiny_models.texts(200, longest=9))
    bank.ask([], probes, {" or ".join(words): box(words) for words in boxes})
    sources, chance = [a_source(" or ".join(words)) for words in boxes], np.random.default_rng(0)
    runs = [(f"t{t}", s.name, None, float("cat" in s.name) + chance.normal(0, 1.0)) for t in range(6) for s in sources]
    target, past = a_target("new", train=["a", "b"], test=["c"]), tabulated(runs)
    found = recall(target, sources, Budget(), "know2vec", inventory=bank, records=past)
    cats = sum("cat" in source.name for source in sources)
    assert np.mean(["cat" in source.name for source in found[:cats]]) > 0.9
    assert found[0].receipt is not None
    assert found[0].receipt.facts["of_all"]["models"] == len(boxes)
    bank.ask([], probes, {"tom": box(("cat",))})
    again = recall(target, [*sources, a_source("tom")], Budget(), "know2vec", inventory=bank, records=past)
    facts = {source.name: source.receipt.facts for source in again if source.receipt is not None}
    assert facts["tom"]["value"] == pytest.approx(facts["cat"]["value"], abs=1e-3)  # it decides alike, untried
    assert (facts["tom"]["targets"], facts["tom"]["runs"]) == (0, 0)
    assert len(asked) == len(boxes) + 1  # each once
    wrong = Known(vectors=np.zeros((3, 8)))
    with pytest.raises(Unfit, match="`vectors` has the shape"):
        recall(target, sources, Budget(), inventory=bank, records=past, known=wrong)
