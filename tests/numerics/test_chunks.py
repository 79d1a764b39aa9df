"""Errors from chunks against the same statistic taken again on the rows that are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import catalogue
from headstart.core import Unfit
from headstart.numerics import chunks, moments
from headstart.numerics.chunks import Chunks, grouped_error, jackknife, standard_error
from headstart.numerics.moments import Moments
from headstart.ranking.estimators.cdnv import CDNV
from headstart.ranking.estimators.cka import CKA
from headstart.ranking.estimators.gbc import GBC
from headstart.ranking.estimators.h_score import HScore
from headstart.ranking.estimators.logme import LogME
from headstart.ranking.estimators.nmc import NMC
from headstart.ranking.estimators.parc import PARC
from headstart.ranking.estimators.ped import PED
from headstart.ranking.estimators.sfda import SFDA
from headstart.ranking.estimators.shrunk_h_score import ShrunkHScore
from headstart.testing.ranking_estimators import draw, seen

Array = np.ndarray[Any, Any]


def drawn(rows: int = 103, width: int = 5, seed: int = 0) -> tuple[Array, Array]:
    chance = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    return chance.standard_normal((rows, width)) + 3e5 + labels[:, None], labels


def between(told: Moments) -> float:
    """Share of the variance that lies between classes."""
    centres = told.class_means - told.mean
    return float((told.counts @ centres**2).sum() / (told.rows * told.variance.sum()))


def read_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each step of any sum took, from now on."""
    taken: list[int] = []
    take = moments._Sums.take

    def counted(sums: Any, features: Array, labels: Array) -> None:
        taken.append(len(features))
        take(sums, features, labels)

    monkeypatch.setattr(moments._Sums, "take", counted)
    return taken


@pytest.mark.parametrize(("kept", "again"), [(chunks.KEPT_BYTES, 0), (0, 103)])
def test_a_part_left_out_is_the_rest_of_the_rows(kept: int, again: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From one pass; where parts would take too much memory, from a second one."""
    monkeypatch.setattr(chunks, "KEPT_BYTES", kept)
    taken = read_rows(monkeypatch)
    x, y = drawn()
    made = Chunks.of(x, y, 3, number=7, second=True, norms=True)
    assert [s.stop - s.start for s in made.slices] == [15, 15, 15, 15, 15, 15, 13]
    assert bool(made.kept) is not bool(again)
    assert sum(taken) == 103
    left = [made.without(part) for part in range(7)][2]
    assert sum(taken) == 103 + again
    rest = np.r_[0:30, 45:103]
    fresh = Moments.of(x[rest], y[rest], 3, norms=True)
    assert between(left) == pytest.approx(between(fresh), rel=1e-12)
    assert left.shrinkage == pytest.approx(fresh.shrinkage, rel=1e-9)
    np.testing.assert_allclose(left.centred_gram, fresh.centred_gram, rtol=1e-9, atol=1e-7)
    assert made.without(2, gram=False).gram is None
    assert between(made.without(2, gram=False)) == between(left)


def test_the_whole_of_the_parts_is_all_rows() -> None:
    x, y = drawn()
    for labels, classes in ((y, 3), (y + 7e4, 0), (np.eye(3)[y], 3)):
        whole, fresh = Chunks.of(x, labels, classes).whole, Moments.of(x, labels, classes)
        assert whole.rows == fresh.rows
        np.testing.assert_allclose(whole.centred_gram, fresh.centred_gram, rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose(whole.centred_sums, fresh.centred_sums, rtol=1e-10, atol=1e-9)
        np.testing.assert_allclose(whole.target_mean, fresh.target_mean, rtol=1e-12)
        np.testing.assert_allclose(whole.mean, fresh.mean, rtol=1e-14)


@pytest.mark.parametrize("kept", [chunks.KEPT_BYTES, 0])
@pytest.mark.parametrize("task", ["single_label", "regression"])
@pytest.mark.parametrize("method", [LogME(), ShrunkHScore(), HScore(), GBC(), CDNV()], ids=lambda m: type(m).__name__)
def test_an_error_is_that_of_the_rows_left_in(
    method: Any, task: Any, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jackknife over tenths, each left out of the rows and the estimator asked again, with no moments shared."""
    if task not in method.needs.tasks:
        return
    f, y = draw(1, 200)
    labels, classes = (f @ np.linspace(0, 1, 8) + y, 0) if task == "regression" else (y, 3)
    folds = np.arange(200) % 5
    view = seen(method, f, labels, classes, task, folds=folds)
    score = method(view)
    heard = [
        method(seen(method, *(np.delete(a, s, 0) for a in (f, labels)), classes, task, folds=np.delete(folds, s))).value
        for s in np.split(np.arange(200), 10)
    ]
    wanted = (9 / 10 * np.square(heard - np.mean(heard)).sum()) ** 0.5
    monkeypatch.setattr(chunks, "KEPT_BYTES", kept)
    assert standard_error(method, view, score) == pytest.approx(wanted, rel=1e-10)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(3).standard_normal((50, 1))
    made = Chunks.of(x, np.zeros(50, dtype=int), 1, number=50)
    told = jackknife(float(made.whole.mean[0]), [float(made.without(p).mean[0]) for p in range(50)], [1] * 50)
    assert told == pytest.approx(x.std(ddof=1) / 50**0.5, rel=1e-9)


def test_groups_of_unequal_size_weigh_by_their_rows() -> None:
    """Over draws, the mean squared error that is told is the one that is there."""
    chance = np.random.default_rng(0)
    sizes = [5, 10, 20, 15, 30, 8, 12]
    ends = np.cumsum(sizes)
    told = []
    for _ in range(2000):
        x = chance.standard_normal(100)
        without = [(x.sum() - x[e - s : e].sum()) / (100 - s) for s, e in zip(sizes, ends, strict=True)]
        told.append(jackknife(float(x.mean()), without, sizes) ** 2)
    assert np.mean(told) == pytest.approx(1 / 100, rel=0.06)


def test_groups_of_like_values_count_as_what_they_are() -> None:
    """Over draws, the mean squared error that is told of words in sentences is the one that is there."""
    chance = np.random.default_rng(0)
    of = np.repeat(np.arange(60), chance.integers(1, 9, 60))
    sizes, told, alone, heard = np.bincount(of), [], [], []
    for _ in range(1000):
        x = chance.standard_normal(60)[of] + 0.5 * chance.standard_normal(len(of))
        told.append((grouped_error(x, of) or 0.0) ** 2)
        alone.append((grouped_error(x, np.arange(len(of))) or 0.0) ** 2)
        heard.append(x.mean())
    there = (np.square(sizes).sum() + 0.25 * len(of)) / len(of) ** 2
    assert np.var(heard) == pytest.approx(there, rel=0.1)
    assert np.mean(told) == pytest.approx(there, rel=0.06)
    assert np.mean(alone) < there / 3
    assert grouped_error(np.arange(3.0), np.zeros(3)) is None


def test_an_error_from_losses_knows_their_groups() -> None:
    f, y = draw(0, 60)
    method, groups = NMC(), [str(row // 6) for row in range(60)]
    view = seen(method, f, y)
    score = method(view)
    assert score.losses is not None
    assert standard_error(method, view, score) == pytest.approx(score.losses.std(ddof=1) / 60**0.5)
    assert standard_error(method, view, score, groups) == grouped_error(score.losses, np.array(groups))


@pytest.mark.parametrize("method", [SFDA(), PED()], ids=lambda m: type(m).__name__)
def test_an_error_of_mean_probabilities_is_that_of_the_rows(method: Any) -> None:
    """As losses are minus their logarithms; and it is the spread over fresh rows."""
    chance, heard, told = np.random.default_rng(0), [], []
    means, y = 0.7 * chance.standard_normal((4, 32)), np.arange(100) % 4
    for _ in range(30):
        view = seen(method, means[y] + chance.standard_normal((100, 32)), y, 4)
        score = method(view)
        assert score.losses is not None
        heard.append(score.value)
        told.append(standard_error(method, view, score))
        assert told[-1] == pytest.approx(np.exp(-score.losses).std(ddof=1) / 10)
    assert np.sqrt(np.mean(np.square(told))) == pytest.approx(np.std(heard, ddof=1), rel=0.35)


@pytest.mark.parametrize("method", [PARC(rows=60), CKA(rows=60)], ids=lambda m: type(m).__name__)
def test_of_rows_that_are_not_looked_at_none_is_left_out(method: Any) -> None:
    """The tenths are of the rows that are looked at, a tenth of each class, and no others take their places."""
    f, y = draw(2, 150)
    folds, reference = np.arange(150) // 3 % 5, np.eye(3)[y] + np.random.default_rng(0).standard_normal((150, 3))
    view = seen(method, f, y, folds=folds, told=reference)
    order = np.lexsort((folds, y))[np.linspace(0, 149, 60).astype(int)]
    heard = []
    for part in range(10):
        left = np.sort(np.delete(order, np.arange(part, 60, 10)))
        heard.append(method(seen(method, f[left], y[left], folds=folds[left], told=reference[left])).value)
    wanted = (9 / 10 * np.square(heard - np.mean(heard)).sum()) ** 0.5
    assert standard_error(method, view, method(view)) == pytest.approx(wanted, rel=1e-10)


def test_which_estimators_have_no_error() -> None:
    f, y = draw(0, 240)
    made = {name: entry.load()() for name, entry in catalogue.entries("ranking.estimators").items()}
    views = {n: seen(m, f, y) for n, m in made.items() if "single_label" in m.needs.tasks}
    without = [n for n, view in views.items() if standard_error(made[n], view, made[n](view)) is None]
    assert without == ["clusterability", "ncti"]
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "rank.md").read_text(encoding="utf-8")
    assert "`clusterability` and `ncti` have\nnone" in page


def test_the_bootstrap_covers_and_repeats() -> None:
    inside = 0
    for seed in range(60):
        x, y = drawn(200, seed=seed)
        made = Chunks.of(x, y, 3, number=20, gram=False)
        told = made.bootstrap(between, draws=100, seed=seed)
        assert told == made.bootstrap(between, draws=100, seed=seed)
        without = [between(made.without(part)) for part in range(20)]
        assert told.error == pytest.approx(jackknife(between(made.whole), without, [10] * 20), rel=0.5)
        inside += told.low <= 0.4 <= told.high  # variance of the classes' means 2/3, within 1: 2/5
    assert inside >= 50


def test_one_part_has_no_spread() -> None:
    x, y = drawn(1)
    with pytest.raises(Unfit, match="no spread"):
        Chunks.of(x, y, 3).bootstrap(between)
    with pytest.raises(Unfit, match="no rows"):
        Chunks.of(x[:0], y[:0], 3)
