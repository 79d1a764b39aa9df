"""Estimators that know rows of one class, on rows with several labels: label by label, each alone by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart import catalogue
from headstart.testing.ranking_estimators import draw, score, seen

Array = np.ndarray[Any, Any]
# of the rest, all but `clusterability`, which reads as many groups as there are classes, know several labels themselves
ONE_BY_ONE = (
    "agreement", "cdnv", "etran", "gbc", "lda", "leep", "nce", "nce_cv", "ncti", "neural_collapse", "nleep", "pactran",
    "ped", "sfda", "tmi", "transrate",
)  # fmt: skip


def rows(seed: int = 0) -> tuple[Array, Array]:
    """Three labels, of which the last is on every row, and one that the features tell."""
    f, y = draw(seed, 60, 6, 2, apart=1.0)
    rare = np.random.default_rng(seed).random(60) < 0.2
    return f, np.stack([y, rare, np.ones(60)], axis=1).astype(np.int8)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_the_score_is_the_mean_over_labels_that_vary(name: str) -> None:
    method = catalogue.make("ranking.estimators", name)
    f, hot = rows()
    folds = np.arange(60) % 5
    given = method(seen(method, f, hot, 3, "multi_label", folds=folds))
    alone = [method(seen(method, f, hot[:, c].astype(np.int64), 2, folds=folds)) for c in (0, 1)]
    assert given.value == pytest.approx(np.mean([one.value for one in alone]))
    if alone[0].losses is None:
        assert given.losses is None
    else:
        np.testing.assert_allclose(given.losses, np.mean([one.losses for one in alone], axis=0))


@pytest.mark.parametrize("name", ["lda", "leep", "ped"])
def test_labels_that_the_features_tell_score_higher(name: str) -> None:
    method = catalogue.make("ranking.estimators", name)
    f, hot = rows()
    order = np.random.default_rng(1).permutation(60)
    assert score(method, f, hot, 3, task="multi_label") > score(method, f, hot[order], 3, task="multi_label")


def test_labels_of_which_none_varies() -> None:
    method = catalogue.make("ranking.estimators", "lda")
    f, _ = rows()
    assert score(method, f, np.tile(np.array([1, 0], dtype=np.int8), (60, 1)), 2, task="multi_label") == 1


def test_every_estimator_of_labels_covers_several() -> None:
    known = catalogue.entries("ranking.estimators").values()
    assert [e.name for e in known if "multi_label" not in e.needs.tasks] == ["clusterability"]


def test_every_ranking_of_rows_of_one_class_covers_words() -> None:
    """A word is seen as such a row, with features and, of a tagger, with predictions."""
    known = [e for kind in ("ranking.estimators", "ranking.sets") for e in catalogue.entries(kind).values()]
    assert [e.name for e in known if ("single_label" in e.needs.tasks) != ("tagging" in e.needs.tasks)] == []
