"""Merges that learn, where what they must find is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.combination.learning.adamerging import AdaMerging
from headstart.combination.learning.atlas import Atlas
from headstart.combination.learning.evolve import Evolve
from headstart.combination.learning.greedy_soup import GreedySoup
from headstart.combination.learning.learned_soup import LearnedSoup
from headstart.combination.learning.lorahub import LoraHub
from headstart.core import Steps, Unfit
from headstart.numerics.learning import draws, mean_loss, score
from headstart.testing.combination_learning import LinearTasks, weights_of


def test_adamerging_begins_at_task_arithmetic() -> None:
    view = LinearTasks(0, labels=False)
    assert (AdaMerging()(view, Steps(horizon=0)).shares == 0.3).all()


def test_adamerging_by_model_has_one_share_for_all_tensors() -> None:
    shares = AdaMerging(per="model", learning_rate=0.05)(LinearTasks(0, labels=False), Steps(horizon=5)).shares
    assert shares is not None
    assert (shares[0] == shares[1]).all()
    assert len(set(shares[0])) == 3


def test_adamerging_stays_within_its_bounds() -> None:
    shares = AdaMerging(learning_rate=0.5, most=0.6)(LinearTasks(1, labels=False), Steps(horizon=30)).shares
    assert shares is not None
    assert shares.min() >= 0
    assert shares.max() <= 0.6


def test_balance_keeps_classes_apart() -> None:
    """All in one class is the surest prediction, and the price on it counts."""
    view = LinearTasks(2, tasks=1, labels=False)

    def largest(balance: float) -> float:
        found = AdaMerging(balance=balance, learning_rate=0.1, most=5.0)(view, Steps(horizon=150))
        view.may_read = True
        classes = view.logits(weights_of(view, found), 0, range(60)).argmax(1)
        return float(np.bincount(classes.numpy(), minlength=3).max() / 60)

    assert largest(2.0) <= largest(0.0)


def trimmed_by_hand(view: LinearTasks, density: float) -> list[np.ndarray]:
    """Of each model all entries end to end: the changes that trimming and electing signs leave of it."""
    whole = [np.concatenate([view.changes(n)[m].numpy().ravel() for n in view.tensors]) for m in range(3)]
    for one in whole:
        one[np.argsort(-np.abs(one), kind="stable")[round(density * len(one)) :]] = 0
    sign = np.sign(sum(whole[1:], whole[0]))
    return [np.where(np.sign(one) == sign, one, 0) for one in whole]


def test_adamerging_of_trimmed_changes_begins_at_their_sum() -> None:
    view = LinearTasks(8, labels=False)
    found = weights_of(view, AdaMerging(density=0.3)(view, Steps(horizon=0)))
    left = trimmed_by_hand(view, 0.3)
    base = np.concatenate([view.base(n).numpy().ravel() for n in view.tensors])
    whole = np.concatenate([found[n].numpy().ravel() for n in view.tensors])
    np.testing.assert_allclose(whole, base + 0.3 * sum(left[1:], left[0]), rtol=1e-5, atol=1e-6)
    assert 0 < sum(int((one != 0).sum()) for one in left) < 3 * 8


def test_adamerging_of_trimmed_changes_is_adamerging_of_models_that_were_trimmed() -> None:
    one, other = LinearTasks(9, labels=False), LinearTasks(9, labels=False)
    for changes, left in zip(other._changes, trimmed_by_hand(one, 0.5), strict=True):
        changes["weight"], changes["bias"] = torch.from_numpy(left[:24]).view(3, 8), torch.from_numpy(left[24:])
    trimmed = AdaMerging(density=0.5, learning_rate=0.05)(one, Steps(horizon=20))
    plain = AdaMerging(learning_rate=0.05)(other, Steps(horizon=20))
    np.testing.assert_allclose(trimmed.shares, plain.shares, rtol=1e-3)  # type: ignore[arg-type]
    for name, weights in weights_of(one, trimmed).items():
        torch.testing.assert_close(weights, weights_of(other, plain)[name], rtol=1e-3, atol=1e-4)


def test_a_density_of_one_still_elects_signs() -> None:
    view = LinearTasks(10, labels=False)
    gates = AdaMerging(density=1.0)(view, Steps(horizon=0)).gates
    assert 0.4 < np.mean([g.mean() for g in gates.values()]) < 0.95
    assert not AdaMerging()(view, Steps(horizon=0)).gates


def test_atlas_begins_at_the_base() -> None:
    assert not Atlas()(LinearTasks(0), Steps(horizon=0)).shares.any()  # type: ignore[union-attr]


def test_atlas_makes_as_many_steps_as_its_epochs() -> None:
    assert len(Atlas(epochs=7, batch=10, least_steps=0)(LinearTasks(0), Steps()).curve) == 42
    assert len(Atlas(epochs=1, batch=60)(LinearTasks(0), Steps()).curve) == 100


def test_atlas_recovers_a_task_that_one_model_solves() -> None:
    view = LinearTasks(3, tasks=1)
    learned = Atlas(epochs=60, weight_decay=0.0)(view, Steps())
    assert score(view, weights_of(view, learned)) > 0.95


def test_parts_of_matrices_have_shares_of_their_own() -> None:
    view = LinearTasks(11, tasks=1)
    learned = Atlas(parts=4, weight_decay=0.0)(view, Steps(horizon=20))
    for model in range(3):
        assert len(np.unique(learned.gates["weight"][model])) == 4
        assert len(np.unique(learned.gates["bias"][model])) == 1
    places = [np.unique(g, return_inverse=True)[1].reshape(g.shape) for g in learned.gates["weight"]]
    pairs = {tuple(p) for p in np.stack([p.ravel() for p in places]).T.tolist()}
    assert len(pairs) == 4  # the same parts in all models
    assert not any(g.any() for g in Atlas(parts=4)(view, Steps(horizon=0)).gates.values())


def test_the_first_step_of_parts_goes_down_their_slopes() -> None:
    """By differences of the loss in each part's share; parts as the method dealt them."""
    view = LinearTasks(12, tasks=1)
    method = Atlas(parts=3, weight_decay=0.0, batch=60, learning_rate=1e-3)
    gates = method(view, Steps(horizon=1)).gates
    place = np.unique(Atlas(parts=3, batch=60)(view, Steps(horizon=30)).gates["weight"][0], return_inverse=True)[1]
    for model in range(3):
        for part in range(3):
            mask = torch.from_numpy(place.reshape(3, 8) == part)

            def at(share: float, model: int = model, mask: torch.Tensor = mask) -> float:
                changed = view.base("weight") + share * mask * view.changes("weight")[model]
                return mean_loss(view, {"weight": changed, "bias": view.base("bias")})

            slope = at(0.01) - at(-0.01)
            moved = gates["weight"][model][mask.numpy()]
            assert np.ptp(moved) == 0
            assert np.sign(moved[0]) == -np.sign(slope)
            assert abs(moved[0]) == pytest.approx(1e-3, rel=1e-3)  # Adam's first step


def test_more_parts_fit_a_new_task_better() -> None:
    view = LinearTasks(13, tasks=1)
    view._y[0] = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(0))
    few, many = (Atlas(parts=p, weight_decay=0.0, batch=60)(view, Steps(horizon=150)) for p in (1, 8))
    assert mean_loss(view, weights_of(view, many)) < mean_loss(view, weights_of(view, few)) - 0.02


def test_a_learned_soup_begins_at_the_mean() -> None:
    learned = LearnedSoup()(LinearTasks(0), Steps(horizon=0))
    assert learned.shares == pytest.approx(1 / 3)
    assert learned.facts == {"logit_scale": 1.0}


def test_a_learned_soup_finds_the_better_model() -> None:
    view = LinearTasks(4, tasks=1)
    one = LearnedSoup()(view, Steps(horizon=150)).shares
    each = LearnedSoup(by_tensor=True)(view, Steps(horizon=150)).shares
    assert one is not None
    assert each is not None
    assert one[0, 0] > 0.6
    assert not np.allclose(each[0], each[1])


def test_a_greedy_soup_against_all_orders() -> None:
    """Its steps, written out by hand."""
    view = LinearTasks(5)

    def of(models: list[int]) -> float:
        shares = np.zeros((2, 3))
        shares[:, models] = 1 / len(models)
        return score(view, view.shared(shares))

    order = sorted(range(3), key=lambda m: -of([m]))
    taken = order[:1]
    for m in order[1:]:
        if of([*taken, m]) >= of(taken):
            taken.append(m)
    learned = GreedySoup()(view, Steps())
    assert learned.facts["taken"] == [f"model {m}" for m in taken]
    assert learned.shares is not None
    assert learned.shares[0].nonzero()[0].tolist() == sorted(taken)


def test_lorahub_without_trials_is_the_base() -> None:
    assert not LoraHub(trials=0)(LinearTasks(0), Steps()).shares.any()  # type: ignore[union-attr]


def test_lorahub_pays_for_large_shares() -> None:
    view = LinearTasks(6, tasks=1)
    free, dear = (LoraHub(price=p, trials=80)(view, Steps()).shares for p in (0.0, 10.0))
    assert np.abs(dear).mean() < np.abs(free).mean()  # type: ignore[arg-type]


def test_evolution_names_the_merge_that_it_found() -> None:
    view = LinearTasks(7)
    learned = Evolve(trials=30)(view, Steps())
    assert learned.method == "task_arithmetic"
    assert len(learned.settings["weights"]) == 3
    middle = view.made("task_arithmetic", {"weights": (0.5,) * 3, "scale": 0.8})
    assert mean_loss(view, weights_of(view, learned)) <= mean_loss(view, middle)
    assert learned.curve[-1][1] == pytest.approx(mean_loss(view, weights_of(view, learned)))


def test_groups_of_layers_take_from_each_model_what_is_good_at_their_depth() -> None:
    """Each of two models is right in one tensor and spoilt in the other, so no weights for all are good."""
    view = LinearTasks(7, tasks=1, models=2)
    right, noise = view._changes[0], torch.Generator().manual_seed(0)
    spoilt = {n: 5 * torch.randn(c.shape, generator=noise) for n, c in right.items()}
    view._changes = [{**spoilt, "weight": right["weight"]}, {**spoilt, "bias": right["bias"] * 0}]
    together, parted = (Evolve(search=(("weights", 0.0, 1.0),), groups=g, trials=80)(view, Steps()) for g in (1, 2))
    assert not together.own
    assert parted.curve[-1][1] < 0.7 * together.curve[-1][1]
    assert parted.settings["weights"][0] > parted.settings["weights"][1]
    assert parted.own["bias"]["weights"][1] > parted.own["bias"]["weights"][0]
    assert parted.curve[-1][1] == pytest.approx(mean_loss(view, weights_of(view, parted)))


@pytest.mark.parametrize("wrong", [{"search": ()}, {"search": (("scale", 1.0, 0.5),)}, {"groups": 0}])
def test_ranges(wrong: dict[str, object]) -> None:
    with pytest.raises(Unfit):
        Evolve(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (AdaMerging, {"start": 2.0}),
        (AdaMerging, {"density": 0.0}),
        (Atlas, {"batch": 0}),
        (LearnedSoup, {"steps": -1}),
        (LoraHub, {"most": 0.0}),
    ],
)
def test_settings(method: type, wrong: dict[str, object]) -> None:
    with pytest.raises(Unfit):
        method(**wrong)


def test_adamerging_by_autograd_through_the_merged_weights() -> None:
    """The published way: shares are parameters, all changes are in the graph, and Adam moves them."""
    view = LinearTasks(8, labels=False)
    ours = AdaMerging(learning_rate=0.01)(view, Steps(horizon=15)).shares
    shares = torch.full((2, 3), 0.3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([shares], lr=0.01)
    batches = [draws(60, 16, t) for t in range(2)]
    for _ in range(15):
        merged = {
            n: view.base(n) + sum(shares[i, m] * c for m, c in enumerate(view.changes(n)))
            for i, n in enumerate(view.tensors)
        }
        logits = [view.logits(merged, t, next(b)) for t, b in enumerate(batches)]
        adam.zero_grad()
        torch.stack([-(x.softmax(1) * x.log_softmax(1)).sum(1).mean() for x in logits]).mean().backward()
        adam.step()
    np.testing.assert_allclose(ours, shares.detach().numpy(), atol=1e-5)
