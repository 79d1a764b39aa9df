"""The training loop: taken up to the last bit, stopped at step boundaries, rates and inner splits by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core import FitView, State, Steps, Unfit
from headstart.execution import fit
from headstart.execution.fit import PROGRESS, STOP, Recipe, Stopped, features, inner_split, throughput, train
from headstart.numerics.artifacts import Head
from headstart.testing.adaptation_routes import MemoryView, TinyEncoder, draw


def zeros(seen: Any, labels: Any, ids: Any) -> Head:
    return Head(np.zeros((3, seen.shape[1]), dtype=np.float32), np.zeros(3, dtype=np.float32))


def run(view: FitView, state: State | None = None, steps: Steps | None = None, **settings: Any) -> fit.Trained:
    return train(view.encoder, view, zeros, Recipe(**settings), state, steps or Steps(horizon=9))


def enough_rows(seed: int = 0) -> MemoryView:
    return draw(seed, rows=120)  # 26 or 27 rows of each class to train on


@pytest.mark.parametrize("cuts", [(0.1, 0.5), (1 / 3,), (0.34, 0.67, 0.9)])
@pytest.mark.parametrize("early", [False, True])
def test_taken_up_equals_never_interrupted_to_the_last_bit(cuts: tuple[float, ...], early: bool) -> None:
    view = enough_rows()
    whole = run(replace(view), None, Steps(horizon=9, early_stop=early))
    state = None
    for cut in (*cuts, 1.0):
        # a state crosses processes as tensors and JSON
        state = state and State(state.step, {k: v.clone() for k, v in state.tensors.items()}, dict(state.facts))
        part = run(replace(view), state, Steps(horizon=9, until=cut, early_stop=early))
        state = part.state
    assert np.array_equal(whole.predictions, part.predictions)
    assert np.array_equal(whole.head.weight, part.head.weight)
    assert whole.curve == part.curve
    assert whole.fraction == part.fraction
    assert part.state is None


def test_two_runs_are_equal_and_another_seed_is_not() -> None:
    view = enough_rows()
    a, b, c = run(replace(view)), run(replace(view)), run(replace(view, seed=1))
    assert np.array_equal(a.predictions, b.predictions)
    assert not np.array_equal(a.predictions, c.predictions)


def test_parts_of_a_batch_give_the_gradient_of_the_whole() -> None:
    view = draw(0)
    view.source.module.dropout.p = 0.0  # type: ignore[union-attr, assignment]  # parts draw dropout in another order
    a, b = run(replace(view), token_budget=10_000), run(replace(view), token_budget=9)
    np.testing.assert_allclose(a.predictions, b.predictions, atol=1e-5)  # sums in another order


def test_the_soft_stop_ends_at_a_step_boundary() -> None:
    seen: list[tuple[int, int]] = []
    progress = PROGRESS.set(lambda step, horizon: seen.append((step, horizon)))
    stop = STOP.set(lambda: len(seen) == 4)
    try:
        with pytest.raises(Stopped) as stopped:
            run(draw(0))
    finally:
        STOP.reset(stop)
        PROGRESS.reset(progress)
    assert stopped.value.step == 4
    assert seen == [(1, 9), (2, 9), (3, 9), (4, 9)]


def test_the_global_generator_stays_where_it_was() -> None:
    before = torch.random.get_rng_state()
    run(draw(0))
    throughput(TinyEncoder(), draw(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_throughput_changes_no_weight() -> None:
    view = draw(0)
    before = {n: t.clone() for n, t in view.encoder.module.state_dict().items()}
    assert 0 < throughput(view.encoder, view) < 5
    for name, tensor in view.encoder.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_layers_learn_at_rates_that_fall_with_depth() -> None:
    view = draw(0)
    before = {n: t.clone() for n, t in view.encoder.module.state_dict().items()}
    # one step of AdamW moves each weight that has a gradient by its rate, but for the decay
    train(view.encoder, view, probe_like, Recipe(learning_rate=1e-3, layer_decay=0.5, weight_decay=0.0, warmup=0.0),
          None, Steps(horizon=1))  # fmt: skip
    moved = {n: (t - before[n]).abs().max().item() for n, t in view.encoder.module.state_dict().items() if "w" in n}
    assert moved["second.weight"] == pytest.approx(5e-4, rel=0.01)
    assert moved["first.weight"] == pytest.approx(2.5e-4, rel=0.01)


def probe_like(seen: Any, labels: Any, ids: Any) -> Head:
    g = np.random.default_rng(0)
    return Head(g.normal(size=(3, seen.shape[1])).astype(np.float32), np.zeros(3, dtype=np.float32))


def test_batch_statistics_stay_with_few_rows() -> None:
    view = draw(0)
    run(view)
    after, before = view.encoder.module.state_dict(), view.source.module.state_dict()
    assert torch.equal(after["norm.running_mean"], before["norm.running_mean"])
    assert not torch.equal(after["norm.weight"], before["norm.weight"])


def test_early_stopping_needs_twenty_rows_of_each_class() -> None:
    view = enough_rows()
    rows, inner = inner_split(view, True)
    assert len(inner) == 16
    assert sorted(rows + inner) == list(range(78))
    assert inner_split(view, False)[1] == []
    few = replace(view, train=view.train.take([i for i in range(78) if i > 30 or view.train.labels[i] != 1]))
    assert inner_split(few, True)[1] == []


def test_early_stopping_returns_the_best_mark_and_its_fraction() -> None:
    view = enough_rows()
    done = run(view, None, Steps(horizon=40, early_stop=True), learning_rate=1e-3)
    scores = {0.0: -1.0} | {step / 40: score for step, _, score in done.curve if score is not None}
    assert scores[done.fraction] == max(scores.values())
    assert done.facts["inner_rows"] == 16
    wild = run(replace(view), None, Steps(horizon=40, early_stop=True), learning_rate=3.0, warmup=0.0)
    assert wild.fraction < 1  # a rate that destroys the encoder ends early


def test_fraction_says_where_the_predictions_were_made() -> None:
    assert run(draw(0), None, Steps(horizon=9, until=0.5)).fraction == pytest.approx(5 / 9)
    assert run(draw(0)).fraction == 1.0


def test_a_state_of_another_schedule_is_refused() -> None:
    view = draw(0)
    half = run(replace(view), None, Steps(horizon=9, until=0.5))
    with pytest.raises(Unfit, match="9 steps on 30 rows"):
        run(replace(view), half.state, Steps(horizon=12))


def test_features_come_back_in_the_order_of_the_rows() -> None:
    view = draw(0)
    got = features(view.source, view.train.inputs, token_budget=9)
    np.testing.assert_allclose(got, view.train.features, atol=1e-6)  # other batches


def test_default_horizon_is_in_epochs_and_never_tiny() -> None:
    assert Recipe().horizon(30) == 60
    assert Recipe(epochs=6, batch_rows=16).horizon(1600) == 600
