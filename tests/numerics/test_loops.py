"""Copies that are tuned and how bodies are judged: against torch's optimisers, scikit-learn's ridge and formulas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from headstart.numerics import loops
from headstart.numerics.loops import Tuner
from headstart.testing.combination_learning import ROWS, LinearTasks
from headstart.testing.combination_loops import base_of


class Watched(LinearTasks):
    """Notes which rows of a task gradients are asked of."""

    def logits(self, weights: Mapping[str, torch.Tensor], task: int, rows: Sequence[int]) -> torch.Tensor:
        if torch.is_grad_enabled():
            self.__dict__.setdefault("seen", set()).update((task, r) for r in rows)
        return super().logits(weights, task, rows)


def tuner(view: LinearTasks, **settings: object) -> Tuner:
    return Tuner(view, **{"optimiser": "adam", "learning_rate": 0.01, "batch": 16, "seed": 0, **settings})  # type: ignore[arg-type]


def test_rows_that_are_held_back_are_never_tuned_on() -> None:
    view = Watched(0)
    one = tuner(view, held=0.3)
    one.tuned(base_of(view), {0: 1.0, 1: 0.5}, 12)
    for task in range(2):
        assert len(one.held[task]) == round(0.3 * ROWS)
        assert sorted(one.held[task] + one.rows[task]) == list(range(ROWS))
        assert {r for t, r in view.__dict__["seen"] if t == task} == set(one.rows[task])
    assert tuner(view).held == [[], []]


def test_the_optimiser_begins_anew() -> None:
    view = LinearTasks(1)
    one = tuner(view, batch=0)
    first, again = (one.tuned(base_of(view), {0: 1.0}, 3) for _ in range(2))
    for name in first:
        torch.testing.assert_close(first[name], again[name], rtol=0, atol=1e-6)  # rows are mixed, sums are rounded


def test_adam_is_that_of_the_paper() -> None:
    """The first step of Adam is the rate times the sign of the slope."""
    view, body = LinearTasks(2), base_of(LinearTasks(2))
    found = tuner(view, batch=0).tuned(body, {0: 1.0}, 1)
    slope = tuner(view, batch=0, optimiser="sgd", learning_rate=1.0).tuned(body, {0: 1.0}, 1)
    for name, weight in body.items():
        sign = torch.sign(weight - slope[name])
        torch.testing.assert_close(found[name], weight - 0.01 * sign, rtol=0, atol=1e-5)


def test_shares_weigh_the_tasks() -> None:
    view, body = LinearTasks(3), base_of(LinearTasks(3))

    def step(shares: Mapping[int, float]) -> dict[str, torch.Tensor]:
        made = tuner(view, batch=0, optimiser="sgd", learning_rate=0.5).tuned(body, shares, 1)
        return {n: made[n] - body[n] for n in body}

    both, one, other = step({0: 1.0, 1: 0.3}), step({0: 1.0}), step({1: 1.0})
    for name in both:
        torch.testing.assert_close(both[name], one[name] + 0.3 * other[name], rtol=1e-4, atol=1e-6)


def test_a_probe_against_scikit_learn() -> None:
    from sklearn.linear_model import Ridge

    from headstart.numerics.inner import inner_folds

    view = LinearTasks(4)
    one, body = tuner(view, held=0.5), base_of(view)
    errors = one.probe(body)
    for task in range(2):
        held, rest = one.held[task], one.rows[task]
        y = np.eye(3)[view.labels(task, range(ROWS)).numpy()]
        x = view.features(body, task, range(ROWS)).numpy().astype(np.float64)
        folds, parts = inner_folds([str(r) for r in held], view.labels(task, held).numpy(), 3), []
        for fold in range(3):
            fit = [*(r for r, f in zip(held, folds, strict=True) if f != fold), *rest]
            level = np.square(x[fit] - x[fit].mean(0)).sum(1).mean()
            best = []
            for penalty in np.array(loops.PENALTIES) * level * len(fit):
                model = Ridge(alpha=penalty).fit(x[fit], y[fit])
                z = x[fit] - x[fit].mean(0)
                hat = np.trace(z @ np.linalg.solve(z.T @ z + penalty * np.eye(3), z.T)) + 1
                left = np.square(y[fit] - model.predict(x[fit])).mean() / (1 - hat / len(fit)) ** 2
                best.append((left, penalty))
            model = Ridge(alpha=min(best)[1]).fit(x[fit], y[fit])
            at = [r for r, f in zip(held, folds, strict=True) if f == fold]
            parts.append((np.square(y[at] - model.predict(x[at])).sum(), np.square(y[at] - y[fit].mean(0)).sum()))
        (wrong, naive) = np.sum(parts, axis=0)
        assert errors[task].mean() == pytest.approx(wrong / naive, rel=0.02)  # penalties are scaled in another way


def test_features_without_end_are_worse_than_any() -> None:
    view = LinearTasks(5)
    body = base_of(view)
    broken = {n: torch.full_like(w, torch.inf) for n, w in body.items()}
    one = tuner(view, held=0.3)
    assert loops.explained(one.probe(broken)) == -np.inf
    assert one.score(broken, 0) == -np.inf


def test_a_gain_is_that_of_the_means() -> None:
    rng = np.random.default_rng(0)
    before, after = ([rng.random(40), rng.random(25)] for _ in range(2))
    gain, error = loops.gained(before, after)
    assert gain == pytest.approx(loops.explained(after) - loops.explained(before))
    drawn = []
    for _ in range(2000):
        rows = [rng.integers(0, len(b), len(b)) for b in before]
        drawn.append(np.mean([(b[r] - a[r]).mean() for b, a, r in zip(before, after, rows, strict=True)]))
    assert error == pytest.approx(np.std(drawn), rel=0.1)  # of 2000 draws of the rows
