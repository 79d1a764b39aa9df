"""The bank prior on histograms done by hand, and in a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core import Known, Measured, PastTrials, Refused, Unfit
from headstart.inventory import Inventory
from headstart.inventory.records import Run, Trial
from headstart.recall.priors import prior
from headstart.recall.priors.bank_prior import BankPrior
from inventory.shelves import a_target


def trials(*figures: tuple[Any, float]) -> tuple[tuple[dict[str, Any], float], ...]:
    return tuple(({"rank": value}, figure) for value, figure in figures)


def test_one_identical_task_gives_the_histogram_of_its_best_trials() -> None:
    past = PastTrials(("t",), (trials((4, 0.9), (4, 0.8), (8, 0.7), (16, 0.1)),))
    found = BankPrior(best=3, explore=0.0)(past, {"rank": (4, 8, 16)}, Known(np.array([1.0])))
    np.testing.assert_allclose(found["rank"], [2 / 3, 1 / 3, 0])


def test_targets_weigh_by_one_over_distance_and_the_far_ones_not_at_all() -> None:
    past = PastTrials(("a", "b", "c"), (trials((4, 1.0)), trials((8, 1.0)), trials((16, 1.0))))
    found = BankPrior(nearest=2, explore=0.2)(past, {"rank": (4, 8, 16)}, Known(np.array([0.8, 0.6, -0.5])))
    np.testing.assert_allclose(found["rank"], 0.8 * np.array([2 / 3, 1 / 3, 0]) + 0.2 / 3)  # 1 / 0.2 and 1 / 0.4


def test_a_novel_target_hears_all_past_ones_alike() -> None:
    past = PastTrials(("a", "b"), (trials((4, 1.0)), trials((8, 1.0))))
    between = np.array([[1.0, 0.9], [0.9, 1.0]])
    for known in (Known(np.array([0.2, 0.1]), None, between), Known()):
        np.testing.assert_allclose(BankPrior(nearest=1)(past, {"rank": (4, 8)}, known)["rank"], [0.5, 0.5])


def test_a_search_by_the_prior_needs_a_fifth_of_the_trials() -> None:
    """Two families of targets, each with a value that is good for all six settings; median of 50 banks.

    A random search reaches 95 % of the best with the one configuration that has all six right; how many trials that
    takes is a geometric number, with a known median.
    """
    names, space = [f"s{i}" for i in range(6)], {f"s{i}": (0, 1, 2, 3) for i in range(6)}
    needed = []
    for seed in range(50):
        chance = np.random.default_rng(seed)
        past = []
        for family in (0, 0, 0, 1, 1, 1):
            drawn = chance.integers(4, size=(200, 6))
            figures = (drawn == family).mean(axis=1) + 0.02 * chance.standard_normal(200)
            past.append(
                tuple(
                    (dict(zip(names, map(int, d), strict=True)), float(v)) for d, v in zip(drawn, figures, strict=True)
                )
            )
        near = Known(np.array([0.1, 0.2, 0.0, 0.9, 0.8, 0.85]))
        advised = BankPrior()(PastTrials(tuple("abcdef"), tuple(past)), space, near)
        needed.append(_median_trials(float(np.prod([weights[1] for weights in advised.values()]))))
    assert np.median(needed) <= _median_trials(0.25**6) / 5


def _median_trials(probability: float) -> float:
    return float(np.ceil(np.log(0.5) / np.log1p(-probability)))


def test_the_verb_reads_validation_figures_of_other_targets(tmp_path: Path) -> None:
    with Inventory(tmp_path / "bank.db") as bank:
        for name, best in (("past", 8), ("mine", 4)):
            target = a_target(name, train=["a", "b"], test=["c"])
            bank.record_target(target, None)
            tried = [
                Trial(name=f"{rank}", kind="adaptation.routes", method="lora", source="s", settings={"rank": rank},
                      valid=Measured(v, v, v, 2))
                for rank, v in ((4, 0.9 if best == 4 else 0.1), (8, 0.9 if best == 8 else 0.1))
            ]  # fmt: skip
            failed = Trial(name="f", kind="adaptation.routes", method="lora", settings={"rank": 4}, status="failed")
            bank.record_run(Run(id=name, target=target.fingerprint), trials=[*tried, failed])
        asked: dict[str, Any] = {"space": {"rank": (4, 8)}, "route": "lora", "inventory": bank}
        new = a_target("new", train=["x", "y"], test=["z"])
        mine = a_target("mine", train=["a", "b"], test=["c"])
        one = BankPrior(best=1, explore=0.0)
        np.testing.assert_allclose(prior(mine, method=one, known=Known(), **asked)["rank"], [0, 1])
        np.testing.assert_allclose(prior(new, method=one, known=Known(), **asked)["rank"], [0.5, 0.5])
        with pytest.raises(Refused, match="no trial of `lp_ft`"):
            prior(new, known=Known(), **{**asked, "route": "lp_ft"})
        with pytest.raises(Unfit, match="`rank` may take no value"):
            prior(new, **{**asked, "space": {"rank": ()}})


@pytest.mark.parametrize("settings", [{"nearest": 0}, {"best": 0}, {"explore": -0.1}, {"novelty": 0.0}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Unfit, match="cannot be"):
        BankPrior(**settings)
