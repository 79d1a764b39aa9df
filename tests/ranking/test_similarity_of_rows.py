"""Masks, data maps and moments of tasks, beside numbers by hand, simulation and plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.core import Refused, Unfit
from headstart.numerics.data_maps import Running, data_map, on_shared
from headstart.numerics.masks import overlap
from headstart.ranking.similarity import alike, embed, group
from headstart.ranking.similarity.covariance_alignment import CovarianceAlignment
from headstart.ranking.similarity.data_map import DataMap
from headstart.testing.ranking_similarity import SeenTask, draw

Array = np.ndarray[Any, Any]


def test_random_masks_overlap_by_chance_alone() -> None:
    """Mean 0 and deviation 1 over 2,000 pairs, in two tensors of unequal shares."""
    chance, sizes = np.random.default_rng(0), np.array([50, 200])

    def mask() -> Array:
        parts = [chance.permutation(50)[:25], 50 + chance.permutation(200)[:10]]
        return np.sort(np.concatenate(parts))

    found = [overlap(mask(), mask(), sizes) for _ in range(2000)]
    assert np.mean([o.deviations for o in found]) == pytest.approx(0, abs=0.1)
    assert np.std([o.deviations for o in found]) == pytest.approx(1, abs=0.06)
    assert np.mean([o.beyond_chance for o in found]) == pytest.approx(0, abs=0.01)
    assert np.mean([o.jaccard for o in found]) > 0.2, "Jaccard's index is not 0 by chance"


def test_overlap_by_hand() -> None:
    # of 4 entries 2 and 2, sharing 1: as chance has it. Of 10, 1 and 1, sharing it: 0.1 by chance, 1 at most
    found = overlap(np.array([0, 1, 4]), np.array([1, 2, 4]), np.array([4, 10]))
    assert found.jaccard == 0.5
    assert found.beyond_chance == pytest.approx((2 - 1.1) / (3 - 1.1))
    assert found.deviations == pytest.approx((2 - 1.1) / np.sqrt(2 * 2 * 2 * 2 / (16 * 3) + 81 / (100 * 9)))
    assert overlap(np.array([0]), np.array([1]), np.array([2])).beyond_chance == -1
    assert overlap(np.arange(4), np.arange(4), np.array([4])).beyond_chance == 0, "full masks leave no room"


def test_one_pass_equals_two() -> None:
    values, seen = np.random.default_rng(0).random((9, 5)) + 1e6, Running()
    for one in values:
        seen.add(one)
    np.testing.assert_allclose(seen.mean, values.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(seen.deviation, values.std(axis=0), rtol=1e-7)


def test_a_map_is_what_plain_gradient_steps_show() -> None:
    chance = np.random.default_rng(0)
    x, y = chance.standard_normal((12, 3)), np.arange(12) % 2
    mean, spread = data_map(x, y, 5)
    z = np.c_[(x - x.mean(0)) / x.std(0), np.ones(12)]
    step = 2 / np.linalg.eigvalsh(z.T @ z / 12)[-1]
    w, seen = np.zeros((4, 2)), []
    for _ in range(5):
        gradient = np.zeros_like(w)
        for row, label in zip(z, y, strict=True):
            p = np.exp(row @ w) / np.exp(row @ w).sum()
            gradient += np.outer(row, p - np.eye(2)[label]) / 12
        w = w - step * gradient
        p = np.exp(z @ w) / np.exp(z @ w).sum(axis=1, keepdims=True)
        seen.append(p[np.arange(12), y])
    np.testing.assert_allclose(mean, np.mean(seen, axis=0), rtol=1e-9)
    np.testing.assert_allclose(spread, np.std(seen, axis=0), rtol=1e-7)


def maps(seed: int = 0) -> list[dict[str, Array]]:
    """Six tasks on the same rows: three read one pair of columns, three the other, each with labels of its own."""
    chance = np.random.default_rng(seed)
    rows = chance.standard_normal((60, 6))
    made = []
    for task in range(6):
        side = rows[:, 2 * (task % 2) : 2 * (task % 2) + 2].sum(axis=1)
        labels = (side + 0.2 * chance.standard_normal(60) > 0).astype(np.int64)
        base = draw(DataMap(), seed, 60)
        made.append(
            DataMap().embed(replace(base, given=rows, known=labels, names=[str(i) for i in range(60)], held=rows))
        )
    return made


@pytest.mark.parametrize("seed", range(3))
def test_two_planted_groups_are_recovered(seed: int) -> None:
    assert group(maps(seed), 2, seed=seed) == (0, 1, 0, 1, 0, 1)


def test_groups_need_shared_rows_and_enough_tasks() -> None:
    found = maps()
    with pytest.raises(Unfit, match="7 groups of 6 tasks"):
        group(found, 7)
    alone = {**found[0], "content": np.array([f"other {i}" for i in range(60)])}
    with pytest.raises(Unfit, match="0 inputs are shared"):
        group([*found, alone], 2)


def test_maps_are_compared_on_shared_inputs_in_one_order() -> None:
    one = {"content": np.array(["a", "b", "c", "b"]), "mean": np.arange(4.0), "spread": np.zeros(4)}
    other = {"content": np.array(["c", "x", "b"]), "mean": np.arange(3.0), "spread": np.ones(3)}
    a, b = on_shared([one, other], 2)
    assert a[0].tolist() == [1.0, 2.0], "of an input that is there twice, the first"
    assert b[0].tolist() == [2.0, 0.0]
    with pytest.raises(Unfit, match="2 inputs are shared by the tasks"):
        on_shared([one, other], 3)


def held(features: Array) -> SeenTask:
    return replace(draw(CovarianceAlignment(), 0, len(features)), held=features)


def test_alignment_is_1_for_the_same_directions_and_0_at_right_angles() -> None:
    chance, method = np.random.default_rng(0), CovarianceAlignment()
    x = chance.standard_normal((30, 4)) + 3
    a, b = np.c_[x, 0 * x], np.c_[0 * x, x]
    axes = [method.embed(held(one)) for one in (a, b, 7 * a)]
    assert method(axes[0], axes[1]) == pytest.approx(0, abs=1e-12)
    assert method(axes[0], axes[2]) == pytest.approx(1)


def test_alignment_is_the_root_of_the_cosine_of_second_moments() -> None:
    chance = np.random.default_rng(0)
    x, y = chance.normal((1.0, 0.0, 2.0), size=(2, 5, 3))
    method = CovarianceAlignment(share=1.0)
    g, h = x.T @ x / 5, y.T @ y / 5
    wanted = np.sqrt((g * h).sum() / np.sqrt((g * g).sum() * (h * h).sum()))
    assert method(method.embed(held(x)), method.embed(held(y))) == pytest.approx(wanted)


def test_alignment_keeps_as_few_directions_as_hold_the_share() -> None:
    x = np.diag([10.0, 3.0, 1.0])  # squares 100, 9 and 1 of 110
    for share, kept in ((0.9, 1), (0.95, 2), (0.999, 3), (1.0, 3)):
        assert CovarianceAlignment(share=share).embed(held(x))["axes"].shape == (3, kept)
    zero = CovarianceAlignment().embed(held(0 * x))
    assert CovarianceAlignment()(zero, zero) == 0.0


def test_the_verb_names_figures_as_they_were_asked_for_and_refuses_other_tasks() -> None:
    sample = draw(DataMap(), 0)
    found = alike(sample, sample, ("data_map", CovarianceAlignment()))
    assert list(found) == ["data_map", "CovarianceAlignment"]
    assert list(found.values()) == pytest.approx([1.0, 1.0])
    with pytest.raises(Refused, match="`data_map` does not work on a regression task"):
        embed(replace(sample, task="regression"), "data_map")


@pytest.mark.parametrize("settings", [{"epochs": 1}, {"least": 0}])
def test_settings_of_maps_that_mean_nothing_are_unfit(settings: dict[str, int]) -> None:
    with pytest.raises(Unfit):
        DataMap(**settings)
    with pytest.raises(Unfit):
        CovarianceAlignment(share=1.5)
