"""Each law of similarities fails on a method that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headstart.core import Needs, TaskSample, Undeclared
from headstart.testing.ranking_similarity import ALWAYS, CLAIMS, draw

Array = np.ndarray[Any, Any]
LAWS = {law.__name__: law for law in ALWAYS} | CLAIMS


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A similarity by the rules at hand."""

    needs = Needs(gives=("features",))
    claims = ()
    cites = "none"

    made: Callable[[TaskSample], Any]
    rule: Callable[[Array, Array], float] = lambda a, b: 1 / (1 + float(((a - b) ** 2).sum()))

    def embed(self, sample: TaskSample) -> dict[str, Array]:
        return {"it": self.made(sample)}

    def __call__(self, source: Mapping[str, Array], target: Mapping[str, Array]) -> float:
        return self.rule(source["it"], target["it"])


def means(sample: TaskSample) -> Array:
    return np.asarray(sample.features.mean(axis=0))


def labels(sample: TaskSample) -> Array:
    assert sample.labels is not None
    return np.asarray(sample.labels[:3])


def spoilt(sample: TaskSample) -> Array:
    sample.labels[0] += 1  # type: ignore[index]  # there are labels
    return labels(sample)


BREAKS: dict[str, Broken] = {
    "finite": Broken(made=means, rule=lambda a, b: float("nan")),
    "one_for_the_same": Broken(made=means, rule=lambda a, b: 0.9),
    "repeatable": Broken(made=lambda s: np.random.default_rng().random(3)),
    "survives_a_file": Broken(made=lambda s: np.array([s], dtype=object)),
    "symmetric": Broken(made=labels, rule=lambda a, b: float(a.sum() - b.sum()) - float(a @ b)),
    "class_names": Broken(made=labels),
    "row_order": Broken(made=lambda s: s.features[0]),
    "rotation": Broken(made=lambda s: s.features[:, 0].mean(keepdims=True)),
    "scale": Broken(made=means),
    "halves_nearer": Broken(made=lambda s: np.zeros(1)),
    "sees_labels": Broken(made=means),
    "only_shared_rows": Broken(made=means),
}


def test_every_law_has_a_method_that_breaks_it() -> None:
    assert set(BREAKS) == set(LAWS)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_method_is_found_out(name: str) -> None:
    law: Any = LAWS[name]
    with pytest.raises(AssertionError):
        law(BREAKS[name], 0)


def test_a_sound_one_is_not() -> None:
    for name in ("finite", "one_for_the_same", "repeatable", "survives_a_file", "symmetric", "row_order"):
        LAWS[name](Broken(made=means), 0)


def test_a_law_lets_a_method_touch_what_it_declares_alone() -> None:
    blind: Any = draw(Broken(made=means), 0)
    for name in ("encoder", "texts"):
        with pytest.raises(Undeclared):
            getattr(blind, name)
