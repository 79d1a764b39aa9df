"""What a prior over settings must do, and what it may claim. Laws draw small searches on past targets."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.core import Advising, Known, PastTrials

Array = np.ndarray[Any, Any]
SPACE: dict[str, tuple[Any, ...]] = {"rank": (4, 8, 16), "rate": (1e-4, 1e-3), "sampler": ("a", "b", "c", "d")}


def draw(seed: int, targets: int = 5, trials: int = 30) -> tuple[PastTrials, Known]:
    chance = np.random.default_rng(seed)
    made = tuple(
        tuple(
            ({name: values[chance.integers(len(values))] for name, values in SPACE.items()}, float(chance.normal()))
            for _ in range(trials)
        )
        for _ in range(targets)
    )
    return PastTrials(tuple(f"t{i}" for i in range(targets)), made), Known(chance.uniform(-1, 1, targets))


def close(one: dict[str, Array], other: dict[str, Array]) -> None:
    assert one.keys() == other.keys()
    for name, weights in one.items():
        np.testing.assert_allclose(weights, other[name], rtol=1e-9, atol=1e-12)


def weights_sum_to_one(method: Advising, seed: int) -> None:
    """One weight a value, none below 0; also of a setting that nobody tried, and without any trial or similarity."""
    past, known = draw(seed)
    hollow = PastTrials(("t0", "t1"), ((), (({"rank": 99}, 0.5),)))
    for trials, target in ((past, known), (past, Known()), (hollow, Known(np.array([1.0, np.nan])))):
        advised = method(trials, {**SPACE, "untried": (True, False)}, target)
        assert advised.keys() == {*SPACE, "untried"}
        for name, weights in advised.items():
            assert weights.shape == (len(SPACE.get(name, (True, False))),)
            assert (weights >= 0).all()
            assert abs(weights.sum() - 1) < 1e-9


def rules_nothing_out(method: Advising, seed: int) -> None:
    """A value that no trial had can still be drawn."""
    past, known = draw(seed)
    advised = method(past, {"rank": (4, 8, 16, 32)}, known)
    assert advised["rank"][3] > 0


def repeatable(method: Advising, seed: int) -> None:
    past, known = draw(seed)
    close(method(past, SPACE, known), method(past, SPACE, known))


def target_order(method: Advising, seed: int) -> None:
    past, known = draw(seed)
    order = np.random.default_rng(seed).permutation(len(past.targets))
    moved = PastTrials(tuple(past.targets[t] for t in order), tuple(past.trials[t] for t in order))
    assert known.similarities is not None
    close(method(past, SPACE, known), method(moved, SPACE, Known(known.similarities[order])))


def trial_order(method: Advising, seed: int) -> None:
    past, known = draw(seed)
    moved = PastTrials(past.targets, tuple(trials[::-1] for trials in past.trials))
    close(method(past, SPACE, known), method(moved, SPACE, known))


def scale(method: Advising, seed: int) -> None:
    """Each past target's figures in a unit of its own."""
    past, known = draw(seed)
    moved = tuple(tuple((s, 10.0**t * (v + t)) for s, v in trials) for t, trials in enumerate(past.trials))
    close(method(past, SPACE, known), method(PastTrials(past.targets, moved), SPACE, known))


def same_task(method: Advising, seed: int) -> None:
    """A past target that is the same task, and whose better half of trials had one value: that value leads."""
    past, _ = draw(seed, trials=60)
    mine = tuple(
        ({**s, "sampler": "c" if i % 2 else "abd"[i % 3]}, v + 100 * (i % 2)) for i, (s, v) in enumerate(past.trials[0])
    )
    known = Known(np.where(np.arange(len(past.targets)) == 0, 1.0, -1.0))
    advised = method(PastTrials(past.targets, (mine, *past.trials[1:])), SPACE, known)
    assert advised["sampler"][2] > 0.5


ALWAYS = [weights_sum_to_one, rules_nothing_out, repeatable]
CLAIMS = {law.__name__: law for law in (target_order, trial_order, scale, same_task)}
