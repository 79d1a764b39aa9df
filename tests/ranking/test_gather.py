"""The best few of a ranking: four classes of which each source sees one bit, and sources that cannot be asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, partialmethod
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headstart import execution
from headstart.core import METRICS, Budget, Columns, Refused, Rows, Seal, Source, Target, Task, Undeclared, Unfit
from headstart.execution import alone
from headstart.execution.candidates import Told
from headstart.execution.meter import Meter
from headstart.execution.parts import gained_out_of_fold, measured
from headstart.numerics.folds import folds_for
from headstart.ranking import by_kind, rank, rank_sets
from headstart.ranking.gather import Gathered
from headstart.ranking.sets.e_leep import ELEEP
from headstart.ranking.sets.ensemble_selection import EnsembleSelection
from headstart.testing.ranking_sets import subsets

Array = np.ndarray[Any, Any]
ROWS = 80
BITS = {"first": (0,), "second": (1,), "copy": (0,), "both": (0, 1), "blind": ()}


def source(name: str, base: str | None = "m", gives: Sequence[str] = ("features",), **more: Any) -> Source:
    return Source(
        name=name, kind="checkpoint", where=name, weights=name, identity=(name * 12)[:12], modality="table",
        gives=tuple(gives), base=base, facts={"width": 2}, **more,
    )  # fmt: skip


class Seer:
    """Stands for an opened source: a noisy look at some bits of the class, and sure of them by its head."""

    def __init__(self, name: str) -> None:
        self.name, self.bits = name, BITS[name]

    def backend(self, dtype: str) -> str:
        return f"test-{dtype}"

    def loaded(self, dtype: str) -> Seer:
        return self

    def features(self, inputs: pa.Table, dtype: str) -> Array:
        out = np.stack([inputs["n0"].to_numpy(), inputs["n1"].to_numpy()], axis=1).astype(np.float32)
        for bit in self.bits:
            out[:, bit] = 0.2 * out[:, bit] + 2 * inputs[f"b{bit}"].to_numpy() - 1
        return out

    def predictions(self, inputs: pa.Table) -> Array:
        if not self.bits:
            raise Refused("its head is broken", where="the head", fix="mend it")
        return np.eye(2)[inputs[f"b{self.bits[0]}"].to_numpy()] * 0.9 + 0.05

    def close(self) -> None: ...


def target(task: str = "single_label", rows: int = ROWS) -> Target:
    chance = np.random.default_rng(0)
    bits = np.arange(rows)[:, None] // np.array([1, 2]) % 2
    noise = chance.standard_normal((rows, 2))
    inputs = pa.table({f"{name}{j}": of[:, j] for name, of in (("b", bits), ("n", noise)) for j in (0, 1)})
    ids = tuple(f"id{i}" for i in range(rows))
    labels = bits @ np.array([1, 2]) if task == "single_label" else bits @ np.array([1.0, 1.0])
    return Target(
        name="t",
        task=Task(type="single_label", classes=tuple("abcd")) if task == "single_label" else Task(type="regression"),
        modality="table",
        metric=METRICS["accuracy" if task == "single_label" else "rmse"],
        columns=Columns(),
        labelled=Rows(ids, ids, ids, inputs, labels),
        unlabelled=Rows((), (), (), inputs.slice(0, 0)),
        folds=folds_for(labels, ids, 0, split=False),
        protocol="outer_cv",
        seal=Seal(lambda: pytest.fail("the seal was opened"), ids=(), content=(), groups=()),
        fingerprint="f",
    )


@pytest.fixture(autouse=True)
def jobs(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs run in this process; gives their verbs and names as they come."""
    from headstart.execution.run import Run

    @contextmanager
    def opened(one: Source) -> Iterator[Seer]:
        yield Seer(one.where)

    asked: list[str] = []
    do = Run.do

    def noted(self: Any, these: Any, stage: str, **more: Any) -> Any:
        asked.extend(f"{job.verb} {job.name}" for job in these)
        return do(self, these, stage, **more)

    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr("headstart.io.sources.opened", opened)
    monkeypatch.setattr(alone, "begin", partial(execution.begin, executor="in_process", show="none"))
    monkeypatch.setattr(Run, "do", noted)
    return asked


def gathered(sources: Sequence[Source], method: Any = "ensemble_selection", most: int = 3, **more: Any) -> Gathered:
    return rank_sets(target(), sources, Budget(), most, [method], estimators=(), **more)[1][0]


def test_sources_that_see_different_things_are_better_together(jobs: list[str]) -> None:
    found = gathered([source("first"), source("second"), source("copy")])
    assert {s.name for s in found.members} == {"first", "second"}, "the copy of what is there adds nothing"
    assert found.score is not None
    assert found.gain is not None
    assert found.best is not None
    assert found.score.value > 0.8
    assert found.gain.value > 0.2, "one bit of two is little more than a half"
    assert found.gain.low > 0
    assert (found.verdict, found.one_base, found.error) == ("helps", True, None)
    assert found.gains == pytest.approx(np.diff([0, *found.values]))
    assert sum(job.startswith("fit") for job in jobs) == 3, "the probes of the ranking are used"
    assert not any(job.startswith("tell") for job in jobs), "and nothing else is asked"


def test_the_logarithm_sees_no_gain_in_two_halves() -> None:
    """Each alone gives the label a half, and so does their average, which yet names it."""
    found = gathered([source("first"), source("second")], EnsembleSelection(loss="log"))
    assert len(found.members) == 1


def test_a_source_that_sees_all_stays_alone() -> None:
    found = gathered([source("blind", base=None), source("both", base=None)])
    assert [s.name for s in found.members] == ["both"]
    assert found.gain is not None
    assert found.gain.value == pytest.approx(0)
    assert (found.verdict, found.one_base) == ("no-evidence", False)


def test_the_score_is_that_of_sets_chosen_without_the_fold() -> None:
    """By brute force: for each fold all sets are scored on the other rows, and the best one predicts its rows."""
    from headstart.execution.alone import lone_part
    from headstart.ranking.gather import gather
    from headstart.ranking.racing import race

    names = ("first", "second", "blind")
    aim = target()
    with lone_part(aim, Budget(), None) as (run, part):
        ranked = race(part, [source(n) for n in names], run, ())
        found = gather(part, ranked, run, 2, EnsembleSelection(), exhaustively=True)
    assert aim.labelled.labels is not None
    tables = [r.probe.cells() for r in ranked if r.probe is not None]
    blended, y, of = np.zeros_like(tables[0]), aim.labelled.labels, np.array(aim.folds.of)
    for repeat, fold in aim.folds.cells():
        rest = of[repeat] != fold

        def loss(s: tuple[int, ...], rest: Array = rest) -> float:
            mean = np.mean([tables[i][0] for i in s], axis=0)
            return float(np.square(mean[rest] - np.eye(4)[y[rest]]).sum(axis=1).mean())

        best = min((s for s in subsets(3) if 0 < len(s) <= 2), key=loss)
        blended[repeat, ~rest] = np.mean([tables[i][repeat] for i in best], axis=0)[~rest]
    assert found.score == measured(aim, blended)
    assert found.gain == gained_out_of_fold(aim, blended, tables[0])


def test_what_a_method_reads_is_asked_of_each_source_once(jobs: list[str]) -> None:
    both = ("features", "predictions")
    shelf = [source("first", gives=both), source("second", gives=both), source("both"), source("blind", gives=both)]
    found = gathered(shelf, "e_leep")
    assert {j for j in jobs if j.startswith("tell")} == {
        f"tell predictions of {n}" for n in ("first", "second", "blind")
    }
    assert sum(job.startswith("tell") for job in jobs) == 3
    reasons = {source.name: problem.what for source, problem in found.left_out}
    assert reasons == {
        "both": "needs predictions, and `both` gives features only",
        "blind": "its head is broken",
    }
    assert {s.name for s in found.members} <= {"first", "second"}
    assert found.best is not None
    assert found.best.name == "both", "the best alone may be one that the method cannot judge"
    assert found.gain is not None
    assert found.gain.high < 0
    assert found.verdict == ("hurts" if len(found.members) > 1 else "no-evidence")


def test_rows_of_which_a_source_says_no_number_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    both, said = ("features", "predictions"), Seer.predictions

    def dumb(self: Seer, inputs: pa.Table, since: int) -> Array:
        told = said(self, inputs)
        if self.name == "second":
            told[since:] = np.nan
        return told

    shelf = [source("first", gives=both), source("second", gives=both)]
    monkeypatch.setattr(Seer, "predictions", partialmethod(dumb, since=ROWS // 2))
    half = gathered(shelf, "e_leep")
    assert half.error is None
    assert np.isfinite(half.values).all()
    monkeypatch.setattr(Seer, "predictions", partialmethod(dumb, since=0))
    none = gathered(shelf, "e_leep")
    assert none.error is not None
    assert "no row, or word, of which all 2 sources say something" in none.error.what


def test_nobody_to_judge_says_why() -> None:
    found = gathered([source("first"), source("second")], ELEEP())
    assert found.members == ()
    assert found.error is not None
    assert "`first`: needs predictions" in found.error.what
    assert (found.verdict, found.one_base) == ("no-evidence", False)


def test_two_sources_of_one_name_are_left_out_one_by_one() -> None:
    shelf = [source("blind", gives=("features", "predictions")), replace(source("blind"), identity="another" * 2)]
    found = gathered([source("first", gives=("features", "predictions")), *shelf], "e_leep")
    assert {(s.identity, problem.what) for s, problem in found.left_out} == {
        (shelf[0].identity, "its head is broken"),
        (shelf[1].identity, "needs predictions, and `blind` gives features only"),
    }


def test_no_row_that_all_were_scored_on_costs_the_set_alone() -> None:
    from headstart.execution.alone import lone_part
    from headstart.ranking.gather import gather
    from headstart.ranking.racing import race

    with lone_part(target(), Budget(), None) as (run, part):
        ranked = race(part, [source("first"), source("second")], run, ())
        for at, one in enumerate(ranked):
            assert one.probe is not None
            one.probe.cells()[:, at::2] = np.nan  # each has the rows that the other lacks
        found = gather(part, ranked, run, 2, EnsembleSelection())
    assert found.members == ()
    assert isinstance(found.error, Refused)
    assert "none was scored for all of 2 sources" in found.error.what


def test_a_target_that_no_fold_scores_is_refused_before_anything_is_done(jobs: list[str]) -> None:
    aim = target()
    unscored = replace(aim, folds=replace(aim.folds, of=tuple((-1,) * ROWS for _ in aim.folds.of)))
    with pytest.raises(Refused, match="no labelled row can be scored"):
        rank(unscored, [source("first")], Budget())
    assert not jobs


def test_a_racer_that_refuses_costs_its_source_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.ranking.estimators.ridge_probe import RidgeProbe

    seen = RidgeProbe.__call__

    def picky(self: RidgeProbe, view: Any) -> Any:
        if np.abs(view.features).max() > 1e6:
            raise Unfit("its features are huge", where="here", fix="scale them")
        return seen(self, view)

    monkeypatch.setattr(RidgeProbe, "__call__", picky)
    monkeypatch.setattr(Seer, "features", huge(Seer.features))
    good, bad = rank(target(rows=200), [source("copy"), source("first")], Budget(), ())  # enough for a race
    assert (good.name, bad.name) == ("first", "copy")
    assert bad.receipt is not None
    assert bad.receipt.facts["error"]["what"] == "its features are huge"


def huge(features: Any) -> Any:
    """What the source called `copy` sees, a thousand million times as large."""

    def larger(self: Seer, inputs: pa.Table, dtype: str) -> Array:
        return np.asarray(features(self, inputs, dtype) * (1e9 if self.name == "copy" else 1))

    return larger


def test_too_many_for_all_sets_costs_the_set_and_not_the_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.numerics.greedy.FEW", 1)
    two = [source("second"), source("both")]
    ranked, (found,) = rank_sets(target(), two, Budget(), 2, estimators=(), exhaustively=True)
    assert found.error is not None
    assert "2 candidates have 3 sets" in found.error.what
    assert [s.name for s in ranked] == [s.name for s in rank(target(), two, Budget(), ())] == ["both", "second"]


@pytest.mark.parametrize("end", ["interrupt", "time"])
def test_what_comes_before_a_set_is_chosen_costs_that_set_alone(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the choice of the second of three sets; the ranking and the first set are whole."""
    one, slow, last = EnsembleSelection(), EnsembleSelection(loss="log"), EnsembleSelection()
    loss = EnsembleSelection._loss

    def cut(self: EnsembleSelection, *given: Any) -> float:
        if self is slow and end == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        elif self is slow:
            monkeypatch.setattr(Meter, "remaining", lambda self: 0.0)
        looked.append(self)
        return loss(self, *given)

    looked: list[EnsembleSelection] = []
    monkeypatch.setattr(EnsembleSelection, "_loss", cut)
    sources = [source("first"), source("second"), source("blind")]
    ranked, found = rank_sets(target(), sources, Budget(minutes=9), 2, [one, slow, last], estimators=())
    assert all(s.receipt is not None and s.receipt.scores and s.receipt.facts["certainty"] for s in ranked)
    assert [(f.stopped, len(f.members)) for f in found] == [(None, 2), (end, 0), (end, 0)]
    assert sum(self is slow for self in looked) == 1, "the search goes on after it was stopped"
    assert not any(self is last for self in looked)


def test_ctrl_c_while_sources_are_asked_leaves_the_ranking(jobs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told = Seer.predictions

    def cut(self: Seer, inputs: pa.Table) -> Array:
        os.kill(os.getpid(), signal.SIGINT)
        return told(self, inputs)

    monkeypatch.setattr(Seer, "predictions", cut)
    shelf = [source(name, gives=("features", "predictions")) for name in ("first", "second", "copy")]
    ranked, (found,) = rank_sets(target(), shelf, Budget(), 2, ["e_leep"], estimators=())
    assert (found.stopped, found.members, found.left_out) == ("interrupt", (), ())
    assert found.error is not None
    assert "Ctrl-C came first" in found.error.what
    assert all(s.receipt is not None and s.receipt.scores for s in ranked)


def test_regression_is_gathered_too() -> None:
    sources = [source("first"), source("second")]
    (found,) = rank_sets(target("regression"), sources, Budget(), 2, estimators=())[1]
    assert len(found.members) == 2
    assert found.gain is not None
    assert found.gain.value > 0, "a smaller error is a gain"


def test_what_cannot_work_is_refused_before_anything_is_done(jobs: list[str]) -> None:
    with pytest.raises(Refused, match="e_leep"):
        rank_sets(target("regression"), [source("first")], Budget(), 2, ["e_leep"])
    with pytest.raises(Unfit, match="a set of 1"):
        rank_sets(target(), [source("first")], Budget(), 1)
    assert not jobs


def test_names_of_two_kinds_are_told_apart() -> None:
    assert by_kind(["nmc", "e-leep", "osborn"], 3) == (("nmc",), ("e_leep", "osborn"))
    assert by_kind(["leep"], 3) == (("leep",), ("ensemble_selection",))
    assert by_kind([], None)[1] == ()
    with pytest.raises(Unfit, match="--sets 3") as caught:
        by_kind(["osborn"], None)
    assert "no size" in caught.value.what
    for wrong, near in (("osbron", "osborn"), ("logmee", "logme")):
        with pytest.raises(Unfit) as caught:
            by_kind([wrong], 3)
        assert near in caught.value.fix


def test_a_candidate_shows_only_what_is_declared() -> None:
    rows = np.arange(3)
    told = Told(
        needs=replace(EnsembleSelection.needs, labels=False), method="m", task="single_label", classes=2, rows=rows,
        known=rows, dealt=rows, scored=np.arange(6.0).reshape(3, 2),
    )  # fmt: skip
    assert told.among(rows[1:]).table.tolist() == [[2, 3], [4, 5]]
    for name in ("labels", "features", "moments", "predictions", "own"):
        with pytest.raises(Undeclared, match=name):
            getattr(told, name)
