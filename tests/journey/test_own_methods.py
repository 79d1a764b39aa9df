"""Methods that are in no catalogue: an instance goes into a verb as it is, and runs beside the workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.core import Fitted, FitView, Needs, Score, Source, State, Steps, View
from headstart.numerics.artifacts import Head
from journey import shelves

pytestmark = pytest.mark.usefixtures("light")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Times the largest feature."""

    needs = Needs(gives=("features",), tasks=("single_label",))
    claims = ()
    cites = ""
    times: float

    def __call__(self, view: View) -> Score:
        return Score(self.times * float(np.max(view.features)))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Always:
    """A head of zeros, but for one class."""

    needs = Needs(gives=("features",), tasks=("single_label",))
    claims = ()
    cites = ""
    wanted: int = 0

    def __call__(self, view: FitView, state: State | None, steps: Steps) -> Fitted:
        features = np.asarray(view.valid.features)
        head = Head(
            np.zeros((view.classes, features.shape[1]), dtype=np.float32),
            np.where(np.arange(view.classes) == self.wanted, 9.0, 0.0).astype(np.float32),
            "softmax",
        )
        return Fitted(head, head(features))


def test_an_estimator_of_ones_own_ranks_beside_the_catalogues(text_model: Source) -> None:
    target = shelves.tickets(told=1.0)
    given: list[Any] = [Spread(times=2.0), "nmc", Spread(times=3.0)]
    (first,) = hs.rank(target, [text_model], hs.Budget(), [given[0]])
    (both,) = hs.rank(target, [text_model], hs.Budget(), given[1:])
    name = f"?{__name__}:Spread"
    twice, thrice = (s.receipt.facts["proxies"] for s in (first, both))  # type: ignore[union-attr]  # ranked
    assert set(thrice) == {"nmc", name}
    assert twice[name] / 2.0 == pytest.approx(thrice[name] / 3.0) != 0


def test_a_route_of_ones_own_adapts(tmp_path: Path, text_model: Source) -> None:
    target = shelves.tickets(told=1.0, metric="accuracy")
    (made,) = hs.adapt(target, [text_model], hs.Budget(), Always(wanted=1), out=tmp_path / "tuned")
    assert made.receipt is not None
    assert made.receipt.method == f"?{__name__}:Always"
    assert dict(made.receipt.settings) == {"wanted": 1}
    assert made.receipt.scores["accuracy"].value == pytest.approx(np.mean(target.labelled.labels == 1))
