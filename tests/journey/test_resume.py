"""A run goes on only as what it was: the same data, shelf, settings and version; and never to choose after the seal."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.core import Budget, Refused, Source
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def shelf(text_model: Source) -> list[Source]:
    target = shelves.tickets(40, 30)
    made = [shelves.named(text_model, name) for name in ("good", "vain")]
    for source in made:
        shelves.fill(target, source, (shelves.signal if source.name == "good" else shelves.noise)(source))
    return made


def begun(out: Path, shelf: list[Source], at: str = "journal.barrier.after", **more: Any) -> None:
    """A run that ends at its first event of this name."""

    def crash(name: str) -> None:
        if name == at:
            raise Crash

    with pytest.raises(Crash):
        shelves.solved(shelves.tickets(40, 30), shelf, out, hook=crash, **more)


def test_a_begun_run_needs_resume_or_overwrite(tmp_path: Path, shelf: list[Source]) -> None:
    begun(tmp_path / "out", shelf)
    with pytest.raises(Refused, match="begun before"):
        shelves.solved(shelves.tickets(40, 30), shelf, tmp_path / "out")
    result = shelves.solved(shelves.tickets(40, 30), shelf[:1], tmp_path / "out", overwrite=True)
    assert result.verdict == "helps"
    with pytest.raises(Refused, match="overwrite"):
        shelves.solved(shelves.tickets(40, 30), shelf, tmp_path / "out")


def test_what_changed_is_named(tmp_path: Path, shelf: list[Source], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    begun(out, shelf)
    before = shelves.journal(out)

    def refused(what: str, target: hs.Target | None = None, sources: list[Source] = shelf, **more: Any) -> None:
        with pytest.raises(Refused) as raised:
            shelves.solved(target or shelves.tickets(40, 30), sources, out, resume=True, **more)
        assert what in raised.value.what, raised.value.what
        assert "--overwrite" in raised.value.fix

    refused("`target`", shelves.tickets(40, 30, seed=5))
    both = shelves.texts(70)
    relabelled = both.set_column(1, "label", both["label"].take(shelves.pa.array([1, 0, *range(2, 70)])))
    given = {"label": "label", "text": "text", "name": "tickets"}
    if both["label"][0] != both["label"][1]:
        refused("`target`", hs.read_target(relabelled.slice(0, 40), **given, test=both.slice(40)))
    refused('`settings.metric` (was "macro_f1", is "accuracy")', shelves.tickets(40, 30, metric="accuracy"))
    refused("`shelf`", sources=shelf[:1], budget=Budget(trials=2))
    refused("`shelf`", sources=[shelves.named(shelf[0], "other"), shelf[1]])
    refused("`settings.seed` (was 0, is 1)", seed=1)
    refused("`settings.trials` (was 2, is 3)", budget=Budget(trials=3))
    refused("`settings.when_unsure`", when_unsure="best")
    with monkeypatch.context() as patch:
        patch.setattr("headstart.__version__", "9.9")
        refused('`version` (was "0.1.0", is "9.9")')
    assert shelves.journal(out) == before
    assert shelves.solved(shelves.tickets(40, 30), shelf, out, resume=True).verdict == "helps"


def test_more_minutes_after_the_seal_are_refused(tmp_path: Path, shelf: list[Source]) -> None:
    """Choosing could go on with them, and the test rows were read."""
    out = tmp_path / "out"
    minutes = {"budget": Budget(trials=2, minutes=5)}
    begun(out, shelf, at="journal.note.after", **minutes)  # of the outer folds, or the seal
    names = [line.get("name") for line in shelves.journal(out)]
    if "seal opened" not in names:
        pytest.fail(f"the first note was {names}")
    for more in (Budget(trials=2, minutes=6), Budget(trials=2)):
        with pytest.raises(Refused, match="more minutes"):
            shelves.solved(shelves.tickets(40, 30), shelf, out, resume=True, budget=more)
    result = shelves.solved(shelves.tickets(40, 30), shelf, out, resume=True, **minutes)
    assert result.verdict == "helps"
    with pytest.raises(Refused, match="more minutes"):
        shelves.solved(shelves.tickets(40, 30), shelf, out, resume=True, budget=Budget(trials=2, minutes=6))


def test_a_spent_budget_leaves_the_test_sealed_and_more_minutes_go_on(tmp_path: Path, shelf: list[Source]) -> None:
    out, bank, target = tmp_path / "out", hs.Inventory(), shelves.tickets(40, 30)
    result = shelves.solved(target, shelf, out, bank, budget=Budget(trials=2, minutes=0.001))
    assert (result.verdict, result.summary["returned"], result.summary["time_bound"]) == (None, "no-transfer", True)
    assert target.seal.opened == 0
    assert [run["status"] for run in bank.runs()] == ["cut"]
    assert len(hs.load(out).predict(["the cat"])) == 1
    again = shelves.solved(shelves.tickets(40, 30), shelf, out, bank, resume=True, budget=Budget(trials=2, minutes=5))
    assert (again.verdict, again.summary["returned"], again.summary["time_bound"]) == ("helps", "chosen", False)
    assert hs.load(out).verdict == "helps"
    assert [(run["status"], run["verdict"]) for run in bank.runs()] == [("done", "helps")]


def test_a_finished_run_is_saved_again_without_work(tmp_path: Path, shelf: list[Source]) -> None:
    out = tmp_path / "out"
    first = shelves.solved(shelves.tickets(40, 30), shelf, out)
    ends = [line for line in shelves.journal(out) if line["event"] == "finished"]
    (out / "headstart.json").unlink()  # a folder that someone damaged
    second = shelves.solved(shelves.tickets(40, 30), shelf, out, resume=True)
    assert [line for line in shelves.journal(out) if line["event"] == "finished"] == ends
    same = ("verdict", "score", "gain", "choice_gain", "baselines", "sources")
    assert {k: second.summary[k] for k in same} == {k: first.summary[k] for k in same}


def test_what_a_run_added_to_the_bank_does_not_change_its_shelf(tmp_path: Path, shelf: list[Source]) -> None:
    bank = hs.Inventory()
    bank.add_source(shelf[0])
    first = shelves.solved(shelves.tickets(40, 30), None, tmp_path / "out", bank, budget=Budget(trials=1))
    assert (first.verdict, len(bank.sources())) == ("helps", 2)
    again = shelves.solved(shelves.tickets(40, 30), None, tmp_path / "out", bank, budget=Budget(trials=1), resume=True)
    assert again.summary["score"] == first.summary["score"]


def test_a_result_whose_run_is_gone_is_not_replaced_by_resume(tmp_path: Path, shelf: list[Source]) -> None:
    out = tmp_path / "out"
    shelves.solved(shelves.tickets(40, 30), shelf, out)
    shutil.rmtree(out / "run")
    with pytest.raises(Refused, match="holds something already"):
        shelves.solved(shelves.tickets(40, 30), shelf, out, resume=True)
