"""Each law of divergences fails on a method that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headstart.core import Needs, Sample
from headstart.testing.ranking_divergences import ALWAYS, CLAIMS

LAWS = {law.__name__: law for law in ALWAYS} | CLAIMS
Rule = Callable[[Sample, Sample], float]


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A divergence by the rule at hand."""

    needs = Needs(gives=("features",))
    claims = ()
    cites = "none"

    rule: Rule

    def __call__(self, source: Sample, target: Sample) -> float:
        return self.rule(source, target)


def means(a: Sample, b: Sample) -> float:
    return float(((a.features.mean(0) - b.features.mean(0)) ** 2).sum())


def spread(a: Sample, b: Sample) -> float:
    return float(a.features.std() / max(b.features.std(), 1e-9))


def drawn(a: Sample, b: Sample) -> float:
    return float(np.random.default_rng().random())


def by_code(a: Sample, b: Sample) -> float:
    assert a.labels is not None
    assert b.labels is not None
    return float(abs(a.labels[0] - b.labels[0]) + abs(a.labels.max() - b.labels.max()))


BREAKS: dict[str, Rule] = {
    "finite": lambda a, b: float(a.features.mean() - b.features.mean()),
    "identity": lambda a, b: means(a, b) + 1e-3,
    "survives_one_row": lambda a, b: float("nan"),
    "repeatable": drawn,
    "symmetric": spread,
    "row_order": lambda a, b: float(((a.features[0] - b.features[0]) ** 2).sum()),
    "rotation": lambda a, b: float(abs(a.features[:, 0].mean() - b.features[:, 0].mean())),
    "scale": means,
    "translation": lambda a, b: means(a, b) / float((b.features**2).mean()),
    "class_names": by_code,
    "sees_labels": means,
    "grows_with_shift": lambda a, b: min(means(a, b), 0.1),
}


def test_every_law_has_a_method_that_breaks_it() -> None:
    assert set(BREAKS) == set(LAWS)


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_method_is_found_out(name: str) -> None:
    law: Any = LAWS[name]
    with pytest.raises(AssertionError):
        law(Broken(rule=BREAKS[name]), 0)


def test_a_sound_one_is_not() -> None:
    for name in ("identity", "symmetric", "row_order", "rotation", "translation", "grows_with_shift"):
        LAWS[name](Broken(rule=means), 0)
