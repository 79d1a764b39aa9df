"""The lowest value of a function that has no gradient, by evolution of a normal distribution (CMA-ES).

Hansen and Ostermeier, "Completely Derandomized Self-Adaptation in Evolution Strategies", 2001; by Optuna.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count

Point = dict[str, float]


def minimised(
    cost: Callable[[Point], float], space: Mapping[str, tuple[float, float]], start: Point, trials: int | None,
    seed: int, more: Callable[[], bool] = lambda: True,
) -> tuple[Point, tuple[tuple[int, float], ...]]:  # fmt: skip
    """The best point that was tried, and (trial, lowest cost so far). The start is tried first, and beside `trials`.

    space: name -> lowest and highest. trials: None for as many as there may be. more: is asked before each whether it
    may begin. A cost that is no number counts as infinite.
    """
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution
    from optuna.samplers import CmaEsSampler

    lowest, best = _finite(cost(start)), dict(start)
    curve = [(0, lowest)]
    ranges: dict[str, BaseDistribution] = {name: FloatDistribution(low, high) for name, (low, high) in space.items()}
    sampler = CmaEsSampler(seed=seed, warn_independent_sampling=False)
    loud = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # that a study begins is no news
    try:
        study = optuna.create_study(sampler=sampler)
    finally:
        optuna.logging.set_verbosity(loud)
    study.add_trial(optuna.trial.create_trial(params=dict(start), distributions=ranges, value=lowest))
    for number in count(1) if trials is None else range(1, trials + 1):
        if not more():
            break
        trial = study.ask(ranges)
        found = _finite(cost({k: float(v) for k, v in trial.params.items()}))
        study.tell(trial, found)
        if found < lowest:
            lowest, best = found, {k: float(v) for k, v in trial.params.items()}
        curve.append((number, lowest))
    return best, tuple(curve)


def _finite(value: float) -> float:
    return value if value == value and abs(value) != float("inf") else 1e30
