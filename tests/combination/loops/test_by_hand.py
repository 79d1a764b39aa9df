"""Merges that train, against gradient steps in float64 written out here, and where what they must find is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from headstart.combination.loops.atm import Atm
from headstart.combination.loops.cold_fusion import ColdFusion
from headstart.combination.loops.forkmerge import ForkMerge
from headstart.core import Steps, Unfit
from headstart.numerics.loops import Tuner, explained, gained
from headstart.testing.combination_learning import ROWS, LinearTasks
from headstart.testing.combination_loops import base_of

GENTLE: dict[str, Any] = {"start": "base", "batch": 0, "optimiser": "sgd", "learning_rate": 0.2}


def by_hand(
    view: LinearTasks, body: Mapping[str, torch.Tensor], task: int, rows: Sequence[int], steps: int
) -> dict[str, torch.Tensor]:
    """Steps of gradient descent on one task, with the gradient of cross-entropy as textbooks have it."""
    weight, bias = body["weight"].double(), body["bias"].double()
    x, y = view.inputs(task)[rows].double(), torch.nn.functional.one_hot(view.labels(task, rows), 3).double()
    for _ in range(steps):
        gap = (torch.softmax(x @ weight.T + bias, 1) - y) / len(rows)
        weight, bias = weight - 0.2 * gap.T @ x, bias - 0.2 * gap.sum(0)
    return {"weight": weight, "bias": bias}


def close(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> None:
    for name in wanted:
        torch.testing.assert_close(found[name].double(), wanted[name].double(), rtol=1e-5, atol=1e-6)


class Poisoned(LinearTasks):
    """One model and two tasks; labels of the first are what the model says, those of the second are `poison`."""

    def __init__(self, seed: int, poison: torch.Tensor) -> None:
        super().__init__(seed, tasks=2, models=1)
        self._y[1] = poison


def solved(view: LinearTasks) -> dict[str, torch.Tensor]:
    return {n: view.base(n) + view.changes(n)[0] for n in view.tensors}


def test_atm_moves_by_the_mean_of_tunings_by_hand() -> None:
    view, body = LinearTasks(0, tasks=3), base_of(LinearTasks(0))
    found = Atm(**GENTLE, rounds=2, steps=4, alpha=0.7)(view, body, Steps()).weights
    wanted: Mapping[str, torch.Tensor] = body
    for _ in range(2):
        each = [by_hand(view, wanted, t, range(ROWS), 4) for t in range(3)]
        wanted = {n: w.double() + 0.7 * sum(e[n] - w for e in each) / 3 for n, w in wanted.items()}
    close(found, wanted)


def test_one_round_from_the_base_is_task_arithmetic_of_what_was_tuned() -> None:
    view, body = LinearTasks(1), base_of(LinearTasks(1))
    found = Atm(**GENTLE, rounds=1, steps=7)(view, body, Steps()).weights
    each = [by_hand(view, body, t, range(ROWS), 7) for t in range(2)]
    close(found, {n: body[n] + 0.5 * sum(e[n] - body[n] for e in each) for n in body})


def test_atm_tells_of_steps_that_are_too_large() -> None:
    with pytest.raises(Unfit, match="no number any more"):
        Atm(**{**GENTLE, "learning_rate": 1e38}, rounds=4, steps=3)(LinearTasks(0), base_of(LinearTasks(0)), Steps())


def test_a_horizon_shortens_rounds_before_it_drops_them() -> None:
    view, body = LinearTasks(0), base_of(LinearTasks(0))
    told = [Atm(start="base", rounds=4, steps=5)(view, body, Steps(horizon=h)).facts for h in (100, 8, 3)]
    assert told == [{"rounds": 4, "steps": [5, 5]}, {"rounds": 4, "steps": [2, 2]}, {"rounds": 3, "steps": [1, 1]}]


def test_a_contributor_alone_is_what_it_tuned() -> None:
    view = LinearTasks(2, tasks=1)
    body, tuner = base_of(view), Tuner(view, optimiser="sgd", learning_rate=0.2, batch=0, seed=0, held=0.3)
    found = ColdFusion(**GENTLE, rounds=1, steps=6, slack=10)(view, body, Steps())
    assert found.facts["rounds"][0]["contributions"][0]["taken"]
    close(found.weights, by_hand(view, body, 0, tuner.rows[0], 6))


def test_contributions_are_averaged_from_the_best_on() -> None:
    """Every mean that may be taken is probed here; the last of three models maps all rows to the same point."""
    counts = set()
    for seed in range(12):
        view = LinearTasks(seed, tasks=1, models=3)
        view._changes[2] = {n: -view.base(n) for n in view.tensors}
        found = ColdFusion(rounds=1)(view, base_of(view), Steps())
        tuner = Tuner(view, optimiser="adam", learning_rate=1e-3, batch=32, seed=0, held=0.3)
        each = [{n: view.base(n) + view.changes(n)[m] for n in view.tensors} for m in range(3)]
        order = sorted(range(3), key=lambda m: -explained(tuner.probe(each[m])))
        means = [{n: torch.stack([each[m][n] for m in order[:c]]).mean(0) for n in view.tensors} for c in (1, 2, 3)]
        probes = [tuner.probe(m) for m in means]
        best = max(probes, key=explained)
        assert explained(best) > explained(tuner.probe(base_of(view)))
        count = max(c for c in range(3) if gained(best, probes[c])[0] >= -gained(best, probes[c])[1])
        close(found.weights, means[count])
        assert [c["taken"] for c in found.facts["rounds"][0]["contributions"]] == [
            m in order[: count + 1] for m in range(3)
        ]
        assert -found.curve[-1][1] == pytest.approx(explained(probes[count]), abs=1e-6)
        counts.add(count)
    assert len(counts) > 1


@pytest.mark.parametrize("seed", range(5))
def test_who_tunes_on_labels_of_chance_is_left_out(seed: int) -> None:
    chance = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, ROWS))
    view = Poisoned(seed, chance)
    method = ColdFusion(**{**GENTLE, "learning_rate": 0.5}, rounds=1, steps=60)
    honest, poison = method(view, solved(view), Steps()).facts["rounds"][0]["contributions"]
    assert not poison["taken"]
    assert honest["probe"] > poison["probe"] + 0.05


def test_contributors_are_drawn() -> None:
    view = LinearTasks(5, tasks=6)
    told = ColdFusion(start="base", contributors=2, rounds=12)(view, base_of(view), Steps()).facts["rounds"]
    seen = [[c["of"] for c in r["contributions"]] for r in told]
    assert {len(s) for s in seen} == {2}
    assert {n for s in seen for n in s} == set(view.tasks)


def test_a_target_alone_is_plain_training() -> None:
    view = LinearTasks(6, tasks=1)
    body, tuner = base_of(view), Tuner(view, optimiser="sgd", learning_rate=0.2, batch=0, seed=0, held=0.3)
    found = ForkMerge(**GENTLE, rounds=3, steps=4)(view, body, Steps())
    walk = [by_hand(view, body, 0, tuner.rows[0], 4 * r) for r in range(4)]
    x, y = view.inputs(0)[tuner.held[0]].double(), view.labels(0, tuner.held[0])
    right = [float(((x @ w["weight"].T + w["bias"]).argmax(1) == y).double().mean()) for w in walk]
    assert [told["score"] for told in found.facts["rounds"]] == pytest.approx(right[1:], abs=1e-6)
    close(found.weights, walk[int(np.argmax(right))])


def test_a_harmful_auxiliary_gets_no_part() -> None:
    view = Poisoned(7, (LinearTasks(7, tasks=1, models=1).labels(0, range(ROWS)) + 1) % 3)
    view._x[1] = view._x[0]  # the same rows, and the next class for each
    method = ForkMerge(**{**GENTLE, "learning_rate": 1.0}, rounds=1, steps=60, auxiliary=3.0)
    told = method(view, solved(view), Steps()).facts["rounds"][0]["branches"]
    assert [b["part"] for b in told] == [1.0, 0.0]
    assert told[0]["score"] > told[1]["score"] + 0.3


def test_coefficients_against_all_that_may_be() -> None:
    """Two branches: every step is tried by brute force, and the least of the best is taken."""
    for seed in range(6):
        view = LinearTasks(seed, tasks=1, models=2)
        tuner = Tuner(view, optimiser="adam", learning_rate=1e-3, batch=32, seed=0, held=0.3)
        (told,) = ForkMerge(rounds=1)(view, base_of(view), Steps()).facts["rounds"]
        each = [{n: view.base(n) + view.changes(n)[m] for n in view.tensors} for m in range(2)]
        scores = [tuner.score(e, 0) for e in each]
        one, other = sorted(range(2), key=lambda m: (-scores[m], m))
        tried = [
            tuner.score({n: (each[one][n] + a * each[other][n]) / (1 + a) for n in view.tensors}, 0)
            for a in np.arange(6) / 5
        ]
        alpha = int(np.argmax(tried)) / 5  # the first
        assert told["score"] == pytest.approx(max(tried))
        assert told["branches"][other]["part"] == pytest.approx(alpha / (1 + alpha), abs=1e-5)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (Atm, {"rounds": -1}), (Atm, {"steps": 0}), (Atm, {"batch": -1}), (Atm, {"optimiser": "lamb"}),
        (Atm, {"learning_rate": 0.0}), (ColdFusion, {"held": 1.0}), (ColdFusion, {"contributors": 0}),
        (ColdFusion, {"slack": -1.0}), (ForkMerge, {"auxiliary": 0.0}), (ForkMerge, {"held": 0.0}),
    ],
)  # fmt: skip
def test_settings_out_of_range(method: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(Unfit):
        method(**wrong)


def test_too_few_rows_to_hold_some_back() -> None:
    view = LinearTasks(0)
    view.rows = lambda task: 5  # type: ignore[method-assign]
    with pytest.raises(Unfit, match="has 5 rows, too few"):
        ColdFusion()(view, base_of(view), Steps())
