"""Rows that sources learned from reach the methods that read them: OSBORN's terms by a linear programme."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headstart import execution
from headstart.core import Budget, Problem, Refused, Rows, Seal, Source, Target, Task, Unfit
from headstart.execution import alone
from headstart.ranking import rank_sets
from headstart.ranking.gather import Gathered
from headstart.ranking.own_rows import own_rows
from headstart.ranking.sets.consistency_diversity import ConsistencyDiversity
from headstart.ranking.sets.osborn import OSBORN
from ranking.sets.test_osborn import joint_of, remaining, transported
from ranking.test_gather import ROWS, Seer, source, target

Array = np.ndarray[Any, Any]
GIVES = ("features", "predictions")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process, and no file is waited for."""

    @contextmanager
    def opened(one: Source) -> Iterator[Seer]:
        yield Seer(one.where)

    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setattr("headstart.io.sources.opened", opened)
    monkeypatch.setattr(alone, "begin", partial(execution.begin, executor="in_process", show="none"))


def dataset(name: str, rows: int = ROWS // 2, sealed: int = 0, **more: Any) -> Target:
    """Rows that a source learned from: two classes, by one bit; the last of them put aside as a test."""
    chance = np.random.default_rng(len(name))
    bits, noise = chance.integers(0, 2, (rows, 2)), 3 + chance.standard_normal((rows, 2))
    inputs = pa.table({f"{kind}{j}": of[:, j] for kind, of in (("b", bits), ("n", noise)) for j in (0, 1)})
    ids = tuple(f"{name}{i}" for i in range(rows))
    every, kept = Rows(ids, ids, ids, inputs, bits[:, 0]), rows - sealed
    test = every.take(range(kept, rows))
    made = replace(
        target(),
        name=name,
        task=Task(type="single_label", classes=("no", "yes")),
        labelled=every.take(range(kept)),
        seal=Seal(lambda: test, ids=test.ids, content=test.content, groups=test.groups),
        fingerprint=name,
    )
    return replace(made, **more)


def every(one: Target) -> tuple[pa.Table, Array]:
    """Inputs and labels, those of the test too."""
    again = dataset(one.name)
    assert again.labelled.labels is not None
    return again.labelled.inputs, again.labelled.labels


def chosen(method: Any, datasets: list[Target], *names: str, **more: Any) -> Gathered:
    shelf = [source(name, gives=GIVES) for name in names]
    (found,) = rank_sets(target(), shelf, Budget(), 2, [method], estimators=(), datasets=datasets, **more)[1]
    return found


@pytest.mark.parametrize("sealed", [0, 9])
def test_the_terms_of_osborn_are_those_of_all_rows_of_the_data_set(sealed: int) -> None:
    """Of one source alone, so that its value is the term: rows of target and source once and twice, which is exact."""
    for method in (OSBORN(task=0.0, rows=ROWS), OSBORN(domain=0.0, rows=ROWS), OSBORN(rows=ROWS)):
        found = chosen(method, [dataset("first", sealed=sealed)], "first")
        (value,) = found.values
        inputs, names = every(dataset("first"))
        here, aim = Seer("first"), target()
        away, coupling = transported(
            here.features(aim.labelled.inputs, "").astype(float), here.features(inputs, "").astype(float)
        )
        assert aim.labelled.labels is not None
        told = 1 - remaining(joint_of(aim.labelled.labels, names, coupling))
        assert value == pytest.approx(method.task * told - method.domain * away, abs=1e-5)
        ((of, rows),) = found.own_rows
        assert (of.name, rows) == ("first", ROWS // 2)


def test_without_them_the_heads_doubt_stands_for_the_distance() -> None:
    shelf = [source("first", gives=GIVES)]
    (found,) = rank_sets(target(), shelf, Budget(), 2, [OSBORN(task=0.0)], estimators=())[1]
    doubt = -(0.95 * np.log(0.95) + 0.05 * np.log(0.05)) / np.log(2)
    assert found.values == pytest.approx([-doubt])
    ((_, why),) = found.own_rows
    assert isinstance(why, Problem)
    assert "no data sets were given" in why.what
    assert "--datasets" in why.fix


def test_one_that_learned_from_rows_that_point_elsewhere_covers_nothing() -> None:
    """The mean features of the rows of `first` point where the target's do not; with the threshold down it may stay."""
    mean = Seer("first").features(target().labelled.inputs, "").mean(axis=0).astype(float)
    there, still = dataset("first"), np.zeros(ROWS // 2)
    columns = {"b0": still + (1 - 1e3 * mean[0]) / 2, "b1": still, "n0": still, "n1": still - 1e3 * mean[1]}
    away = replace(there, labelled=replace(there.labelled, inputs=pa.table(columns)))
    both = chosen(ConsistencyDiversity(), [away], "first", "second")
    assert [s.name for s in both.members] == ["second"]
    assert len(chosen(ConsistencyDiversity(consistency=-1.0), [away], "first", "second").members) == 2


def test_a_data_set_is_read_once_for_all_methods_and_layers() -> None:
    """Its seal opens once."""
    methods = [OSBORN(), ConsistencyDiversity()]
    tap = {"of": "first", "layer": 2, "pooling": "cls"}
    layer = replace(source("first@2:cls", gives=GIVES), where="first", facts={"width": 2, "tap": tap})
    shelf = [source("first", gives=GIVES), layer, source("second", gives=GIVES)]
    given = [dataset("first", sealed=5)]
    found = rank_sets(target(), shelf, Budget(), 2, methods, estimators=(), datasets=given)[1]
    for one in found:
        rows = {s.name: n if isinstance(n, int) else n.what for s, n in one.own_rows}
        assert rows == {"first": ROWS // 2, "first@2:cls": ROWS // 2, "second": "no data set is called so"}
    assert given[0].seal.opened == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: replace(d, modality="text"), "it holds texts, and the target tables"),
        (
            lambda d: replace(d, task=Task(type="regression")),
            "its data set is of a regression task, of which the labels are no classes",
        ),
        (
            lambda d: replace(d, labelled=replace(d.labelled, inputs=d.labelled.inputs.drop_columns(["n0"]))),
            "it lacks `n0` of the target's columns, or holds another type there",
        ),
    ],
)
def test_rows_that_cannot_be_read_cost_that_term_alone(change: Callable[[Target], Target], reason: str) -> None:
    found = chosen(OSBORN(), [change(dataset("first")), dataset("second")], "first", "second")
    assert found.members
    assert {s.name: n if isinstance(n, int) else n.what for s, n in found.own_rows} == {
        "first": reason,
        "second": ROWS // 2,
    }


def test_labels_that_are_not_read_may_be_of_any_task() -> None:
    found = chosen(ConsistencyDiversity(), [replace(dataset("first"), task=Task(type="regression"))], "first")
    assert [rows for _, rows in found.own_rows] == [ROWS // 2]


def test_data_sets_that_are_of_no_use_are_refused_before_anything_is_done() -> None:
    with pytest.raises(Unfit, match="`ensemble_selection` read no rows") as caught:
        chosen("ensemble_selection", [dataset("first")], "first")
    assert "consistency_diversity or osborn" in caught.value.fix
    with pytest.raises(Unfit, match="no data set is called like a source: `mails`") as caught:
        chosen(OSBORN(), [dataset("mails")], "first", "second")
    assert "`first`, `second`" in caught.value.fix


def test_whose_rows_they_are() -> None:
    def told(datasets: list[str], *names: str) -> dict[str, str]:
        found = own_rows([source(name) for name in names], [dataset(name) for name in datasets])
        kept = {name: found[source(name).identity] for name in names}
        return {name: one.name if isinstance(one, Target) else one.what for name, one in kept.items()}

    assert told(["mails", "news"], "org/mails", "news", "x") == {
        "org/mails": "mails",
        "news": "news",
        "x": "no data set is called so",
    }
    assert told(["mails", "mails", "news"], "mails", "news")["mails"] == "2 data sets are called `mails`"
    assert told(["mails", "news"], "a/mails", "b/mails", "news")["a/mails"] == "several sources are called `mails`"
    assert told([], "mails") == {"mails": "no data sets were given"}
    assert isinstance(own_rows([source("x")], [])[source("x").identity], Refused)
