"""Each recall against numbers done by hand, closed forms, or brute force written another way."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from headstart.core import Known, Unfit
from headstart.numerics.records import Records, tabulated
from headstart.recall.sources.graph_ranker import GraphRanker
from headstart.recall.sources.nearest_tasks import NearestTasks
from headstart.recall.sources.portfolio import Portfolio
from headstart.recall.sources.taskshop import TaskShop
from headstart.recall.sources.transfer_matrix import TransferMatrix

Array = np.ndarray[Any, Any]


def plain(values: Array, tasks: tuple[str, ...] | None = None) -> Records:
    """A table without diagonal, direct training or repeated runs."""
    targets, sources = values.shape
    unknown = np.full(values.shape, np.nan)
    return Records(
        targets=tuple(f"t{i}" for i in range(targets)),
        sources=tuple(f"s{j}" for j in range(sources)),
        tasks=tasks or ("",) * sources,
        values=values,
        counts=np.isfinite(values).astype(int),
        spread=unknown,
        direct=unknown,
    )


# -- nearest_tasks -----------------------------------------------------------------------------------------------------


def test_two_past_targets_weigh_as_their_distance_says() -> None:
    table = plain(np.array([[1.0, 3.0], [4.0, 2.0]]))  # standardised: -1, 1 and 1, -1
    guess = NearestTasks(bandwidth=0.5, general=0.0)(table, Known(np.array([0.9, 0.4])))
    first = np.e / (1 + np.e)  # one bandwidth apart
    np.testing.assert_allclose(guess.values, [1 - 2 * first, 2 * first - 1])
    assert guess.facts["effective_targets"] == pytest.approx(1 / (first**2 + (1 - first) ** 2))


def test_a_narrow_kernel_is_the_nearest_target_and_a_wide_one_the_mean() -> None:
    values = np.random.default_rng(0).standard_normal((6, 9))
    table, near = plain(values), Known(np.linspace(0.1, 0.9, 6))
    figures = table.standardised()
    narrow = NearestTasks(bandwidth=1e-3, general=0.0)(table, near)
    np.testing.assert_allclose(narrow.values, figures[-1], atol=1e-12)
    wide = NearestTasks(bandwidth=1e9, general=0.0)(table, near)
    np.testing.assert_allclose(wide.values, figures.mean(axis=0), atol=1e-8)
    nothing = NearestTasks()(table, Known())
    np.testing.assert_allclose(nothing.values, figures.mean(axis=0))
    # of equal weights, the pooled variance is that of a one-way analysis of variance, source by source
    pooled = np.square(figures - figures.mean(axis=0)).sum() / (9 * (6 - 1))
    assert nothing.errors is not None
    np.testing.assert_allclose(nothing.errors, np.sqrt(pooled * (1 + 1 / 6)))


def test_a_novel_target_gets_the_mean_of_each_source() -> None:
    table = plain(np.random.default_rng(1).standard_normal((5, 7)))
    between = np.full((5, 5), 0.8)
    far = NearestTasks()(table, Known(np.array([0.1, 0.2, 0.0, 0.1, 0.1]), None, between))
    assert far.facts["novel"]
    np.testing.assert_allclose(far.values, table.standardised().mean(axis=0))
    close = NearestTasks()(table, Known(np.array([0.9, 0.2, 0.0, 0.1, 0.1]), None, between))
    assert not close.facts["novel"]


def test_a_source_tried_on_far_targets_alone_falls_back_to_its_mean() -> None:
    values = np.random.default_rng(2).standard_normal((4, 6))
    values[0, 0] = np.nan
    table = plain(values)
    guess = NearestTasks(bandwidth=0.01)(table, Known(np.array([1.0, -1.0, -1.0, -1.0])))
    assert guess.values[0] == pytest.approx(np.nanmean(table.standardised()[:, 0]))


# -- taskshop ----------------------------------------------------------------------------------------------------------


def three_tasks() -> tuple[Records, Known]:
    """Sources trained on a, b, c; the new target is like a (1), less like b (0.5), and not like c (0)."""
    table = tabulated(
        [("a", "b", None, 3.0), ("a", "c", None, 1.0), ("b", "a", None, 5.0), ("b", "c", None, 9.0),
         ("c", "a", None, 2.0), ("c", "b", None, 4.0), ("a", "a", None, 8.0)]
    )  # fmt: skip
    return table, Known(np.array([1.0, 0.5, 0.0]))


def test_three_tasks_by_hand() -> None:
    table, known = three_tasks()
    r = np.sqrt(1.5)  # similarities 1, ½, 0 standardised: r, 0, -r; each pivot's two figures: 1 and -1
    want = [
        0.7 * ((-1 + 0) + (-1 - r)) / 2 / 2 + 0.3 * r,  # a, by pivots b and c
        0.7 * ((1 + r) + (1 - r)) / 2 / 2 + 0.3 * 0,  # b, by a and c
        0.7 * ((-1 + r) + (1 + 0)) / 2 / 2 - 0.3 * r,  # c, by a and b
    ]
    np.testing.assert_allclose(TaskShop()(table, known).values, want)


def test_a_sources_own_task_is_no_pivot() -> None:
    values = np.random.default_rng(0).standard_normal((3, 4))
    near = np.array([0.4, 0.1, 0.9])
    guess = TaskShop(weight=1.0)(plain(values, ("t0", "t1", "t2", "")), Known(near)).values
    figures, alike = plain(values).standardised(), (near - near.mean()) / near.std()
    others = {0: [1, 2], 1: [0, 2], 2: [0, 1], 3: [0, 1, 2]}
    want = [np.mean([(figures[p, s] + alike[p]) / 2 for p in pivots]) for s, pivots in others.items()]
    np.testing.assert_allclose(guess, want)


def test_the_published_code_gives_the_same_of_figures_in_standard_deviations() -> None:
    """What `predict_transfer_roe` of danieljkim0118/TaskWeb 4d5b1d3 printed for four sources, given such figures.

    As published it ends in a TypeError, as it calls `process_scores` with three arguments; it was given one that takes
    them. Its `combine_scores` was undone: a share of half, and twice each figure.
    """
    chance = np.random.default_rng(5)
    values, near = chance.standard_normal((4, 4)), chance.random(4)
    np.fill_diagonal(values, np.nan)  # it has no source on its own task
    guess = TaskShop()(plain(values, ("t0", "t1", "t2", "t3")), Known(near))
    want = [0.050307499799695926, 0.18774298775297651, 0.16913772251593623, -0.40718821006860845]
    np.testing.assert_allclose(guess.values, want, rtol=1e-12)


def test_without_pivots_it_is_the_similarity_of_the_own_task() -> None:
    table, known = three_tasks()
    assert np.argsort(-TaskShop(weight=0.0)(table, known).values).tolist() == [0, 1, 2]


def test_history_adds_to_similarity_where_similarity_is_noisy() -> None:
    """Rank-two transfer; similarities are the factors' cosines with noise. Mean Spearman over held-out targets."""
    from scipy.stats import spearmanr

    chance = np.random.default_rng(0)
    scores: dict[float, list[float]] = {0.0: [], 0.7: []}
    for _ in range(6):
        factors = chance.standard_normal((14, 2))
        quality = chance.standard_normal(14)
        full = quality + factors @ factors.T / 2
        np.fill_diagonal(full, np.nan)
        unit = factors / np.linalg.norm(factors, axis=1, keepdims=True)
        alike = unit @ unit.T + 0.3 * chance.standard_normal((14, 14))
        for t in range(14):
            table = tabulated((f"{i:02}", f"{j:02}", None, full[i, j]) for i in range(14) for j in range(14) if i != j)
            rest, own = table.without(f"{t:02}")
            known = Known(np.delete(alike[t], t))
            for weight, found in scores.items():
                there = np.isfinite(own)
                found.append(spearmanr(TaskShop(weight=weight)(rest, known).values[there], own[there])[0])
    assert np.mean(scores[0.7]) > np.mean(scores[0.0]) + 0.1


# -- transfer_matrix ---------------------------------------------------------------------------------------------------


def test_a_planted_matrix_of_rank_two_is_recovered_from_three_tenths() -> None:
    chance = np.random.default_rng(3)
    full = chance.standard_normal((60, 2)) @ chance.standard_normal((2, 80))
    values = np.where(chance.random(full.shape) < 0.3, full, np.nan)
    own = np.where(chance.random(80) < 0.3, full[-1], np.nan)
    method = TransferMatrix(ridge=1e-3, rounds=300)
    guess = method(plain(values[:-1]), Known(None, own)).values
    hidden = np.isnan(own)
    seen = full[-1][~hidden]
    figures = (full[-1] - seen.mean()) / seen.std()  # the units of the new target's own figures
    assert np.square(guess - figures)[hidden].mean() < 0.02 * np.square(figures[hidden]).mean()


def test_without_factors_it_is_ridge_regression_on_two_ways() -> None:
    chance = np.random.default_rng(4)
    values = np.where(chance.random((7, 9)) < 0.7, chance.standard_normal((7, 9)), np.nan)
    values[0], values[:, 0] = chance.standard_normal(9), chance.standard_normal(7)
    own = np.where(np.arange(9) < 4, chance.standard_normal(9), np.nan)
    table = plain(values)
    guess = TransferMatrix(rank=0, ridge=0.5, rounds=3000)(table, Known(None, own))
    new = (own - np.nanmean(own)) / np.nanstd(own)
    figures = np.vstack([table.standardised(), new])
    at = np.argwhere(np.isfinite(figures))
    design = np.zeros((len(at), 8 + 9))
    design[np.arange(len(at)), at[:, 0]] = design[np.arange(len(at)), 8 + at[:, 1]] = 1
    wanted = figures[tuple(at.T)]
    solved = np.linalg.solve(design.T @ design + 0.5 * np.eye(17), design.T @ wanted)
    np.testing.assert_allclose(guess.values, solved[7] + solved[8:], atol=1e-8)


def test_errors_are_wider_where_less_is_known() -> None:
    table = plain(np.random.default_rng(5).standard_normal((12, 20)))
    own = np.where(np.arange(20) < 10, np.arange(20.0), np.nan)
    before, after = (TransferMatrix()(table, Known(None, v)).errors for v in (None, own))
    assert before is not None
    assert after is not None
    assert after.mean() < before.mean()


# -- portfolio ---------------------------------------------------------------------------------------------------------


def test_the_greedy_list_by_brute_force() -> None:
    for seed in range(5):
        values = np.random.default_rng(seed).standard_normal((6, 7))
        figures = plain(values).standardised()
        best = figures.max(axis=1)
        guess = Portfolio()(plain(values), Known())
        listed: list[int] = []
        for _ in range(guess.facts["listed"]):
            mean = {s: np.mean(best - figures[:, [*listed, s]].max(axis=1)) for s in range(7) if s not in listed}
            pick = min(mean, key=mean.__getitem__)
            worst = figures.min(axis=1) if not listed else figures[:, listed].max(axis=1)
            assert guess.values[pick] == pytest.approx(np.mean(best - worst) - mean[pick])
            listed.append(pick)
        assert np.argsort(-guess.values)[: len(listed)].tolist() == listed
        left = [s for s in range(7) if s not in listed]
        np.testing.assert_allclose(guess.values[left], [-np.mean(best - figures[:, s]) for s in left])


def test_the_greedy_pair_keeps_its_bound_among_all_pairs() -> None:
    values = np.random.default_rng(9).standard_normal((12, 8))
    figures = plain(values).standardised()
    worst = figures.min(axis=1)

    def gained(pair: tuple[int, ...]) -> float:
        return float(np.mean(figures[:, pair].max(axis=1) - worst))

    first, second = np.argsort(-Portfolio()(plain(values), Known()).values)[:2]
    assert gained((first, second)) >= (1 - 1 / np.e) * max(gained(p) for p in permutations(range(8), 2))


# -- graph_ranker ------------------------------------------------------------------------------------------------------


def test_few_records_are_refused_with_the_number_needed() -> None:
    with pytest.raises(Unfit, match="24 records of 4 targets") as refused:
        GraphRanker()(plain(np.random.default_rng(0).standard_normal((4, 6))), Known())
    assert "nearest_tasks" in refused.value.fix


def test_two_kinds_of_targets_are_told_apart_by_a_few_figures() -> None:
    """Half of the targets like what the others dislike, so the mean of a source says nothing; the graph does."""
    chance = np.random.default_rng(0)
    taste = chance.standard_normal(60)
    side = np.where(np.arange(17) % 2, 1.0, -1.0)
    full = side[:, None] * taste + 0.3 * chance.standard_normal((17, 60))
    own = np.where(np.arange(60) < 8, full[-1], np.nan)
    table = plain(full[:-1])
    by_graph, by_mean = (m(table, Known(None, v)).values for m, v in ((GraphRanker(), own), (NearestTasks(), None)))
    hidden = np.isnan(own)
    assert np.corrcoef(by_graph[hidden], full[-1, hidden])[0, 1] > 0.9
    assert abs(np.corrcoef(by_mean[hidden], full[-1, hidden])[0, 1]) < 0.7


def test_noise_is_not_explained_by_the_edges_that_are_to_be_predicted() -> None:
    for seed in range(3):
        guess = GraphRanker()(plain(np.random.default_rng(seed).standard_normal((5, 80))), Known())
        assert guess.errors is not None
        assert guess.errors[0] > 0.95  # a pair whose own edge stands in its features leaves 0.9 or less


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (NearestTasks, {"bandwidth": 0.0}), (NearestTasks, {"novelty": 0.0}), (TaskShop, {"weight": 1.2}),
        (TransferMatrix, {"rank": -1}), (TransferMatrix, {"ridge": 0.0}), (GraphRanker, {"dimensions": 0}),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(method: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(Unfit, match=r"must lie|cannot be"):
        method(**settings)


def test_places_instead_of_figures_weigh_an_outlier_less() -> None:
    values = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [3.0, 2.0, -500.0]])
    table = plain(values)
    assert table.ranked().values.tolist() == [[1, 2, 3], [1, 2, 3], [3, 2, 1]]
    assert replace(table, sign=-1).ranked().values[0].tolist() == [3, 2, 1]
    assert np.argmax(NearestTasks()(table.ranked(), Known()).values) == 2
