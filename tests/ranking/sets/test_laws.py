"""Each law of sets fails on a method that breaks it; and the kind's verb."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from headstart.core import Candidate, Needs, Refused, SetFunction, Undeclared, Unfit
from headstart.ranking.sets import choose
from headstart.ranking.sets.ensemble_selection import EnsembleSelection
from headstart.ranking.sets.ms_leep import MSLEEP
from headstart.testing.ranking_sets import ALWAYS, CLAIMS, draw

LAWS = {law.__name__: law for law in ALWAYS} | CLAIMS
CALLS = itertools.count()


@dataclass(frozen=True)
class Broken:
    """The value of a set by a wrong rule, on candidates and members; 0 for none unless the rule says otherwise."""

    rule: Any
    none: float = 0.0
    needs: Any = Needs(gives=("features", "predictions"), own_rows=True)  # noqa: RUF009  # frozen, as a method's
    claims: tuple[str, ...] = ()
    cites: str = "nobody"

    def __call__(self, candidates: Sequence[Candidate]) -> SetFunction:
        return lambda members: float(self.rule(candidates, members)) if members else self.none


BROKEN: dict[str, Broken] = {
    "finite": Broken(lambda c, s: 1 / np.float64(c[s[0]].features.std()) if c[s[0]].features.std() else np.inf),
    "none_are_worth_nothing": Broken(lambda c, s: 0, none=1.0),
    "order_of_members": Broken(lambda c, s: s[0]),
    "repeatable": Broken(lambda c, s: next(CALLS)),
    "submodular": Broken(lambda c, s: len(s) ** 2),
    "monotone": Broken(lambda c, s: -len(s)),
    "candidate_order": Broken(lambda c, s: sum(s)),
    "class_names": Broken(lambda c, s: (c[s[0]].labels * c[s[0]].features[:, 0]).sum()),
    "duplicate_adds_nothing": Broken(lambda c, s: len(s)),
    "single_is_rank": Broken(lambda c, s: len(c)),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_a_broken_method_breaks_the_law(name: str) -> None:
    with pytest.raises(AssertionError):
        LAWS[name](BROKEN[name], seed=0)


def test_input_that_is_changed_is_noticed() -> None:
    def in_place(c: Any, s: Any) -> float:
        c[0].features[:] = 0
        return 0.0

    with pytest.raises(AssertionError, match="changes its input"):
        LAWS["repeatable"](Broken(in_place), seed=0)


def test_a_candidate_shows_only_what_is_declared() -> None:
    probed = Broken(len, needs=Needs(gives=("features",), probe=True, labels=False))
    one = draw(probed, 0)[0]  # type: ignore[arg-type]  # a stand-in
    assert one.table.shape == (40, 3)
    for name in ("labels", "features", "moments", "predictions", "own"):
        with pytest.raises(Undeclared, match=name):
            getattr(one, name)
    with pytest.raises(Undeclared, match="table"):
        _ = replace(one, needs=Needs(gives=("features",))).table


def test_the_verb_is_lazy_where_the_method_says_it_may_be() -> None:
    lazy, plain = choose(draw(MSLEEP(), 0), 4, "ms-leep"), choose(draw(EnsembleSelection(), 0), 4)
    assert lazy.evaluations == 5 + 3, "modular: one more for each member after the first"
    assert plain.evaluations >= 5 + 4
    assert choose(draw(MSLEEP(), 0), 4, MSLEEP()) == lazy


def test_the_verb_refuses_a_task_that_the_method_does_not_cover() -> None:
    with pytest.raises(Refused, match="regression") as caught:
        choose(draw(MSLEEP(), 0, task="regression"), 2, MSLEEP())
    assert "ensemble_selection" in caught.value.fix
    with pytest.raises(Unfit, match="ms_leap") as near:
        choose(draw(MSLEEP(), 0), 2, "ms_leap")
    assert "ms_leep" in near.value.fix


def test_one_joins_although_it_gains_nothing() -> None:
    drawn = draw(EnsembleSelection(), 0)
    shares = [replace(c, scored=np.full((40, 3), [0.2, 0.3, 0.5])) for c in drawn]
    assert choose(shares, 3).members == (0,)
    assert choose(shares, 3, least=0).members == ()
    assert choose([], 3).members == ()
