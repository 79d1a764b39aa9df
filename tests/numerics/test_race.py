"""The race, on losses done by hand and on a toy zoo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.execution.specs import chunks
from headstart.numerics.race import SLACK, bernstein_leavers, leavers, race, rungs
from headstart.ranking.estimators.ridge_probe import RidgeProbe
from headstart.testing.ranking_estimators import dealt, seen

Array = np.ndarray[Any, Any]


def noise(seed: int, rows: int = 128) -> Array:
    return np.random.default_rng(seed).standard_normal(rows)


@pytest.mark.parametrize(
    ("rows", "width", "want"),
    [
        (1000, 32, (128, 192, 256, 384, 512, 768, 1000)),
        (1000, 300, (384, 512, 768, 1000)),
        (128, 8, (128,)),
        (60, 8, (60,)),
        (512, 2048, (512,)),
    ],
)
def test_rungs_start_at_the_width_and_end_where_chunks_do(rows: int, width: int, want: tuple[int, ...]) -> None:
    assert rungs(rows, width) == want
    assert set(want) <= {end for _, end in chunks(0, rows, rows)}, "no row is computed that nobody is judged on"


def test_the_pairing_shows_what_means_alone_would_hide() -> None:
    hard = 10 * noise(0)  # rows differ far more than sources do
    left = leavers({"good": hard, "bad": hard + 0.5 + 0.1 * noise(1)})
    assert list(left) == ["bad"]
    assert "`good`" in left["bad"]
    assert "128 rows" in left["bad"]


def test_a_gap_within_the_standard_errors_keeps_running() -> None:
    base, step = noise(0), noise(1)
    step = (step - step.mean()) / step.std(ddof=1) / 128**0.5  # its mean has a standard error of 1 / 128
    near, far = base + step + 2.9 / 128, base + step + 3.1 / 128
    assert leavers({"a": base, "b": near}, z=3, slack=0) == {}
    assert list(leavers({"a": base, "b": far}, z=3, slack=0)) == ["b"]
    assert list(leavers({"a": base, "b": near}, z=2.0, slack=0)) == ["b"]


def test_who_is_standard_errors_from_being_better_by_the_slack_leaves() -> None:
    base, step = 1 + 0.1 * noise(0), noise(1)
    step = (step - step.mean()) / step.std(ddof=1) / 128**0.5  # its mean has a standard error of 1 / 128
    slack = 1 / 128 / base.mean()  # one standard error
    near, far = base + step + 1.9 / 128, base + step + 2.1 / 128
    assert leavers({"a": base, "b": near}, z=3, slack=slack) == {}
    assert list(leavers({"a": base, "b": far}, z=3, slack=slack)) == ["b"]
    assert list(leavers({"a": base, "b": near}, z=3, slack=2 * slack)) == ["b"]


def test_ties_stay_without_slack_and_lone_sources_always() -> None:
    assert leavers({"a": noise(0), "b": noise(0), "c": noise(0)}, slack=0) == {}
    assert list(leavers({"a": noise(0) ** 2, "b": noise(0) ** 2, "c": noise(0) ** 2})) == ["b", "c"]
    assert leavers({"a": noise(0)}) == leavers({}) == {}


def test_few_common_rows_let_nobody_go() -> None:
    holes = noise(0)
    holes[:40] = np.nan
    worse = noise(0) + 100
    assert leavers({"a": holes, "b": worse}) == {}
    assert list(leavers({"a": holes, "b": worse}, fewest=50)) == ["b"]


def flat(names: Sequence[str], rows: int) -> Mapping[str, Array]:
    return {s: noise(0, rows) + (5 if s.startswith("bad") else 0) for s in names}


def no_slack(losses: Mapping[str, Array]) -> dict[str, str]:
    return leavers(losses, slack=0)


def test_the_hopeless_leave_early_and_the_rest_see_all_rows() -> None:
    raced = race({"a": 64, "bad": 64, "b": 64}, 1000, flat, no_slack)
    assert raced.kept == ("a", "b")
    assert raced.left["bad"][0] == 128
    assert raced.rows == {"a": 1000, "bad": 128, "b": 1000}


def test_a_wide_source_joins_when_there_are_as_many_rows() -> None:
    asked: list[tuple[tuple[str, ...], int]] = []

    def losses(names: Sequence[str], rows: int) -> Mapping[str, Array]:
        asked.append((tuple(names), rows))
        return flat(names, rows)

    raced = race({"a": 64, "bad": 64, "wide": 400, "bad wide": 400}, 1000, losses, no_slack)
    assert asked == [(("a", "bad"), 128), (("a", "wide", "bad wide"), 512), *[(("a", "wide"), n) for n in (768, 1000)]]
    assert raced.kept == ("a", "wide")


@given(st.data())
def test_layers_leave_with_the_last_of_their_model(data: st.DataObject) -> None:
    """Against a race of the models, each as good as its best layer."""
    of = {f"{m}@{i}": m for m in "abcd"[: data.draw(st.integers(1, 4))] for i in range(data.draw(st.integers(1, 3)))}
    level = {name: data.draw(st.sampled_from([0.0, 1e-3, 0.2, 3.0])) for name in of}

    def losses(names: Sequence[str], rows: int) -> dict[str, Array]:
        return {s: (noise(0, rows) + level[s]) ** 2 + 10 * level[s] for s in names}

    def of_models(names: Sequence[str], rows: int) -> dict[str, Array]:
        each = {m: losses([s for s in of if of[s] == m], rows) for m in names}
        return {m: min(told.values(), key=lambda one: float(one.mean())) for m, told in each.items()}

    raced = race(dict.fromkeys(of, 8), 700, losses, no_slack, models=of)
    told = race(dict.fromkeys(of.values(), 8), 700, of_models, no_slack)
    assert raced.kept == tuple(s for s in of if of[s] in told.kept)
    assert raced.rows == {s: told.rows[of[s]] for s in of}
    assert {s: rows for s, (rows, _) in raced.left.items()} == {
        s: told.left[of[s]][0] for s in of if of[s] in told.left
    }


def test_layers_of_one_model_alone_are_not_judged_on_the_way() -> None:
    asked: list[int] = []

    def losses(names: Sequence[str], rows: int) -> Mapping[str, Array]:
        asked.append(rows)
        return flat(names, rows)

    raced = race({"a@1": 8, "bad@2": 8}, 1000, losses, models={"a@1": "a", "bad@2": "a"})
    assert (asked, raced.kept) == ([1000], ("a@1", "bad@2"))


def test_fewer_rows_than_a_rung_is_no_race() -> None:
    raced = race({"a": 64, "bad": 64}, 100, flat)
    assert (raced.kept, raced.left) == (("a", "bad"), {})
    assert race({"a": 2048, "bad": 2048}, 1000, flat).left == {}


def test_one_source_is_scored_once() -> None:
    asked: list[int] = []
    race({"a": 8}, 1000, lambda names, rows: asked.append(rows) or flat(names, rows))  # type: ignore[func-returns-value]  # append gives None
    assert asked == [1000]


def test_a_source_that_fails_is_out() -> None:
    raced = race(
        {"a": 8, "b": 8, "broken": 8},
        300,
        lambda names, rows: flat([s for s in names if s != "broken"], rows),
        no_slack,
    )
    assert raced.kept == ("a", "b")
    assert "broken" not in raced.left


@pytest.mark.parametrize(("slack", "lost"), [(0.0, 1), (SLACK, 2)])
def test_on_a_toy_zoo_the_race_keeps_the_best_nearly_as_often_as_full_scoring(slack: float, lost: int) -> None:
    """50 draws; the first source is made the best. Few draws may be lost to the race, by no more than its slack."""

    def leave(losses: Mapping[str, Array]) -> dict[str, str]:
        return leavers(losses, slack=slack)

    full_hits = race_hits = spent = 0
    for seed in range(1000, 1050):
        chance = np.random.default_rng(seed)
        labels = np.arange(512) % 4
        signal = chance.standard_normal((4, 8))[labels] + chance.standard_normal((512, 8))
        blur = np.sort(chance.uniform(0.2, 3.0, 4))
        zoo = {f"{i}": signal + b * chance.standard_normal((512, 8)) for i, b in enumerate(blur)}

        def losses(
            names: Sequence[str], rows: int, zoo: Mapping[str, Array] = zoo, y: Array = labels
        ) -> dict[str, Array]:
            folds, probe, given = dealt(y[:rows], 2), RidgeProbe(penalties=(0.1,)), {}
            for name in names:
                loss = probe(seen(probe, zoo[name][:rows], y[:rows], 4, folds=folds)).losses
                assert loss is not None
                given[name] = loss
            return given

        raced = race(dict.fromkeys(zoo, 8), 512, losses, leave)
        every = {name: loss.mean() for name, loss in losses(list(zoo), 512).items()}
        full_hits += min(every, key=lambda s: every[s]) == "0"
        kept = min(raced.kept, key=lambda s: every[s])
        assert every[kept] <= (1 + SLACK) * min(every.values())
        race_hits += kept == "0"
        spent += sum(raced.rows.values())
    assert race_hits >= full_hits - lost
    assert full_hits >= 35  # the zoo tells something
    assert spent < 0.75 * 50 * 4 * 512


def test_the_bernstein_radius_is_that_of_the_paper() -> None:
    chance = np.random.default_rng(0)
    a, b = chance.random(400) * 0.2, 0.5 + chance.random(400) * 0.4
    gap = b - a
    unlikely = np.log(2 * 12 / 0.05)
    radius = np.sqrt(2 * gap.var(ddof=1) * unlikely / 400) + 2 * 7 * unlikely / (3 * 399)
    shift = gap.mean() - radius
    assert list(bernstein_leavers({"a": a, "b": b - shift + 1e-9}, tries=12)) == ["b"]
    assert bernstein_leavers({"a": a, "b": b - shift - 1e-9}, tries=12) == {}
    assert bernstein_leavers({"a": a[:1], "b": b[:1]}) == {}
    assert bernstein_leavers({"a": np.full(9, np.nan), "b": np.ones(9)}) == {}


def test_the_best_stays_as_often_as_it_is_promised() -> None:
    """Twelve sources, equally good but for one that is a hair better, judged at every rung; and a bad one that goes."""
    lost = gone = 0
    for seed in range(300):
        chance = np.random.default_rng(seed)
        told = {f"{i}": (chance.random(3200) < 0.3 - 0.001 * (i == 3)).astype(float) for i in range(12)}
        told["bad"] = (chance.random(3200) < 0.6).astype(float)
        left: set[str] = set()
        for rows in (200, 400, 800, 1600, 3200):
            left |= set(bernstein_leavers({n: t[:rows] for n, t in told.items() if n not in left}, 0.05, 5 * 12))
        lost += "3" in left
        gone += "bad" in left
    assert lost <= 15  # 5 % of 300; the bound is loose, and it is none
    assert gone == 300
