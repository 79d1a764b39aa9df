"""Views show one fold, and only what a method declares."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headstart.adaptation.baselines.column_linear import ColumnLinear
from headstart.core import METRICS, Columns, Folds, Needs, Rows, Seal, Source, Steps, Target, Task, Undeclared
from headstart.execution.specs import chunks
from headstart.execution.views import FoldView, Opener, Pool, RankView, drawn, first_rows
from headstart.ranking.estimators.agreement import Agreement
from headstart.ranking.estimators.nce import NCE

ROWS = 300
SOURCE = Source(
    name="s", kind="checkpoint", where="/nowhere", weights="w", identity="i", modality="table", gives=("features",)
)


def rows_of(numbers: range, labelled: bool = True) -> Rows:
    ids = tuple(f"id{i}" for i in numbers)
    inputs = pa.table({"x": [float(i) for i in numbers]})
    return Rows(ids, ids, ids, inputs, np.array([i % 3 for i in numbers]) if labelled else None)


def target() -> Target:
    of = tuple(tuple((i + r) % 5 if i else -1 for i in range(ROWS)) for r in range(2))
    return Target(
        name="t",
        task=Task(type="single_label", classes=("a", "b", "c")),
        modality="table",
        metric=METRICS["accuracy"],
        columns=Columns(),
        labelled=rows_of(range(ROWS)),
        unlabelled=rows_of(range(1000, 1004), labelled=False),
        folds=Folds(kind="cv", k=5, of=of),
        protocol="outer_cv",
        seal=Seal(lambda: pytest.fail("the seal was opened"), ids=(), content=(), groups=()),
        fingerprint="f",
    )


class Doubler:
    """Stands for an opened source: features are the row's number and its square."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.closed = False

    def backend(self, dtype: str) -> str:
        return f"test-{dtype}"

    def features(self, inputs: pa.Table, dtype: str) -> np.ndarray[Any, Any]:
        self.asked.append(inputs.num_rows)
        x = inputs["x"].to_numpy()
        return np.stack([x, x * x], axis=1).astype(np.float32)

    def encoder(self) -> object:
        return object()

    def close(self) -> None:
        self.closed = True


class Shelf(dict[str, Any]):
    put = dict.__setitem__


def opened() -> tuple[Opener, Doubler]:
    opener, source = Opener(SOURCE, ExitStack()), Doubler()
    opener.__dict__["opened"] = source
    return opener, source


def view(needs: Needs, cell: tuple[int, int] | None = (1, 2), **more: Any) -> FoldView:
    return FoldView(target(), cell, needs=needs, method="m", opener=opened()[0], **more)


def test_a_fold_has_its_rows_and_their_features() -> None:
    fold = view(Needs(gives=("features",)))
    train, valid = target().folds.sides(1, 2)
    assert list(fold.train.ids) == [f"id{i}" for i in train]
    assert fold.valid.features[:, 0].tolist() == valid
    assert fold.train.labels.tolist() == [i % 3 for i in train]
    assert fold.unlabelled.features[:, 0].tolist() == [1000, 1001, 1002, 1003]
    assert fold.train.columns["x"].to_pylist() == train


def test_a_training_holds_one_copy_of_the_source() -> None:
    """Features come first, from the cache or from a copy that is let go before the one that is trained grows."""
    for gives, closed in ((("features",), False), (("features", "gradients"), True)):
        opener, source = opened()
        one = FoldView(target(), (1, 2), needs=Needs(gives=gives), method="m", opener=opener)
        assert len(one.train.features) == len(one.train)
        assert source.closed is closed


def test_labels_of_scored_rows_are_never_shown() -> None:
    fold = view(Needs(gives=("features",)))
    for side in (fold.valid, fold.unlabelled):
        with pytest.raises(Undeclared):
            _ = side.labels


def test_what_is_not_declared_is_not_shown() -> None:
    fold = view(Needs(gives=("gradients",), labels=False))
    for ask in (lambda: fold.train.features, lambda: fold.train.labels, lambda: view(Needs()).encoder):
        with pytest.raises(Undeclared, match="needs"):
            ask()
    assert fold.encoder is fold.encoder


def test_a_refit_trains_on_all_rows_and_may_score_others() -> None:
    needs = Needs(gives=("features",))
    fold = view(needs, None)
    assert (len(fold.train), len(fold.valid), fold.valid.features.shape) == (ROWS, 0, (0, 2))
    other = view(needs, None, scored=rows_of(range(2000, 2002)))
    assert other.valid.features[:, 0].tolist() == [2000, 2001]


def test_chunks_are_computed_once_and_are_the_same_for_every_asker() -> None:
    store = Shelf()
    for wanted, lacking in ((10, 1), (290, 3), (300, 0)):  # 128, 192, 256 and all 300
        opener, source = opened()
        pool = Pool.of_labelled(opener, target(), store)
        rows = drawn(target()).take(range(wanted))
        assert pool.take(rows.ids)[:, 0].tolist() == rows.inputs["x"].to_pylist()
        assert len(source.asked) == lacking
    assert sorted(len(a) for a in store.values()) == sorted(b - a for a, b in chunks(0, ROWS, ROWS))


def test_a_pool_gives_rows_in_any_order() -> None:
    pool = Pool.of_labelled(opened()[0], target(), None)
    wanted = [299, 0, 150, 7, 7]
    assert pool.take([f"id{i}" for i in wanted])[:, 0].tolist() == wanted


def test_an_estimator_sees_the_first_rows_and_the_folds_that_score_them() -> None:
    rows = drawn(target()).take(range(30))
    whole = RankView(target(), rows, Pool.of_labelled(opened()[0], target(), None))
    guarded = whole.seen_by(Needs(gives=("features",)), "m")
    numbers = [int(name[2:]) for name in rows.ids]
    assert guarded.features[:, 0].tolist() == numbers
    assert guarded.labels.tolist() == [n % 3 for n in numbers]
    assert guarded.folds.tolist() == [n % 5 if n else -1 for n in numbers]
    assert guarded.moments.rows == 30
    assert guarded.moments is whole.seen_by(Needs(gives=("features",)), "other").moments
    with pytest.raises(Undeclared, match=r"view\.predictions"):
        _ = guarded.predictions
    with pytest.raises(Undeclared, match=r"view\.labels"):
        _ = whole.seen_by(Needs(labels=False), "m").labels


def test_rows_of_one_group_have_one_number() -> None:
    rows = drawn(target()).take(range(6))
    rows = replace(rows, groups=("s7", "s2", "s7", "s9", "s2", "s7"))
    groups = RankView(target(), rows, Pool.of_labelled(opened()[0], target(), None)).seen_by(Needs(), "m").groups
    assert groups.tolist() == [1, 0, 1, 2, 0, 1]


def test_a_frozen_fit_scores_the_rows_after_its_own() -> None:
    rows = drawn(target()).take(range(30))
    view = RankView(first_rows(target(), rows, 20), rows, Pool.of_labelled(opened()[0], target(), None))
    assert view.folds.tolist() == [-1] * 20 + [0] * 10


def test_the_reference_is_what_a_plain_system_says_out_of_fold_and_is_kept_for_all_sources() -> None:
    rows, store = drawn(target()).take(range(60)), Shelf()
    whole = RankView(target(), rows, Pool.of_labelled(opened()[0], target(), None), store)
    told = whole.seen_by(Needs(reference=True), "m").reference
    assert told.shape == (60, 3)
    assert np.isnan(told[whole.folds < 0]).all()
    part = replace(target(), labelled=rows, folds=Folds(kind="cv", k=5, of=(tuple(whole.folds.tolist()),)))
    for fold in range(5):
        fitted = ColumnLinear()(FoldView(part, (0, fold), needs=ColumnLinear.needs), None, Steps())
        np.testing.assert_allclose(told[whole.folds == fold], fitted.predictions, rtol=1e-6)  # kept in float32
    ((key, kept),) = store.items()
    store[key] = kept + 1
    again = RankView(target(), rows, Pool.of_labelled(opened()[0], target(), None), store)
    np.testing.assert_array_equal(again.reference, kept + 1)
    renamed = Rows(rows.ids, rows.content, rows.groups, rows.inputs, (rows.labels + 1) % 3)  # type: ignore[operator]  # they have labels
    assert RankView(target(), renamed, Pool.of_labelled(opened()[0], target(), None), store).reference is not kept
    assert len(store) == 2, "other labels, another reference"
    with pytest.raises(Undeclared, match=r"view\.reference"):
        _ = whole.seen_by(Needs(gives=("features",)), "m").reference


class OneLabel(Doubler):
    """A head that says of each row whether it has the one label that it knows."""

    def predictions(self, inputs: pa.Table) -> np.ndarray[Any, Any]:
        return np.where(inputs["x"].to_numpy() % 3 == 0, 0.9, 0.2)[:, None]


def test_a_head_of_one_label_tells_rows_apart() -> None:
    """As one class beside no other it would say the same of all rows, whatever it says."""
    opener, _ = opened()
    opener.__dict__["opened"] = OneLabel()
    pool = Pool.of_labelled(opener, target(), None)
    seen = RankView(target(), drawn(target()), pool)
    has = seen.labels == 0
    np.testing.assert_allclose(seen.predictions[:, 1], np.where(has, 0.9, 0.2))
    np.testing.assert_allclose(seen.predictions.sum(axis=1), 1)
    # of a row with label 0 the head is right; of the others it cannot tell 1 from 2
    assert NCE()(seen).value == pytest.approx(-np.log(2) * 2 / 3)
    assert Agreement()(seen).value == pytest.approx(2 / 3, abs=0.02)
