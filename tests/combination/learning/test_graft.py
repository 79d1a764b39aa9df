"""Grafting against all masks tried out, and where the entries that matter are planted."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from headstart.combination.learning.graft import Graft
from headstart.core import Learned, Steps, Unfit
from headstart.numerics.learning import mean_loss
from headstart.testing.combination_learning import LinearTasks, weights_of

Weights = dict[str, torch.Tensor]


def one_model(seed: int) -> LinearTasks:
    return LinearTasks(seed, tasks=1, models=1)


def kept(view: LinearTasks, learned: Learned, model: int = 0) -> np.ndarray:
    """Of all entries, end to end."""
    gates = [learned.gates.get(n, np.zeros((len(view.models), *view.base(n).shape))) for n in view.tensors]
    return np.concatenate([g[model].ravel() for g in gates])


def by_size(view: LinearTasks, count: int, model: int = 0) -> set[int]:
    sizes = np.concatenate([view.changes(n)[model].abs().numpy().ravel() for n in view.tensors])
    return set(np.argsort(-sizes, kind="stable")[:count].tolist())


def test_nothing_is_the_base_and_all_is_the_fine_tune() -> None:
    view = one_model(0)
    none, everything = (weights_of(view, Graft(share=s, steps=20)(view, Steps())) for s in (0.0, 1.0))
    for name in view.tensors:
        assert torch.equal(none[name], view.base(name))
        torch.testing.assert_close(everything[name], view.base(name) + view.changes(name)[0])


def test_without_a_step_it_keeps_the_largest_of_the_whole_model() -> None:
    view = LinearTasks(1)
    learned = Graft(share=0.3)(view, Steps(horizon=0))
    for model in range(3):
        assert set(np.flatnonzero(kept(view, learned, model)).tolist()) == by_size(view, 8, model)
    assert learned.facts["kept"] == [8 / 27] * 3


def test_shared_entries_are_the_mean_and_overlap_is_told() -> None:
    view = LinearTasks(2)
    learned = Graft(share=0.5)(view, Steps(horizon=0))
    sets = [by_size(view, 14, m) for m in range(3)]
    for i, j in combinations(range(3), 2):
        assert learned.facts["jaccard"][i][j] == pytest.approx(
            len(sets[i] & sets[j]) / len(sets[i] | sets[j]), abs=1e-6
        )
    base, *changes = (
        torch.cat([t.flatten() for t in (view.base("weight"), view.base("bias"))]),
        *(torch.cat([view.changes(n)[m].flatten() for n in view.tensors]) for m in range(3)),
    )
    wanted = base.clone()
    for entry in range(27):
        owners = [changes[m][entry] for m in range(3) if entry in sets[m]]
        wanted[entry] += sum(owners) / len(owners) if owners else 0
    found = weights_of(view, learned)
    torch.testing.assert_close(torch.cat([found[n].flatten() for n in view.tensors]), wanted)


@pytest.mark.parametrize("seed", [3, 6, 7])
def test_few_entries_are_among_the_best_of_all_such_few(seed: int) -> None:
    """Of 2,925 masks of three entries: ahead of 98 %, and of the largest three."""
    view = one_model(seed)
    learned = Graft(share=3 / 27, batch=60)(view, Steps())
    assert int((kept(view, learned) > 0).sum()) == 3
    gates = torch.zeros(2925, 27)
    gates[torch.arange(2925)[:, None], torch.tensor(list(combinations(range(27), 3)))] = 1
    weight = view.base("weight") + gates[:, :24].view(-1, 3, 8) * view.changes("weight")[0]
    logits = view._x[0] @ weight.mT + (view.base("bias") + gates[:, 24:] * view.changes("bias")[0])[:, None]
    losses = torch.nn.functional.cross_entropy(logits.mT, view._y[0].expand(2925, -1), reduction="none").mean(1)
    found = mean_loss(view, weights_of(view, learned))
    assert float((losses < found - 1e-6).float().mean()) < 0.02
    assert found == pytest.approx(learned.curve[-1][1], rel=1e-5)
    assert found < mean_loss(view, weights_of(view, Graft(share=3 / 27)(view, Steps(horizon=0))))


def test_planted_entries_are_found_among_larger_ones() -> None:
    """The skill lies in one small change a class; large changes lie at inputs that are hardly ever there."""
    view, planted = one_model(4), {0, 9, 18}
    view._x[0][:, 3:] *= 1e-3
    view._changes[0]["weight"][:, 3:] *= 10
    view._changes[0]["weight"][:, :3] = 2 * torch.eye(3)
    view._changes[0]["bias"][:] = 0
    view._y[0] = view._x[0][:, :3].argmax(1)
    learned = Graft(share=3 / 27, batch=60)(view, Steps())
    assert not by_size(view, 3) & planted
    assert set(np.flatnonzero(kept(view, learned)).tolist()) == planted


def test_every_model_is_refined_on_its_own_rows() -> None:
    """The third model has no task, and keeps what is largest; the first has one, and does not."""
    view = LinearTasks(5)
    learned = Graft(share=0.2, batch=60)(view, Steps(horizon=40))
    assert set(np.flatnonzero(kept(view, learned, 2)).tolist()) == by_size(view, 5, 2)
    alone = LinearTasks(5)
    alone.tasks, alone._x, alone._y = alone.tasks[:1], alone._x[:1], alone._y[:1]
    assert (kept(alone, Graft(share=0.2, batch=60)(alone, Steps(horizon=40))) > 0).tolist() == (
        kept(view, learned) > 0
    ).tolist()


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"steps": -1}, {"batch": 0}])
def test_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(Unfit):
        Graft(**wrong)  # type: ignore[arg-type]
