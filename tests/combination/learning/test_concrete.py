"""Concrete masks: against slopes by hand, where entries that hurt are planted, and where the mask is all ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.learning.adamerging import AdaMerging
from headstart.combination.learning.concrete import Concrete
from headstart.core import Steps, Unfit
from headstart.numerics.learning import entropy, outputs
from headstart.testing.combination_learning import LinearTasks, weights_of


def unlabelled(seed: int, **sizes: int) -> LinearTasks:
    return LinearTasks(seed, labels=False, **sizes)


def mean_entropy(view: LinearTasks, weights: dict[str, torch.Tensor]) -> float:
    return float(np.mean([float(entropy(outputs(view, weights, t), "softmax")) for t in range(len(view.tasks))]))


@pytest.mark.parametrize("per", ["row", "entry"])
def test_begins_at_the_inner_merge(per: str) -> None:
    view = unlabelled(0)
    learned = Concrete(per=per, final="expectation", scale=0.4)(view, Steps(horizon=0))  # type: ignore[arg-type]
    found, wanted = weights_of(view, learned), view.shared(np.full((2, 3), 0.4))
    for name in view.tensors:
        torch.testing.assert_close(found[name], wanted[name])


@pytest.mark.parametrize("final", ["expectation", "sample"])
@pytest.mark.parametrize("per", ["row", "entry"])
def test_masks_have_a_mean_of_one(per: str, final: str) -> None:
    view = unlabelled(1)
    method = Concrete(per=per, final=final, learning_rate=0.1)  # type: ignore[arg-type]
    learned = method(view, Steps(horizon=30))
    shapes = {"row": {"weight": (1, 3, 1), "bias": (1, 3)}, "entry": {"weight": (1, 3, 8), "bias": (1, 3)}}[per]
    for name, gates in learned.gates.items():
        assert gates.shape == shapes[name]
        assert gates.mean() == pytest.approx(1, rel=1e-5)
        assert gates.min() >= 0
        assert gates.max() > 1.01


def test_the_published_form_is_the_default() -> None:
    assert (Concrete().per, Concrete().final) == ("entry", "sample")


def test_a_sample_is_drawn_from_the_seed() -> None:
    view = unlabelled(2)
    one, again, other = (
        Concrete(final="sample", seed=s)(view, Steps(horizon=2)).gates["weight"].tolist() for s in (0, 0, 1)
    )
    assert one == again
    assert one != other


def test_the_first_step_goes_down_the_slope() -> None:
    """The drawn entropy as a function of the logits, differentiated by small steps in float64."""
    view = unlabelled(3, tasks=1)
    learned = Concrete(final="expectation", batch=60, learning_rate=0.01)(view, Steps(horizon=1))
    generator = torch.Generator().manual_seed(0)
    noise = {n: torch.logit(torch.rand(view.base(n).shape, generator=generator)).double() for n in view.tensors}

    def value(logits: dict[str, torch.Tensor]) -> float:
        weights = {}
        for name in view.tensors:
            mask = torch.sigmoid((logits[name] + noise[name]) / 0.5)
            total = 0.3 * torch.stack(list(view.changes(name))).double().sum(0)
            weights[name] = view.base(name).double() + mask / mask.mean() * total
        logs = torch.log_softmax(view._x[0].double() @ weights["weight"].T + weights["bias"], 1)
        return float(-(logs.exp() * logs).sum(1).mean())

    zeros = {n: torch.zeros(view.base(n).shape, dtype=torch.float64) for n in view.tensors}
    assert learned.curve[0][1] == pytest.approx(value(zeros), rel=1e-4)
    for name in view.tensors:
        slope = torch.zeros_like(zeros[name])
        for at in range(slope.numel()):
            ends = []
            for sign in (-1, 1):
                moved = {n: z.clone() for n, z in zeros.items()}
                moved[name].view(-1)[at] = sign * 1e-4
                ends.append(value(moved))
            slope.view(-1)[at] = ends[1] - ends[0]
        moved = torch.sigmoid(-0.01 * torch.sign(slope))  # Adam's first step is as long everywhere
        torch.testing.assert_close(
            torch.from_numpy(learned.gates[name][0]).double(), moved / moved.mean(), rtol=1e-4, atol=0
        )


def test_what_hurts_is_masked() -> None:
    """Of two tasks each has entries of its own; at other inputs, copies of theirs, the changes undo the work."""
    view = unlabelled(4, models=2)
    useful = {0: slice(0, 2), 1: slice(2, 4)}
    for task, x in enumerate(view._x):
        x[:, 4:] = x[:, :4]
        x[:, :4][:, useful[1 - task]] *= 0.1
        x[:, 4:][:, useful[1 - task]] *= 0.1
        change = view._changes[task]["weight"]
        change[:, :4][:, useful[1 - task]] = 0
        change[:, 4:] = -0.6 * change[:, :4]
        view._changes[task]["bias"][:] = 0
    learned = Concrete(per="entry", learning_rate=0.05)(view, Steps(horizon=300))
    mask = learned.gates["weight"][0]
    assert mask[:, :4].mean() > 1.8  # of at most 2
    assert np.median(mask[:, 4:]) < 0.1
    assert mean_entropy(view, weights_of(view, learned)) < mean_entropy(view, view.shared(np.full((2, 2), 0.3)))


def test_shares_may_be_learned_beside_the_mask() -> None:
    view = unlabelled(5)
    both = Concrete(inner="adamerging", learning_rate=0.02)(view, Steps(horizon=100))
    assert both.shares is not None
    assert (both.shares != 0.3).all()
    assert both.shares.min() >= 0
    fixed = Concrete(learning_rate=0.02)(view, Steps(horizon=100))
    assert fixed.shares is not None
    assert (fixed.shares == 0.3).all()
    entropies = [mean_entropy(view, weights_of(view, found)) for found in (both, fixed)]
    assert entropies[0] < entropies[1]
    plain = AdaMerging(learning_rate=0.02)(view, Steps(horizon=100))
    assert entropies[0] == pytest.approx(mean_entropy(view, weights_of(view, plain)), rel=0.3)  # shares do the most


@pytest.mark.parametrize("wrong", [{"per": "column"}, {"final": "mean"}, {"inner": "ties"}, {"temperature": 0.0}])
def test_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(Unfit):
        Concrete(**wrong)  # type: ignore[arg-type]
