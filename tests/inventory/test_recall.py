"""Recall finds alike targets and what did well there, and only reorders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from headstart.core import Measured, Refused
from headstart.inventory import Inventory
from headstart.inventory.recall import Ended, Recalled, Tried, near, order, reference, similarity
from headstart.inventory.records import Run, Trial
from headstart.numerics.signatures import BLOCKS, SIGNATURE_VERSION, signature

from .shelves import a_source, a_target


class Texts:
    """Rows that are texts alone, as `core.Raw` has them."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.columns = None

    def __len__(self) -> int:
        return len(self.texts)

    def images(self, side: int) -> np.ndarray:
        raise AssertionError("texts have no images")


def sign(texts: list[str]) -> np.ndarray:
    return signature(Texts(texts), np.arange(len(texts)) % 2, "single_label", "text")  # type: ignore[arg-type]


BANK_A = [f"my card {n} was declined at the shop, please help me with the payment" for n in range(60)]
BANK_B = [f"the payment with my card did not arrive, please help, account {n}" for n in range(60)]
FAR = [f"перевозка грузов по железной дороге, накладная {n}" for n in range(60)]


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Inventory]:
    with Inventory(tmp_path / "bank.db") as opened:
        yield opened


def remember(bank: Inventory, name: str, texts: list[str], **valid: float) -> str:
    """A past target with one trial for each source."""
    target = a_target(name, train=texts[:40], test=texts[40:])
    bank.record_target(target, sign(texts))
    trials = [
        Trial(name=s, kind="adaptation.routes", method="lp_ft", source=s, valid=Measured(v, v, v, 40))
        for s, v in valid.items()
    ]
    bank.record_run(Run(id=name, target=target.fingerprint), trials=trials)
    return target.fingerprint


def test_the_nearest_target_comes_first_with_its_best_sources(bank: Inventory) -> None:
    far = remember(bank, "far", FAR, bad=0.9)
    close = remember(bank, "close", BANK_B, good=0.8, middling=0.6)
    found = bank.recall(sign(BANK_A), "single_label", "text")
    assert [one.target for one in found] == [close, far]
    assert found[0].near
    assert not found[1].near
    assert found[0].sources == (("good", 0.8), ("middling", 0.6))
    assert json.dumps([one.as_dict() for one in found])


def written_as(bank: Inventory, fingerprint: str, version: int, vector: np.ndarray) -> None:
    """As a headstart of another version would have kept it."""
    from headstart.inventory.tables import signatures

    with bank._database.writing() as connection:
        connection.execute(signatures.delete().where(signatures.c.fingerprint == fingerprint))
        row = {"fingerprint": fingerprint, "version": version, "vector": vector.astype("<f8").tobytes()}
        bank._database.insert_new(connection, signatures, [row])


def test_signatures_of_the_first_version_are_compared_by_what_they_hold(bank: Inventory) -> None:
    close, far = remember(bank, "close", BANK_B, good=0.8), remember(bank, "far", FAR, bad=0.9)
    first = 512 + 3  # n-grams and sizes
    for fingerprint, texts in ((close, BANK_B), (far, FAR)):
        written_as(bank, fingerprint, 1, sign(texts)[:first])
    found = bank.recall(sign(BANK_A), "single_label", "text")
    assert [(one.target, one.near) for one in found] == [(close, True), (far, False)]
    assert found[0].similarity == pytest.approx(similarity(sign(BANK_A)[:first], sign(BANK_B)[:first], "text"))
    known = bank.known(bank.transfers("lp_ft", "macro_f1").targets, a_target("now", train=BANK_A, test=[]))
    assert known.similarities is not None
    assert np.isfinite(known.similarities).all()


def test_a_later_signature_replaces_the_first_and_one_of_an_unknown_length_is_not_read(bank: Inventory) -> None:
    close, far = remember(bank, "close", BANK_B, good=0.8), remember(bank, "far", FAR, bad=0.9)
    written_as(bank, close, 1, sign(FAR)[: 512 + 3])
    bank.record_target(a_target("close", train=BANK_B[:40], test=BANK_B[40:]), sign(BANK_B))  # solved again
    written_as(bank, far, SIGNATURE_VERSION + 1, np.ones(5000))
    (found,) = bank.recall(sign(BANK_A), "single_label", "text")
    assert found.target == close
    assert found.similarity == pytest.approx(similarity(sign(BANK_A), sign(BANK_B), "text"))


def test_only_the_same_task_type_and_modality_is_recalled(bank: Inventory) -> None:
    remember(bank, "close", BANK_B, good=0.8)
    assert bank.recall(sign(BANK_A), "regression", "text") == []
    assert bank.recall(np.zeros(sum(BLOCKS["image"])), "single_label", "image") == []
    assert bank.recall(np.zeros(7), "single_label", "text") == []  # no signature of that length


def test_failed_trials_and_trials_without_a_source_are_not_recalled(bank: Inventory) -> None:
    target = remember(bank, "close", BANK_B, good=0.8)
    trials = [
        Trial(name="a", kind="adaptation.routes", method="lora", source="broken", status="failed"),
        Trial(name="b", kind="adaptation.baselines", method="tfidf", valid=Measured(0.99, 0.9, 1.0, 40)),
    ]
    bank.record_run(Run(id="second", target=target), trials=trials)
    assert bank.recall(sign(BANK_A), "single_label", "text")[0].sources == (("good", 0.8),)


def test_similar_shows_all_systems_and_how_runs_ended(bank: Inventory) -> None:
    fingerprint = remember(bank, "a", BANK_A, first=0.6, second=0.8)
    plain = Trial(name="majority", kind="adaptation.baselines", method="majority", valid=Measured(0.7, 0.6, 0.8, 40))
    lost = Trial(name="lost", kind="adaptation.routes", method="lora", source="s", status="failed")
    again = Trial(
        name="first", kind="adaptation.routes", method="lp_ft", source="first", valid=Measured(0.5, 0.1, 0.9, 9)
    )
    summary = {"candidate": {"name": "second", "value": 0.8, "low": 0.7, "high": 0.9}}
    bank.record_run(Run(id="b", target=fingerprint, verdict="helps", summary=summary), trials=[plain, lost, again])
    remember(bank, "far", FAR, first=0.9)
    near_one, far_one = bank.similar(a_target("new", train=BANK_B, test=[]))
    assert (near_one.target, near_one.near, far_one.near) == (fingerprint, True, False)
    assert near_one.systems == (
        Tried(name="second", value=0.8, low=0.8, high=0.8, rows=40),
        Tried(name="majority", value=0.7, low=0.6, high=0.8, rows=40),
        Tried(name="first", value=0.6, low=0.6, high=0.6, rows=40),
    ), "of two figures of one system, the best with its own interval"
    assert near_one.verdicts == (Ended(verdict="helps", of="second"), Ended(verdict=None, of=None)), "the latest first"
    assert near_one.similarity > far_one.similarity


def test_a_figure_without_an_interval_is_told_without(bank: Inventory) -> None:
    nan = float("nan")
    target = remember(bank, "a", BANK_A)
    bare = Trial(name="bare", kind="adaptation.routes", method="lora", source="s", valid=Measured(0.4, nan, nan, 40))
    bank.record_run(Run(id="b", target=target), trials=[bare])
    (one,) = bank.similar(a_target("new", train=BANK_B, test=[]))
    assert one.systems == (Tried(name="bare", value=0.4, low=None, high=None, rows=40),)


def test_order_reorders_and_excludes_nothing() -> None:
    shelf = [a_source(name) for name in ("a", "b", "c", "d")]
    by_name = {s.name: s.identity for s in shelf}
    past = Recalled(
        target="t", name="t", metric="macro_f1", similarity=0.9, near=True,
        sources=((by_name["c"], 0.8), (by_name["b"], 0.7), ("gone", 0.6)),
    )  # fmt: skip
    assert [s.name for s in order(shelf, [past])] == ["c", "b", "a", "d"]
    far = Recalled(target="t", name="t", metric="macro_f1", similarity=0.1, near=False, sources=past.sources)
    assert list(order(shelf, [far])) == list(order(shelf, [])) == shelf


@pytest.mark.parametrize("modality", list(BLOCKS))
def test_the_shipped_reference_fits_the_signatures(modality: str) -> None:
    table = reference(modality)
    assert table.mean.shape == table.scale.shape == (sum(BLOCKS[modality]),)
    assert np.all(table.scale > 0)
    assert 0 < table.near < 1
    other = table.mean + table.scale * np.random.default_rng(0).normal(size=table.mean.shape)
    assert similarity(other, other, modality) == pytest.approx(1.0)
    assert near(other, other, modality)


def test_a_modality_without_a_reference_is_refused() -> None:
    with pytest.raises(Refused, match="no signature"):
        reference("sound")


def test_the_snapshot_holds_what_was_recalled(bank: Inventory) -> None:
    good, other = a_source("good"), a_source("other")
    for source in (other, good):
        bank.add_source(source)
    remember(bank, "close", BANK_B, **{good.identity: 0.8})
    target = a_target("now", train=BANK_A[:40], test=BANK_A[40:])
    found = bank.snapshot(target, signature=sign(BANK_A))
    assert found["order"] == [good.id, other.id]
    assert found["recalled"][0]["sources"] == [[good.identity, 0.8]]
